//! Devices that belong to an open file, and go with it.
//!
//! Authority: the kernel's Documentation/networking/tuntap.rst.

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt as _},
};

/// The way to make one device, or why there is none.
#[derive(Debug)]
pub struct Way(io::Result<File>);

impl Way {
    /// Opens it, in the caller's network namespace. Needs the right to open `/dev/net/tun`.
    pub fn open() -> Self {
        Self(OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun"))
    }

    /// None, for that reason.
    pub fn none(why: io::ErrorKind) -> Self {
        Self(Err(why.into()))
    }

    /// What the device belongs to.
    ///
    /// # Errors
    /// The right was missing, or the kernel makes no such devices.
    pub fn file(&self) -> io::Result<&File> {
        let Self(opened) = self;
        opened.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    /// Makes the device; a `%d` in the pattern becomes the first number that is free. Its name.
    ///
    /// # Errors
    /// There is no way, the caller has no CAP_NET_ADMIN, the file has a device already, or the name is taken.
    pub fn make(&self, layer: Layer, pattern: &str) -> io::Result<String> {
        make(self.file()?, layer, pattern)
    }
}

/// What packets of a device begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Ip,
}

fn make(file: &File, layer: Layer, pattern: &str) -> io::Result<String> {
    let kind = match layer {
        Layer::Ethernet => IFF_TAP,
        Layer::Ip => IFF_TUN,
    };
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: kind | IFF_NO_PI, rest: [0; REQUEST_REST_BYTES] };
    // The last byte stays zero.
    if pattern.is_empty() || pattern.len() >= request.name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.name.iter_mut().zip(pattern.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads and writes one `ifreq`, whose size and layout `Request` has.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&request.name).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// An `ifreq` whose union holds flags.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; REQUEST_REST_BYTES],
}

const REQUEST_REST_BYTES: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<i16>();
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

// linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TUN: i16 = 0x0001;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_names_are_refused() {
        let file = File::open("/dev/null").unwrap();
        let refusal = |pattern| make(&file, Layer::Ip, pattern).map(drop).unwrap_err();
        for pattern in ["", "a-name-that-is-far-too-long"] {
            assert_eq!(refusal(pattern).kind(), io::ErrorKind::InvalidInput, "{pattern:?}");
        }
        assert_eq!(refusal("possible").raw_os_error(), Some(libc::ENOTTY), "this is no tun, and it was asked");
    }
}
