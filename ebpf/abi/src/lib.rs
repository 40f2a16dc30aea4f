//! Plain data that crosses the line between the kernel programs and the sensor.
//!
//! Both sides compile this crate, so a layout cannot differ between them. No type has padding (the kernel hashes whole
//! keys, and copies whole values to user space), every size is asserted below, and sizes of keys are multiples of four
//! because the kernel then hashes words instead of bytes. Addresses and ports stay in the order of the wire; all
//! counters are 64 bits wide.

#![no_std]

pub mod choice;
mod flow;
mod fragment;
pub mod guard;
mod marks;
pub mod mirror;
mod reason;
mod turn;
mod verdict;

pub use flow::{Counts, Direction, FlowKeyV4, FlowKeyV6, Overflow, OverflowKind};
pub use fragment::{FragmentKey, FragmentPorts};
pub use marks::{Marks, Seen};
pub use reason::{Reason, reason_key, split_reason_key};
pub use turn::Turn;
pub use verdict::{DROP_COPY_BYTES, DropCopy, MARK_WORD, VerdictKey, counted_mark};

/// Generations of each drained map: one is counted into while the other is drained.
pub const GENERATIONS: usize = 2;

/// How many drop reasons the sensor can ask for: numbers below this. Reasons of kernel modules, which have a subsystem
/// in their upper half, are not among them.
pub const DROP_REASONS_MAX: u32 = 1024;

// The sizes are part of the contract between both sides.
const _: () = {
    assert!(size_of::<FlowKeyV4>() == 20);
    assert!(size_of::<FlowKeyV6>() == 44);
    assert!(size_of::<Counts>() == 40);
    assert!(size_of::<FragmentKey>() == 44);
    assert!(size_of::<FragmentPorts>() == 8);
    assert!(size_of::<VerdictKey>() == 48);
    assert!(size_of::<DropCopy>() == 32);
    assert!(size_of::<Overflow>() == 96);
};
