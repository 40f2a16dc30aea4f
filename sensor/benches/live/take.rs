//! Takes what comes in by a device, behind all that look at it there: as somebody would who waited for it. What the kernel
//! drops for want of one passes its drop tracepoint, where flowtap listens; traffic is not dropped as a rule.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};
use flowtap::capture::kernel::OBJECT;

/// Dropping it ends that.
pub(crate) struct Taker {
    _object: Ebpf,
}

impl Taker {
    /// At a device of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn new(device: &str) -> Result<Self> {
        qdisc_add_clsact(device)?;
        let mut object = Ebpf::load(OBJECT)?;
        let program: &mut SchedClassifier = object.program_mut(PROGRAM).context("no such program")?.try_into()?;
        program.load()?;
        let last = TcAttachOptions::Netlink(NlOptions { priority: u16::MAX, ..NlOptions::default() });
        program.attach_with_options(device, TcAttachType::Ingress, last)?;
        Ok(Self { _object: object })
    }
}

const PROGRAM: &str = "yardstick_take";
