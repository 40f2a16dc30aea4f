//! Copies of what the kernel drops, taken out of their ring buffer.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use flowtap_abi::DropCopy;

use super::attach::TapError;
use super::clock::Anchor;
use super::drain::direction;
use super::route::{LOOPBACK, Ways};
use super::verdicts::DropReasons;
use crate::capture::dropped::{DropSource, Dropped};
use crate::capture::{Direction, LinkType};
use crate::packet::locate;
use crate::sys::{barrier, clock};
use crate::time::NANOS_PER_SEC;

/// The copies, seen from the side that takes them. None are made before they are wanted.
pub struct DropCopies {
    ring: RingBuf<MapData>,
    wanted: Array<MapData, u32>,
    missed: PerCpuArray<MapData, u64>,
    reasons: DropReasons,
    ways: Ways,
    /// When routes were last forgotten, on the monotonic clock.
    forgotten_ns: u64,
}

impl DropCopies {
    pub(super) fn new(object: &mut Ebpf, reasons: &DropReasons) -> Result<Self, TapError> {
        let mut take = |name| object.take_map(name).ok_or(TapError::Missing { name });
        let copies: Map = take("DROP_COPIES")?;
        Ok(Self {
            ring: copies.try_into()?,
            wanted: take("DROPS_ARE_COPIED")?.try_into()?,
            missed: take("DROP_COPIES_MISSED")?.try_into()?,
            reasons: reasons.clone(),
            ways: Ways::default(),
            forgotten_ns: 0,
        })
    }
}

impl DropSource for DropCopies {
    fn want(&mut self, wanted: bool) -> io::Result<()> {
        if wanted {
            self.ways.open();
        }
        self.wanted.set(0, u32::from(wanted), 0).map_err(io::Error::other)?;
        // What a program that had begun still makes is there when this returns.
        if wanted { Ok(()) } else { barrier::wait() }
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    fn take(&mut self, at_most: usize, each: &mut dyn FnMut(&Dropped<'_>)) {
        // Without a clock no time can be told: what has come waits.
        let Ok(now) = clock::read() else { return };
        if now.monotonic_ns.saturating_sub(self.forgotten_ns) >= NANOS_PER_SEC {
            self.ways.forget();
            self.forgotten_ns = now.monotonic_ns;
        }
        let anchor = Anchor::new(now);
        for _ in 0..at_most {
            let Some(entry) = self.ring.next() else { break };
            if let Some((note, bytes)) = split(&entry) {
                each(&dropped(&note, bytes, &anchor, &mut self.ways));
            }
        }
    }

    fn missed(&self) -> BTreeMap<String, u64> {
        let counted = self.reasons.iter().filter_map(|(number, name)| {
            let missed: u64 = self.missed.get(&number, 0).ok()?.iter().sum();
            (missed > 0).then(|| (name.to_owned(), missed))
        });
        counted.collect()
    }
}

/// What is told of a packet, and the bytes that were copied. The room behind them holds what was there before.
fn split(entry: &[u8]) -> Option<(DropCopy, &[u8])> {
    let (note, bytes) = entry.split_at_checked(size_of::<DropCopy>())?;
    let note: DropCopy = bytemuck::pod_read_unaligned(note);
    Some((note, bytes.get(..usize::from(note.copied_bytes))?))
}

fn dropped<'a>(note: &DropCopy, bytes: &'a [u8], anchor: &Anchor, ways: &mut Ways) -> Dropped<'a> {
    let link_type = if note.link_bytes > 0 { LinkType::Ethernet } else { LinkType::Raw };
    let direction = direction(note.direction);
    let mut by_route = || {
        let layout = locate(link_type, bytes, note.packet_bytes).ok()?;
        ways.device(layout.packet.addresses)
    };
    let start = usize::from(note.checksum_start);
    Dropped {
        time: anchor.wall(note.time_ns),
        device: match note.interface {
            0 => by_route(),
            LOOPBACK if direction == Direction::Egress => by_route(),
            device => Some(device),
        },
        direction,
        link_type,
        tag: tag(note.tag),
        bytes,
        original_bytes: note.packet_bytes,
        segment_bytes: (note.gso_bytes > 0).then_some(note.gso_bytes.into()),
        open_checksum: (start > 0).then(|| (start, start + usize::from(note.checksum_offset))),
        was_counted: note.counted != 0,
    }
}

/// A tag as the wire has it, from the kernel's word of it.
fn tag(word: u32) -> Option<[u8; 4]> {
    let [kind_first, kind_last, tag_first, tag_last] = word.to_ne_bytes();
    let [number_first, number_last] = u16::from_ne_bytes([tag_first, tag_last]).to_be_bytes();
    (word != 0).then_some([kind_first, kind_last, number_first, number_last])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::kernel::Reading;
    use crate::time::Timestamp;

    const NOTE: DropCopy = DropCopy {
        time_ns: 5_000,
        interface: 7,
        packet_bytes: 1014,
        tag: 0,
        copied_bytes: 4,
        link_bytes: 14,
        gso_bytes: 0,
        checksum_start: 0,
        checksum_offset: 6,
        direction: 1,
        counted: 1,
    };

    #[test]
    fn an_entry_holds_no_more_than_was_copied() {
        let mut entry = bytemuck::bytes_of(&NOTE).to_vec();
        entry.extend([1, 2, 3, 4, 0xee, 0xee]);
        assert_eq!(split(&entry), Some((NOTE, &[1_u8, 2, 3, 4][..])));
        assert_eq!(split(&entry[..size_of::<DropCopy>() + 3]), None, "it says more than there is");
        assert_eq!(split(&entry[..size_of::<DropCopy>() - 1]), None);
    }

    #[test]
    fn a_note_becomes_a_packet_in_the_sensors_terms() {
        let anchor = Anchor::new(Reading { monotonic_ns: 1_000, wall: Timestamp(1_000_001_000) });
        let bytes = [0; 4];
        let mut ways = Ways::default();
        let told = dropped(&NOTE, &bytes, &anchor, &mut ways);
        assert_eq!(
            told,
            Dropped {
                time: Timestamp(1_000_005_000),
                device: Some(7),
                direction: Direction::Ingress,
                link_type: LinkType::Ethernet,
                tag: None,
                bytes: &bytes,
                original_bytes: 1014,
                segment_bytes: None,
                open_checksum: None,
                was_counted: true,
            }
        );
        let open = DropCopy { checksum_start: 34, link_bytes: 0, gso_bytes: 1448, direction: 2, counted: 0, ..NOTE };
        let told = dropped(&open, &bytes, &anchor, &mut ways);
        assert_eq!((told.open_checksum, told.segment_bytes), (Some((34, 40)), Some(1448)));
        assert_eq!((told.link_type, told.direction, told.was_counted), (LinkType::Raw, Direction::Egress, false));
    }

    #[test]
    fn a_tag_is_put_in_the_order_of_the_wire() {
        // `struct { __be16 vlan_proto; __u16 vlan_tci; }`: 802.1Q, priority 1, identifier 7.
        let [low, high] = 0x2007_u16.to_ne_bytes();
        assert_eq!(tag(u32::from_ne_bytes([0x81, 0x00, low, high])), Some([0x81, 0x00, 0x20, 0x07]));
        assert_eq!(tag(0), None);
    }
}
