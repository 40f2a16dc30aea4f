//! What a service manager is told of a run: systemd's notification protocol, sd_notify(3) and sd_watchdog_enabled(3).
//! Where there is no such manager nothing is said.
//!
//! The watchdog is fed by the keeper's loop, and only when every worker has come for a block since the last time. So it
//! goes hungry when the keeper hangs, when a worker does, and when the recorder does not come on: then workers wait for
//! it. A recorder that has failed ends the run.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::time::Timestamp;

/// The run as a service.
pub(super) struct Service {
    watchdog: Option<Watchdog>,
    /// What was said last.
    status: String,
    has_complained: bool,
}

impl Service {
    /// The service that the environment asks for.
    pub(super) fn from_environment(now: Timestamp) -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|period| Watchdog::new(period, now));
        Self { watchdog, status: String::new(), has_complained: false }
    }

    /// Everything runs, for the first time or again after a reload.
    pub(super) fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The configuration is being read again; [`Self::ready`] must follow.
    pub(super) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(since) => self.tell(&[NotifyState::Reloading, since]),
            Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
        }
    }

    /// The run ends.
    pub(super) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status("publishing what is counted")]);
    }

    /// To be called at each turn of the keeper, with how often each worker has come for a block, and with what is
    /// watched and published.
    pub(super) fn turn(&mut self, now: Timestamp, turns: Vec<u64>, interfaces: &[String], published_until: u64) {
        let status = status(interfaces, published_until);
        if status != self.status {
            self.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.is_fed(now, turns)) {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, news: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(news)
            && !self.has_complained
        {
            tracing::warn!(%error, "the service manager can't be told how the run is going");
            self.has_complained = true;
        }
    }
}

/// When to feed a watchdog.
struct Watchdog {
    /// Half of what it is content with.
    every_ns: u64,
    fed: Timestamp,
    /// The workers' turns when it was fed.
    turns: Vec<u64>,
}

impl Watchdog {
    fn new(period: Duration, now: Timestamp) -> Self {
        let every = period / 2;
        Self { every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX), fed: now, turns: Vec::new() }
    }

    /// Whether to feed it now: it is due, and every worker has moved. A clock that was set back or forward makes it due.
    fn is_fed(&mut self, now: Timestamp, turns: Vec<u64>) -> bool {
        let is_due = now.0.abs_diff(self.fed.0) >= self.every_ns;
        let moved = |(worker, turns): (usize, &u64)| self.turns.get(worker) != Some(turns);
        if !is_due || !turns.iter().enumerate().all(moved) {
            return false;
        }
        (self.fed, self.turns) = (now, turns);
        true
    }
}

/// One line for `systemctl status`.
fn status(interfaces: &[String], published_until: u64) -> String {
    let mut line = match interfaces {
        [] => "no interface to watch is there".to_owned(),
        _ => {
            let named = interfaces.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = interfaces.len().saturating_sub(NAMES_MAX);
            if more == 0 { format!("watching {named}") } else { format!("watching {named} and {more} more") }
        }
    };
    let until = i64::try_from(published_until).ok().filter(|secs| *secs > 0);
    match until.and_then(|secs| jiff::Timestamp::from_second(secs).ok()) {
        Some(until) => line.push_str(&format!("; records up to {until} are published")),
        None => line.push_str("; nothing is published yet"),
    }
    line
}

/// How many interfaces are named in the status line.
const NAMES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::NANOS_PER_SEC;

    fn at(secs: u64) -> Timestamp {
        Timestamp(secs * NANOS_PER_SEC)
    }

    #[test]
    fn a_watchdog_is_fed_at_half_its_period() {
        let mut watchdog = Watchdog::new(Duration::from_secs(20), at(100));
        let fed: Vec<u64> = (100..=125).filter(|now| watchdog.is_fed(at(*now), vec![*now])).collect();
        assert_eq!(fed, [110, 120]);
    }

    #[test]
    fn a_watchdog_goes_hungry_while_one_worker_stands_still() {
        let mut watchdog = Watchdog::new(Duration::from_secs(2), at(100));
        assert!(watchdog.is_fed(at(101), vec![1, 1]));
        assert!(!watchdog.is_fed(at(102), vec![2, 1]));
        assert!(!watchdog.is_fed(at(103), vec![3, 1]));
        assert!(watchdog.is_fed(at(104), vec![4, 2]), "it moves again");
    }

    #[test]
    fn a_clock_that_is_set_does_not_starve_a_watchdog() {
        let mut watchdog = Watchdog::new(Duration::from_secs(20), at(10_000));
        assert!(watchdog.is_fed(at(5000), vec![1]));
        assert!(!watchdog.is_fed(at(5009), vec![2]));
        assert!(watchdog.is_fed(at(5010), vec![2]));
    }

    #[test]
    fn the_status_is_one_short_line() {
        let names = |count: usize| (0..count).map(|number| format!("eth{number}")).collect::<Vec<_>>();
        assert_eq!(status(&names(0), 0), "no interface to watch is there; nothing is published yet");
        // `date -u -d @1772442060`
        let expected = "watching eth0, eth1; records up to 2026-03-02T09:01:00Z are published";
        assert_eq!(status(&names(2), 1_772_442_060), expected);
        assert!(
            status(&names(10), 0).starts_with("watching eth0, eth1, eth2, eth3, eth4, eth5, eth6, eth7 and 2 more;")
        );
    }
}
