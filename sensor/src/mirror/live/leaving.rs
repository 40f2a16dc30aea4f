//! A configuration that has been replaced, or that ends: it takes no more frames and sends what it has queued.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::lock;
use crate::mirror::counters::SessionCounts;
use crate::mirror::report::Report;
use crate::mirror::sender::Senders;

/// What has still to send.
pub(super) struct Leaving {
    senders: Senders,
    /// Without what was queued.
    before: Report,
    /// A message comes when its time is over.
    over: Receiver<Instant>,
}

impl Leaving {
    /// Sends what is queued until its time is `over`; the outlets are gone.
    pub(super) fn new(mut senders: Senders, before: Report, over: Receiver<Instant>) -> Self {
        senders.close();
        Self { senders, before, over }
    }

    /// Those that have still to send.
    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    /// Whether nothing is queued any more. If its time is over it gives up, and that comes soon.
    pub(super) fn is_over(&self) -> bool {
        if self.over.try_recv().is_ok() {
            self.give_up();
        }
        self.senders.has_ended()
    }

    /// Waits until all is sent, or its time is over, and it gives up.
    pub(super) fn end(&self) {
        if !self.senders.end_before(&self.over) {
            self.give_up();
        }
    }

    fn give_up(&self) {
        if !self.senders.has_ended() {
            tracing::warn!("a mirror target takes its copies too slowly: what is still queued for it is skipped");
        }
        self.senders.give_up();
    }

    /// What became of everything so far.
    pub(super) fn report(&self) -> Report {
        with(self.before.clone(), &lock(&self.senders.counts()))
    }

    /// What became of everything.
    pub(super) fn finish(self) -> Report {
        let sent = self.senders.finish();
        with(self.before, &lock(&sent))
    }
}

/// Both have the sessions in the same order.
fn with(mut report: Report, sent: &[SessionCounts]) -> Report {
    report.sessions.iter_mut().zip(sent).for_each(|(ours, theirs)| ours.counts.merge(theirs));
    report
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use crossbeam_channel::{after, never};

    use super::*;
    use crate::mirror::Vni;
    use crate::mirror::counters::Skip;
    use crate::mirror::report::SessionReport;
    use crate::mirror::sender::tests::stalled;

    /// What matched the three copies that are queued.
    fn before() -> Report {
        let mut counts = SessionCounts::default();
        counts.ingress.matched.add(3, 180);
        let session = SessionReport { number: 1, interface: "eth0".to_owned(), vni: Vni::new(7).unwrap(), counts };
        Report { sessions: vec![session], ..Report::default() }
    }

    #[test]
    fn a_target_that_takes_nothing_is_given_up_when_the_time_is_over() {
        let (senders, stall) = stalled();
        let leaving = Leaving::new(senders, before(), after(Duration::from_millis(20)));
        // It is only asked, and nobody waits.
        assert!(!leaving.is_over() && !leaving.report().balances());
        sleep(Duration::from_millis(100));
        assert!(!leaving.is_over());
        drop(stall);
        let report = leaving.finish();
        let skipped: Vec<_> = report.sessions[0].counts.ingress.skipped().collect();
        assert!(report.balances() && matches!(skipped[..], [(Skip::QueueFull, _)]), "{report}");
    }

    #[test]
    fn an_end_waits_until_the_time_is_over_and_no_longer() {
        let (senders, stall) = stalled();
        let leaving = Leaving::new(senders, before(), after(Duration::from_millis(20)));
        leaving.end();
        drop(stall);
        let report = leaving.finish();
        assert_eq!(report.sessions[0].counts.ingress.skipped_total().packets, 3, "{report}");
    }

    #[test]
    fn an_end_that_comes_sooner_is_not_waited_for_longer() {
        let (senders, stall) = stalled();
        // Nothing is really sent.
        senders.give_up();
        let leaving = Leaving::new(senders, before(), never());
        drop(stall);
        leaving.end();
        assert!(leaving.is_over() && leaving.finish().balances());
    }
}
