//! Small copies past the IP stack: where they may go, told to the program that sends them, and how many did.
//!
//! The program writes the outer headers itself and hands the copy to the device that the target's route leaves by. That is
//! much less work for the kernel, and skips all that it would look up. So the sensor looks it up instead, at each round of
//! [`KernelMirror::tend`](super::KernelMirror::tend): source address, device, and the neighbour's Ethernet address, while
//! the kernel holds it for usable. What has changed is taken back before it is changed. Each round also has one copy go by the
//! tunnel device: so the kernel's IP stack uses the neighbour, and asks for it before it is forgotten.
//!
//! Authority: RFC 7348 section 5 for the headers.

use super::{
    KernelMirrorError, Path,
    programs::{self, ProgramsError, Words, failed},
};
use crate::{
    mirror::{Encapsulation, Offload, Session, Target, Vni, encapsulate::tunnel_header},
    sys::{barrier, plain::Plain},
};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use flowtap_abi::mirror::{DIRECT_ACCOUNTS, DIRECT_FRAME_BYTES_MAX, DIRECT_HEAD_WORDS, DirectCounts, DirectPath};
use std::{collections::HashMap, net::IpAddr};

/// The tables of these ways.
pub(super) struct Direct {
    paths: Words<DirectPath>,
    counts: PerCpuArray<MapData, Plain<DirectCounts>>,
    /// What stands in the table where it is not zero.
    written: HashMap<u32, DirectPath>,
    /// What each account had when it was last asked.
    before: [DirectCounts; DIRECT_ACCOUNTS as usize],
}

impl Direct {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, ProgramsError> {
        Ok(Self {
            paths: programs::map(object, "MIRROR_DIRECT")?,
            counts: programs::map(object, "MIRROR_DIRECT_COUNTS")?,
            written: HashMap::new(),
            before: [DirectCounts::default(); DIRECT_ACCOUNTS as usize],
        })
    }

    /// Writes ways at their places; a default one leads nowhere. One that is there and changes is first taken back, and
    /// changed when no program uses it any more.
    pub(super) fn write(&mut self, wanted: &[(u32, DirectPath)]) -> Result<(), KernelMirrorError> {
        let mut is_used = false;
        for (at, way) in wanted {
            if let Some(before) = self.written.get(at).copied().filter(|before| before != way) {
                self.set(*at, DirectPath { device: 0, ..before })?;
                self.written.remove(at);
                is_used = true;
            }
        }
        if is_used {
            barrier::wait().map_err(KernelMirrorError::Barrier)?;
        }
        for (at, way) in wanted.iter().filter(|(_, way)| way.device != 0) {
            if !self.written.contains_key(at) {
                // All but the device, whose word opens the way.
                self.set(*at, DirectPath { device: 0, ..*way })?;
            }
            // Where it stood already, this asks for one copy by the tunnel device.
            self.set(*at, *way)?;
            self.written.insert(*at, *way);
        }
        Ok(())
    }

    /// An account that is not among those taken, as from zero.
    pub(super) fn open(&mut self, taken: &[u32]) -> Result<Option<u32>, ProgramsError> {
        let account = (0..DIRECT_ACCOUNTS).find(|account| !taken.contains(account));
        if let Some(account) = account {
            self.counted(account)?;
        }
        Ok(account)
    }

    /// What was counted in an account since this was last asked.
    pub(super) fn counted(&mut self, account: u32) -> Result<DirectCounts, ProgramsError> {
        let of_each = self.counts.get(&account, 0).map_err(failed("MIRROR_DIRECT_COUNTS"))?;
        let now = of_each.iter().fold(DirectCounts::default(), |sum, Plain(counts)| DirectCounts {
            sent: sum.sent + counts.sent,
            dropped: sum.dropped + counts.dropped,
        });
        let Some(before) = self.before.get_mut(account as usize) else { return Ok(DirectCounts::default()) };
        let before = std::mem::replace(before, now);
        Ok(DirectCounts { sent: now.sent - before.sent, dropped: now.dropped - before.dropped })
    }

    fn set(&mut self, at: u32, way: DirectPath) -> Result<(), ProgramsError> {
        self.paths.set(at, Plain(way), 0).map_err(failed("MIRROR_DIRECT"))
    }
}

/// The way of a session's small copies to a target, without an account yet; `None` where they need more than the program
/// does.
pub(super) fn way(
    session: &Session,
    vni: Option<&Vni>,
    target: &Target,
    path: Option<&Path>,
    dont_fragment: bool,
) -> Option<DirectPath> {
    let path = path?;
    let (next_hop, vni, source) = (path.direct?, vni?, path.source?);
    let (IpAddr::V4(source), IpAddr::V4(address)) = (source, target.address) else { return None };
    let is_left_to_a_card = path.is_physical && session.offload != Offload::Software;
    if target.encapsulation != Encapsulation::Vxlan || session.packet_length.is_some() || is_left_to_a_card {
        return None;
    }
    let mut bytes = Vec::with_capacity(2 * DIRECT_HEAD_WORDS);
    bytes.extend(next_hop.to);
    bytes.extend(next_hop.from);
    bytes.extend(ETHER_TYPE);
    // Length, identification and checksum come with the copy.
    bytes.extend([0x45, 0, 0, 0, 0, 0]);
    bytes.extend(if dont_fragment { DONT_FRAGMENT } else { [0, 0] });
    bytes.extend([TTL, UDP, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(address.octets());
    // The source port comes of the flow, and the length with the copy; there is no checksum.
    bytes.extend([0, 0]);
    bytes.extend(target.port.get().to_be_bytes());
    bytes.extend([0, 0, 0, 0]);
    bytes.extend(tunnel_header(Encapsulation::Vxlan, *vni));
    let mut head = [0; DIRECT_HEAD_WORDS + 1];
    for (word, pair) in head.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_ne_bytes(pair.try_into().ok()?);
    }
    Some(DirectPath {
        device: path.device,
        frame_bytes_max: DIRECT_FRAME_BYTES_MAX.min(path.frame_bytes_max),
        ask: 1,
        account: 0,
        head,
    })
}

const ETHER_TYPE: [u8; 2] = [8, 0];
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// As the tunnel device's copies have it.
const TTL: u8 = 64;
const UDP: u8 = 17;
