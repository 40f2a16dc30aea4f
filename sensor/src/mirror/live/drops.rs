//! What the kernel drops, on its way to the executor.
//!
//! Of what is dropped on its way in, the thread's sockets have seen everything, and of what is dropped on its way out
//! nothing: they are the first and the last on the way. Where the kernel makes the copies, its programs stand at the
//! counting point, which tells whether a packet had passed it.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use super::Works;
use super::taps::{FRAMES_AT_ONCE, READS_PER_TURN, TAG_BYTES, tagged};
use crate::capture::dropped::{DropSource, Dropped};
use crate::capture::{Direction, Frame};
use crate::mirror::inner::{Hints, PartialChecksum};
use crate::mirror::report::{AtDrop, DropCounts};
use crate::mirror::sender::NetworkOutlet;
use crate::mirror::{Executor, Mirror};

/// The copies, and what became of them.
pub(super) struct Drops {
    source: Box<dyn DropSource>,
    /// Whether this thread's sockets are the tap.
    taps: bool,
    /// Our index of each interface that sessions apply to, by the kernel's. Looked up anew now and then.
    devices: BTreeMap<u32, nix::Result<Option<u16>>>,
    counts: DropCounts,
}

impl Drops {
    pub(super) fn new(source: Box<dyn DropSource>, taps: bool) -> Self {
        Self { source, taps, devices: BTreeMap::new(), counts: DropCounts::default() }
    }

    /// Has copies made if a rule of `mirror` takes any.
    pub(super) fn want(&mut self, mirror: &Mirror) {
        self.look_again();
        self.set(mirror.drop_rule().is_some());
    }

    /// Looks at what changes by itself: to be called about once a second.
    pub(super) fn look_again(&mut self) {
        self.devices.clear();
        self.counts.missed = self.source.missed();
    }

    /// Readable when there is something to show.
    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.source.readiness()
    }

    /// Shows the executor what has come, as much as a turn allows; whether there was anything.
    pub(super) fn show(&mut self, works: &mut Works, frame_bytes: &mut Vec<u8>) -> bool {
        let Self { source, taps, devices, counts } = self;
        let copied_before = counts.copied;
        source.take(DROPS_PER_TURN, &mut |dropped| {
            counts.copied += 1;
            let Some(device) = dropped.device else {
                counts.without_interface += 1;
                return;
            };
            let interface = *devices.entry(device).or_insert_with(|| works.interface(device));
            match interface {
                Ok(Some(interface)) => show_drop(&mut works.executor, dropped, interface, *taps, frame_bytes),
                Ok(None) => {}
                Err(_) => counts.without_interface += 1,
            }
        });
        counts.copied > copied_before
    }

    /// Has no more copies made, and shows all that are there.
    pub(super) fn finish(&mut self, works: &mut Works, frame_bytes: &mut Vec<u8>) {
        self.set(false);
        for _ in 0..TURNS_MAX {
            if !self.show(works, frame_bytes) {
                break;
            }
        }
        self.look_again();
    }

    fn set(&mut self, wanted: bool) {
        if let Err(error) = self.source.want(wanted) {
            tracing::error!(%error, "whether dropped packets are copied can't be changed");
        }
    }

    /// What became of dropped packets so far, up to a second ago of those that found no room.
    pub(super) fn told(&self) -> AtDrop {
        AtDrop::Copied(self.counts.clone())
    }
}

fn show_drop(
    executor: &mut Executor<NetworkOutlet>,
    dropped: &Dropped<'_>,
    interface: u16,
    taps: bool,
    frame_bytes: &mut Vec<u8>,
) {
    let frame = Frame {
        time: dropped.time,
        offset: 0,
        captured_bytes: dropped.bytes.len() as u32,
        original_bytes: dropped.original_bytes,
        interface,
        link_type: dropped.link_type,
        direction: dropped.direction,
    };
    let was_tapped = if taps { dropped.direction == Direction::Ingress } else { dropped.was_counted };
    let hints = |tag_bytes: usize| Hints::Kernel {
        checksum: dropped
            .open_checksum
            .map(|(start, at)| PartialChecksum { start: start + tag_bytes, at: at + tag_bytes }),
        segment_bytes: dropped.segment_bytes,
    };
    match dropped.tag.and_then(|tag| tagged(&frame, dropped.bytes, tag, frame_bytes)) {
        Some(longer) => executor.observe_drop(&longer, frame_bytes, hints(TAG_BYTES), was_tapped),
        None => executor.observe_drop(&frame, dropped.bytes, hints(0), was_tapped),
    }
}

/// How many copies are taken before it is the taps' turn.
const DROPS_PER_TURN: usize = FRAMES_AT_ONCE * READS_PER_TURN;

/// More turns than the kernel's memory for copies has room for: at the end no more come, unless the kernel goes on making
/// them.
const TURNS_MAX: usize = 1000;
