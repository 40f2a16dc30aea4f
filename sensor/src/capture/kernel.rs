//! The kernel plane: programs at each watched interface count flows, one at the kernel's drops counts verdicts.
//!
//! [`load()`] brings the programs and their maps into the kernel. It hands out two halves that share nothing, so they may
//! live in two threads: [`Taps`] attaches programs to interfaces as they come and go, [`Drain`] takes out what was
//! counted, [`KernelSource`] hands it on interval by interval. [`DropCopies`], a third part for whoever wants it, has
//! copies of what is dropped. [`Anchor`] turns the kernel's time into wall time. Needs
//! BTF, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and is best with Linux 6.6 or later; what is missing is said by
//! [`LoadError`] and [`TapError`].

mod attach;
mod btf;
mod clock;
mod copies;
mod drain;
mod gather;
mod load;
mod refused;
mod route;
mod source;
mod verdicts;

pub use attach::{Attachment, Device, FlowPrograms, TapError, Taps};
pub(crate) use attach::{Purpose, patiently};
pub use btf::{Btf, BtfError, KERNEL_BTF};
pub use clock::{Anchor, Reading, STEP_NS, Shift};
pub use copies::DropCopies;
pub use drain::{Drain, DrainError, Drained, Flow, Harvest, Verdict};
pub use flowtap_abi::{Counts, Marks, Reason, Seen};
pub use gather::Devices;
pub(crate) use load::{BUCKET_BYTES, ENTRY_BYTES};
pub use load::{COPIES_BYTES, LoadError, OBJECT, Sizes, load};
pub(crate) use load::{offsets, own_namespace};
pub use refused::Refused;
pub(crate) use refused::chain;
pub use source::{COUNTED_MAX, KernelSource, Order, TURN_SECS, Telling, TurnCounts, Turns, Watched};
pub(crate) use verdicts::LOSS_OFFSETS;
pub use verdicts::{DropReasons, VerdictSource};

#[cfg(test)]
mod tests;
