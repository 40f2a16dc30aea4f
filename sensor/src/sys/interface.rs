//! Which interfaces there are, an interface's index, the kind of its link layer, and who completes its checksums.
//!
//! Authority: netdevice(7). Asked of the kernel by the caller's own network namespace, where `/sys` may show another's.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixDatagram,
    },
};

/// What the names of our own devices begin with.
pub const OWN_PREFIX: &str = "flowtap-";

/// The interfaces that are wanted by name, and their indexes. None of our own devices is ever among them.
///
/// # Errors
/// The kernel does not list its interfaces.
pub fn present(is_wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, u32>> {
    let list = nix::net::if_::if_nameindex()?;
    let all = list.iter().map(|interface| (interface.name().to_string_lossy().into_owned(), interface.index()));
    Ok(all.filter(|(name, _)| !is_ours(name) && is_wanted(name)).collect())
}

/// Whether a device of that name is one of ours, or every device whose name matches a pattern.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(OWN_PREFIX)
}

/// The kernel's index of the interface `name`.
///
/// # Errors
/// There is no such interface.
pub fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `name` is a string that ends with zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// The ARP hardware type of the interface `name`, as in `linux/if_arp.h`: 1 is Ethernet, 65534 no link layer.
///
/// # Errors
/// There is no such interface, or no socket to ask through.
pub fn hardware_type(name: &str) -> io::Result<u16> {
    // Any socket will do to ask through; this one needs neither address nor interface.
    let socket = UnixDatagram::unbound()?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], family: 0, rest: [0; REQUEST_REST_BYTES] };
    // The last byte stays zero.
    if name.is_empty() || name.len() >= request.name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the name and writes the address of one `ifreq`, whose size and layout `Request` has.
    let answer = unsafe { libc::ioctl(fd, libc::SIOCGIFHWADDR, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(request.family) }
}

/// Whether the device `name` is to complete the checksums of what it sends by itself. Without that the kernel does it
/// before, and cuts super-packets into wire frames for it.
///
/// Authority: `ETHTOOL_STXCSUM` in `linux/ethtool.h`.
///
/// # Errors
/// There is no such device, it does not let itself be told, or the caller has no CAP_NET_ADMIN.
pub fn set_transmit_checksums(name: &str, on: bool) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let mut value = EthtoolValue { command: ETHTOOL_STXCSUM, data: u32::from(on) };
    let mut request = ValueRequest { name: [0; libc::IFNAMSIZ], value: &raw mut value, rest: [0; VALUE_REST_BYTES] };
    if name.is_empty() || name.len() >= request.name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one `ifreq`, whose size and layout `ValueRequest` has, and the value behind its pointer,
    // which outlives the call.
    let answer = unsafe { libc::ioctl(fd, libc::SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// An `ifreq` whose union holds a pointer.
#[repr(C, align(8))]
struct ValueRequest {
    name: [u8; libc::IFNAMSIZ],
    value: *mut EthtoolValue,
    rest: [u8; VALUE_REST_BYTES],
}

const ETHTOOL_STXCSUM: u32 = 0x17;
const VALUE_REST_BYTES: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<*mut EthtoolValue>();
const _: () = assert!(size_of::<ValueRequest>() == size_of::<libc::ifreq>());

/// An `ifreq` whose union holds a socket address: its family is the hardware type.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    family: u16,
    rest: [u8; REQUEST_REST_BYTES],
}

const REQUEST_REST_BYTES: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<u16>();
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        // The kernel makes it first in every namespace. Its hardware type is ARPHRD_LOOPBACK.
        assert_eq!(index("lo").unwrap(), 1);
        assert_eq!(hardware_type("lo").unwrap(), 772);
    }

    #[test]
    fn interfaces_are_listed_by_name() {
        assert_eq!(present(|name| name == "lo").unwrap(), BTreeMap::from([("lo".to_owned(), 1)]));
        assert_eq!(present(|_| false).unwrap(), BTreeMap::new());
        assert!(is_ours("flowtap-v4789") && !is_ours("flowtap0") && !is_ours("eth0"));
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", "no\0name", "a-name-that-is-far-too-long"] {
            assert!(index(name).is_err(), "{name:?}");
            assert!(hardware_type(name).is_err(), "{name:?}");
        }
    }
}
