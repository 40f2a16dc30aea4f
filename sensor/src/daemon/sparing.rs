//! A message that may come over and over, let through at most once in a while with how often it came.

use crate::time::{NANOS_PER_SEC, Timestamp};

/// One kind of message. Nothing that is noted is forgotten: what is held back is told together, later.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sparing {
    told: Option<Timestamp>,
    held_back: u64,
}

impl Sparing {
    /// Takes note that there is something to tell, `times` times.
    pub(super) fn note(&mut self, times: u64) {
        self.held_back = self.held_back.saturating_add(times);
    }

    /// How often it came since it was told last, if it is to be told now: at once the first time, after that when
    /// `pause_secs` have passed.
    pub(super) fn due(&mut self, now: Timestamp, pause_secs: u64) -> Option<u64> {
        if self.held_back == 0 || !self.has_rested(now, pause_secs) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }

    /// Whether it was not told within the pause. A clock that was set back makes it rest longer.
    pub(super) fn has_rested(&self, now: Timestamp, pause_secs: u64) -> bool {
        self.told.is_none_or(|told| now.0.saturating_sub(told.0) >= pause_secs.saturating_mul(NANOS_PER_SEC))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp(secs * NANOS_PER_SEC)
    }

    #[test]
    fn it_is_told_at_once_and_then_together() {
        let mut message = Sparing::default();
        assert_eq!(message.due(at(0), 60), None, "there is nothing to tell");
        message.note(3);
        assert_eq!(message.due(at(1), 60), Some(3));
        message.note(1);
        message.note(4);
        assert_eq!(message.due(at(60), 60), None);
        assert_eq!(message.due(at(61), 60), Some(5), "though nothing new came");
        assert_eq!(message.due(at(121), 60), None, "told is told");
    }

    #[test]
    fn nothing_is_lost_at_the_bounds() {
        let mut message = Sparing::default();
        message.note(u64::MAX);
        message.note(1);
        assert_eq!(message.due(at(100), u64::MAX), Some(u64::MAX));
        message.note(2);
        assert_eq!(message.due(at(50), 1), None, "the clock was set back");
        assert_eq!(message.due(at(101), 1), Some(2));
    }
}
