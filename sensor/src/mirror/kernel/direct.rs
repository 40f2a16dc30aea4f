//! Copies past the IP stack: where they may go, told to the program that sends them, and how many did.
//!
//! The program writes the outer headers itself and hands the copy to the device that the target's route leaves by. That is
//! much less work for the kernel, and skips all that it would look up. So the sensor looks it up instead, at each round of
//! [`KernelMirror::tend`](super::KernelMirror::tend): source address, device, and the neighbour's Ethernet address, while
//! the kernel holds it for usable. What has changed is taken back before it is changed. Each round also has one copy go by the
//! tunnel device: so the kernel's IP stack uses the neighbour, and asks for it before it is forgotten.
//!
//! The kernel does not say whether the device takes such a copy, but it says at a tracepoint which packets it drops. There
//! another program of ours counts them. Where it can't, no copy goes this way.
//!
//! Authority: RFC 7348 section 5 for the headers.

use super::{
    KernelMirrorError, Path,
    programs::{self, ProgramsError, Words, failed},
};
use crate::{
    mirror::{Encapsulation, Mirror, Offload, Session, Target, Vni, encapsulate::tunnel_header},
    sys::{barrier, plain::Plain},
};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use flowtap_abi::mirror::{DIRECT_ACCOUNTS, DIRECT_HEAD_BYTES, DirectCounts, DirectPath};
use std::{collections::HashMap, net::IpAddr, ops::Range};

/// The tables of these ways.
pub(super) struct Direct {
    paths: Words<DirectPath>,
    counts: PerCpuArray<MapData, Plain<DirectCounts>>,
    /// What stands in the table where it is not zero.
    written: HashMap<u32, DirectPath>,
    /// What was told of each account.
    told: HashMap<u32, Told>,
    /// Whether [`losses`](super::losses) are counted.
    pub(super) counts_losses: bool,
}

/// What became of copies past the IP stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// Frames that left.
    pub(super) sent: u64,
    /// Frames that were dropped on the way out.
    pub(super) dropped: u64,
}

impl Told {
    /// Goes on to these totals, and answers what is new. What waited in a queue at the last time may have been lost since:
    /// until as many are sent, no more are told.
    fn update(&mut self, handed: u64, dropped: u64) -> Self {
        let now = Self { sent: handed.saturating_sub(dropped).max(self.sent), dropped };
        let before = std::mem::replace(self, now);
        Self { sent: now.sent - before.sent, dropped: now.dropped - before.dropped }
    }
}

impl Direct {
    pub(super) fn new(object: &mut Ebpf, counts_losses: bool) -> Result<Self, ProgramsError> {
        Ok(Self {
            paths: programs::map(object, "MIRROR_DIRECT")?,
            counts: programs::map(object, "MIRROR_DIRECT_COUNTS")?,
            written: HashMap::new(),
            told: HashMap::new(),
            counts_losses,
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

    /// Whether some copies go this way; of a configuration, and the paths to its targets.
    pub(super) fn has_use(&self, mirror: &Mirror, paths: &[Option<Path>]) -> bool {
        let is_simple = |session: &Session, at: u16, target: &Target| {
            let path = paths.get(usize::from(at)).and_then(Option::as_ref);
            path.is_some_and(|path| is_simple(session, target, path))
        };
        let mut sessions = mirror.sessions().iter();
        self.counts_losses
            && sessions.any(|session| mirror.targets_of(session).any(|(at, target)| is_simple(session, at, target)))
    }

    /// The account of the tunnel device with that index, as from zero; `None` if one that is taken is the same, or nobody
    /// counts losses.
    pub(super) fn open(&mut self, device: u32, taken: &[u32]) -> Result<Option<u32>, ProgramsError> {
        let account = device % DIRECT_ACCOUNTS;
        if !self.counts_losses || taken.contains(&account) {
            return Ok(None);
        }
        self.counted(account)?;
        Ok(Some(account))
    }

    /// What was counted in an account since this was last asked.
    pub(super) fn counted(&mut self, account: u32) -> Result<Told, ProgramsError> {
        let of_each = self.counts.get(&account, 0).map_err(failed("MIRROR_DIRECT_COUNTS"))?;
        let sum = |of: fn(&DirectCounts) -> u64| of_each.iter().map(|Plain(counts)| of(counts)).sum::<u64>();
        let (handed, dropped) = (sum(|counts| counts.handed), sum(|counts| counts.dropped));
        let told = self.told.entry(account).or_default();
        Ok(told.update(handed, dropped))
    }

    fn set(&mut self, at: u32, way: DirectPath) -> Result<(), ProgramsError> {
        self.paths.set(at, Plain(way), 0).map_err(failed("MIRROR_DIRECT"))
    }
}

/// Whether the program can do all that copies of a session need on that way to a target.
fn is_simple(session: &Session, target: &Target, path: &Path) -> bool {
    let is_left_to_a_card = path.is_physical && session.offload != Offload::Software;
    target.encapsulation == Encapsulation::Vxlan
        && target.address.is_ipv4()
        && session.packet_length.is_none()
        && !is_left_to_a_card
}

/// The way of a session's copies to a target, without account and segmenter yet; `None` where they need more than the program
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
    if !is_simple(session, target, path) {
        return None;
    }
    let mut bytes = Vec::with_capacity(DIRECT_HEAD_BYTES);
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
    bytes.resize(DIRECT_HEAD_BYTES, 0);
    let words = bytes.get(IP_HEADER)?.as_chunks().0;
    let mut head = [0; DIRECT_HEAD_BYTES / 8];
    for (word, of_it) in head.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*of_it);
    }
    Some(DirectPath {
        device: path.device,
        segmenter: 0,
        frame_bytes_max: path.frame_bytes_max,
        ask: 1,
        account: 0,
        sum: words.iter().map(|word| u32::from(u16::from_ne_bytes(*word))).sum(),
        identifies: u32::from(!dont_fragment),
        zero: 0,
        head,
    })
}

/// Where the outer one is.
const IP_HEADER: Range<usize> = 14..34;
const ETHER_TYPE: [u8; 2] = [8, 0];
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
/// As the tunnel device's copies have it.
const TTL: u8 = 64;
const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_as_sent_is_not_taken_back() {
        let mut told = Told::default();
        assert_eq!(told.update(10, 1), Told { sent: 9, dropped: 1 });
        // Three of those that waited are lost, and one more is sent: nine were told, and seven left.
        assert_eq!(told.update(11, 4), Told { sent: 0, dropped: 3 });
        assert_eq!(told.update(13, 4), Told { sent: 0, dropped: 0 });
        assert_eq!(told.update(14, 4), Told { sent: 1, dropped: 0 });
        assert_eq!(told, Told { sent: 10, dropped: 4 });
    }
}
