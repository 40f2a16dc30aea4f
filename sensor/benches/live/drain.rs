//! The kernel's maps: full of flows and emptied once; and emptied thousands of times while two send the same flows.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use flowtap::capture::kernel::{Counts, Device, Drain, Flow, Harvest, LoadError, Reason, Sizes, Taps, Verdict, load};

use crate::Options;
use crate::blast::Blaster;
use crate::measure::now;
use crate::throughput::FLOW_MAP_MAX;
use crate::wire::{ELSEWHERE, FAR, NEAR, Namespace, Place, SENDER, cable, counts, pin};

/// Both, on a cable of their own.
///
/// # Errors
///
/// When a packet is lost, or counted twice.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let sizes = Sizes { flows_max: FLOW_MAP_MAX, ..Sizes::default() };
    let (taps, drain) = match load(&sizes) {
        Ok(halves) => halves,
        Err(error @ (LoadError::Permission | LoadError::NoBarrier | LoadError::Btf(_))) => {
            writeln!(io::stderr(), "drain is skipped: {error}")?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let (near, far) = cable()?;
    let mut bench = Bench { taps, drain, near, far };
    bench.attach()?;
    writeln!(out, "\n### Drain\n")?;
    for &flows in &options.flows {
        bench.drain_once(flows, out)?;
    }
    bench.flip(options.flips, out)
}

/// Programs at the near end of a cable.
struct Bench {
    taps: Taps,
    drain: Drain,
    near: Namespace,
    far: Namespace,
}

impl Bench {
    fn attach(&mut self) -> Result<()> {
        let Self { taps, near, .. } = self;
        near.run(|| Ok(taps.attach(&Device::find(NEAR)?)?))
    }

    /// A packet of each flow, then everything is taken out.
    fn drain_once(&mut self, flows: u32, out: &mut impl Write) -> Result<()> {
        let sent = self.far.run(|| {
            pin(Place::On(SENDER))?;
            Blaster::new(FAR, ELSEWHERE, flows)?.send(flows.into(), || false)
        })?;
        let mut totals = Totals::default();
        let begin = now();
        self.drain.drain(&mut totals)?;
        let took = begin.elapsed();
        let Totals { rows, packets, apart } = totals;
        ensure!(
            (rows, packets, apart) == (sent, sent, 0),
            "{sent} sent, {rows} rows, {packets} packets, {apart} apart"
        );
        writeln!(out, "- {rows} flows, a packet of each, are taken out of the kernel in {:.3} s.", took.as_secs_f64())?;
        Ok(())
    }

    /// Two send the same flows on two processors while the maps are turned and emptied.
    fn flip(&mut self, flips: u32, out: &mut impl Write) -> Result<()> {
        let Self { drain, far, .. } = self;
        let drops_before = far.run(|| counts(FAR))?.send_drops;
        let is_done = AtomicBool::new(false);
        let (mut totals, begin) = (Totals::default(), now());
        let sender = |processor| {
            let is_done = &is_done;
            let far = &*far;
            move || {
                far.run(|| {
                    pin(Place::On(processor))?;
                    Blaster::new(FAR, ELSEWHERE, FLIP_FLOWS)?.send(u64::MAX, || is_done.load(Ordering::Relaxed))
                })
            }
        };
        let sent = thread::scope(|scope| {
            let senders = [0, 1].map(|processor| scope.spawn(sender(processor)));
            let drained = (0..flips).try_for_each(|_| drain.drain(&mut totals).map(|_| ()));
            is_done.store(true, Ordering::Relaxed);
            let sent = senders.into_iter().map(|sender| match sender.join() {
                Ok(sent) => sent,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            let sent = sent.sum::<Result<u64>>()?;
            drained?;
            Ok::<_, anyhow::Error>(sent)
        })?;
        let took = begin.elapsed();
        // What is left in either generation.
        drain.drain(&mut totals)?;
        drain.drain(&mut totals)?;
        let sent = sent - (far.run(|| counts(FAR))?.send_drops - drops_before);
        let Totals { rows, packets, apart } = totals;
        ensure!(
            packets == sent && apart == 0,
            "{sent} sent by two, {packets} counted over {flips} flips, {apart} apart"
        );
        writeln!(
            out,
            "- {flips} times in {:.0} s, while two senders sent {sent} packets of the same {FLIP_FLOWS} flows: {packets} \
             counted in {rows} rows, none lost, none twice.",
            took.as_secs_f64()
        )?;
        Ok(())
    }
}

/// Counts rows and packets only.
#[derive(Default)]
struct Totals {
    rows: u64,
    packets: u64,
    apart: u64,
}

impl Harvest for Totals {
    fn flow(&mut self, _: &Flow, counts: &Counts) {
        self.rows += 1;
        self.packets += counts.packets;
    }

    fn verdict(&mut self, _: &Verdict, _: &Counts) {}

    fn apart(&mut self, _: u32, _: Reason, more: u64) {
        self.apart += more;
    }
}

/// Few enough that both senders often count the same flow at once, and many enough that it is often new.
const FLIP_FLOWS: u32 = 1 << 10;
