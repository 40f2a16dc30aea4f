//! That something has changed, as the kernel tells it without being asked.
//!
//! Authority: rtnetlink(7), linux/rtnetlink.h for the groups. IPsec policies are not told of to everybody.

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

/// Tells that something about links, addresses, routes, rules or neighbours has changed.
#[derive(Debug)]
pub(crate) struct Changes {
    socket: Socket,
    /// Of what is told only that it was told matters.
    told: Vec<u8>,
}

impl Changes {
    /// Hears what changes from now on.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in CHANGES {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, told: Vec::with_capacity(TOLD_BYTES) })
    }

    /// Whether something has changed since the last call. Where too much has changed to be told, it has.
    pub(crate) fn any(&mut self) -> bool {
        let mut any = false;
        for _ in 0..TOLD_MAX {
            self.told.clear();
            match self.socket.recv(&mut self.told, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => any = true,
            }
        }
        any
    }
}

const CHANGES: [u32; 8] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
];
/// linux/rtnetlink.h.
const RTNLGRP_IPV6_RULE: u32 = 19;
/// A message may be longer; what does not fit is thrown away.
const TOLD_BYTES: usize = 64;
/// How much is heard at once; what is left is heard the next time.
const TOLD_MAX: usize = 256;
