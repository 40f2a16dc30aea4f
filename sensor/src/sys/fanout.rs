//! Several packet sockets that share out the packets of one interface.
//!
//! Authority: packet(7), `PACKET_FANOUT`. The kernel chooses a socket by a hash of the flow, the same for both
//! directions, and another one where that is full.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A group of sockets, by its number in the network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(u16);

/// Makes a group with this socket in it, which must be bound to its interface.
///
/// # Errors
/// It is no packet socket, or the kernel refuses.
pub fn make_group(socket: &impl AsFd) -> io::Result<Group> {
    join_with(socket, BY_FLOW_HASH | ROLLOVER_IF_FULL | UNIQUE_ID)?;
    let mut value: libc::c_int = 0;
    let mut value_bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `value_bytes` bytes of `value`, which is as long, and both are ours for the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut value).cast(),
            &raw mut value_bytes,
        )
    };
    // The number is the lower half.
    if answer == 0 { Ok(Group(value as u16)) } else { Err(io::Error::last_os_error()) }
}

/// Adds a socket to a group. It must be bound to the same interface.
///
/// # Errors
/// It is no packet socket, or the kernel refuses.
pub fn join_group(socket: &impl AsFd, group: Group) -> io::Result<()> {
    join_with(socket, BY_FLOW_HASH | ROLLOVER_IF_FULL | libc::c_int::from(group.0))
}

fn join_with(socket: &impl AsFd, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads the bytes of `value`, whose length is passed.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// linux/if_packet.h: the mode is the upper half, with flags in it.
const BY_FLOW_HASH: libc::c_int = 0;
const ROLLOVER_IF_FULL: libc::c_int = 0x1000 << 16;
const UNIQUE_ID: libc::c_int = 0x2000 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_packet_socket_is_refused() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(make_group(&socket).is_err());
        assert!(join_group(&socket, Group(1)).is_err());
    }
}
