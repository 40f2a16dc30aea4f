//! Options of sockets for which the crates in use have no name.
//!
//! Authority: setsockopt(2), linux/in6.h.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use socket2::Socket;

/// Has the kernel put no flow label of its own into what an IPv6 socket sends.
///
/// # Errors
/// What the system says.
pub fn no_flow_labels(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0)
}

/// Sets an option that is a number.
pub(super) fn set_option(socket: &Socket, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of the number it is pointed at.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), length) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const IPV6_AUTOFLOWLABEL: i32 = 70;
