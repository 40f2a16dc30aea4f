//! Copies into a pcap file, as a capture at the target would show them: nanoseconds, Ethernet, outer headers.
//!
//! Authority: the pcap format (draft-ietf-opsawg-pcap). The file has one clock, that of the capture the frames come from.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Target;
use super::counters::Skip;
use super::encapsulate::{Path, for_each_packet, push_datagram};
use super::executor::{Copied, Outlet, Taken};
use super::inner::MADE_ADDRESSES;
use crate::time::NANOS_PER_SEC;

/// Writes copies to a file.
pub struct PcapOutlet {
    writer: Box<dyn Write + Send>,
    /// To each target.
    paths: Vec<Path>,
    /// The longest outer IP packet.
    path_mtu: usize,
    /// Identification of the next fragmented packet.
    next_id: u32,
    datagram: Vec<u8>,
    failure: Option<io::Error>,
}

impl PcapOutlet {
    /// Begins a file. Outer packets longer than `path_mtu` are fragmented, or skipped where the session says so. A file
    /// has no sender, so sources are documentation addresses ([`SOURCE_V4`], [`SOURCE_V6`]).
    ///
    /// # Errors
    /// When the header can't be written.
    pub fn new(mut writer: Box<dyn Write + Send>, targets: &[Target], path_mtu: usize) -> io::Result<Self> {
        writer.write_all(&PCAP_MAGIC_NANOS.to_le_bytes())?;
        writer.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        writer.write_all(&SNAP_BYTES.to_le_bytes())?;
        writer.write_all(&LINKTYPE_ETHERNET.to_le_bytes())?;
        let path = |target: &Target| match target.address {
            IpAddr::V4(dst) => Path::V4 { src: SOURCE_V4, dst },
            IpAddr::V6(dst) => Path::V6 { src: SOURCE_V6, dst },
        };
        Ok(Self {
            writer,
            paths: targets.iter().map(path).collect(),
            path_mtu,
            next_id: 0,
            datagram: Vec::new(),
            failure: None,
        })
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first that went wrong since the beginning.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failure {
            Some(failure) => Err(failure),
            None => self.writer.flush(),
        }
    }
}

impl Outlet for PcapOutlet {
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip> {
        let path = *self.paths.get(usize::from(copy.target)).ok_or(Skip::NoTarget)?;
        if self.failure.is_some() {
            return Err(Skip::Refused);
        }
        let fragmented = path.packet_bytes(copy.inner.len()) > self.path_mtu;
        if fragmented && !copy.may_fragment {
            return Err(Skip::TooBig);
        }
        self.datagram.clear();
        push_datagram(path, &copy.envelope, copy.inner, &mut self.datagram);
        let (writer, mut written) = (&mut self.writer, Ok(()));
        for_each_packet(path, &self.datagram, self.path_mtu, self.next_id, |piece| {
            let header = piece.header.as_slice();
            let length_bytes = (MADE_ADDRESSES.len() + header.len() + piece.payload.len()) as u32;
            let mut record = || {
                writer.write_all(&((copy.time.0 / NANOS_PER_SEC) as u32).to_le_bytes())?;
                writer.write_all(&((copy.time.0 % NANOS_PER_SEC) as u32).to_le_bytes())?;
                writer.write_all(&length_bytes.to_le_bytes())?;
                writer.write_all(&length_bytes.to_le_bytes())?;
                writer.write_all(&MADE_ADDRESSES)?;
                writer.write_all(header)?;
                writer.write_all(piece.payload)
            };
            if written.is_ok() {
                written = record();
            }
        });
        self.next_id = self.next_id.wrapping_add(u32::from(fragmented));
        written.map_err(|failure| {
            self.failure = Some(failure);
            Skip::Refused
        })?;
        Ok(Taken::Sent { fragmented })
    }
}

/// Where copies in a file come from (TEST-NET-1, RFC 5737).
pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Likewise (RFC 3849).
pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

const PCAP_MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// As tcpdump writes it.
const SNAP_BYTES: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;
