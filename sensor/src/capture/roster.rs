//! Which interfaces a live run watches, since when, and what each has brought so far.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::time::Timestamp;

/// The interfaces that are watched, or were in an interval that is still open. Cheap to clone; all clones are one
/// list. Touched once a block and once an interval.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    stays: Arc<Mutex<Vec<Stay>>>,
}

/// One interface, from its attaching to its vanishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// Index in [`super::Interfaces`].
    pub interface: u16,
    /// Its name.
    pub name: String,
    /// When it was attached.
    pub from: Timestamp,
    /// When it vanished or was detached; `None` while it is watched.
    pub until: Option<Timestamp>,
    /// Frames that it handed out.
    pub frames: u64,
    /// Packets that the kernel lost for want of buffer.
    pub drops: u64,
    /// How many readers share it out.
    pub readers: u32,
}

impl Roster {
    /// Begins a stay, or adds a reader to one that lasts.
    pub fn attach(&self, interface: u16, name: &str, now: Timestamp) {
        let mut stays = self.lock();
        if let Some(stay) = current(&mut stays, interface) {
            stay.readers += 1;
            return;
        }
        let name = name.to_owned();
        stays.push(Stay { interface, name, from: now, until: None, frames: 0, drops: 0, readers: 1 });
    }

    /// Takes a reader away, and ends the stay of an interface with its last.
    pub fn detach(&self, interface: u16, now: Timestamp) {
        if let Some(stay) = current(&mut self.lock(), interface) {
            stay.readers -= 1;
            stay.until = (stay.readers == 0).then_some(now);
        }
    }

    /// Adds what an interface has brought.
    pub fn count(&self, interface: u16, frames: u64, drops: u64) {
        if let Some(stay) = current(&mut self.lock(), interface) {
            stay.frames += frames;
            stay.drops += drops;
        }
    }

    /// The interfaces watched at any time from `from` to before `until`, each once, in the order of their indexes. A
    /// stay that had ended before is forgotten: intervals are asked for in their order.
    pub fn watched(&self, from: Timestamp, until: Timestamp) -> Vec<u16> {
        let mut stays = self.lock();
        stays.retain(|stay| stay.until.is_none_or(|end| end >= from));
        let mut interfaces: Vec<_> = stays.iter().filter(|stay| stay.from < until).map(|stay| stay.interface).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        interfaces
    }

    /// The stays that last, in the order of attaching.
    pub fn current(&self) -> Vec<Stay> {
        self.lock().iter().filter(|stay| stay.until.is_none()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stay>> {
        self.stays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn current(stays: &mut [Stay], interface: u16) -> Option<&mut Stay> {
    stays.iter_mut().find(|stay| stay.interface == interface && stay.until.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_watched_in_every_interval_that_its_stays_touch() {
        let roster = Roster::default();
        roster.attach(1, "eth1", Timestamp(5));
        roster.attach(0, "eth0", Timestamp(15));
        roster.detach(1, Timestamp(20));
        roster.attach(1, "eth1", Timestamp(25));
        assert_eq!(roster.watched(Timestamp(0), Timestamp(5)), [0_u16; 0]);
        assert_eq!(roster.watched(Timestamp(0), Timestamp(10)), [1]);
        assert_eq!(roster.watched(Timestamp(10), Timestamp(20)), [0, 1]);
        assert_eq!(roster.watched(Timestamp(20), Timestamp(30)), [0, 1]);
        roster.detach(1, Timestamp(35));
        assert_eq!(roster.watched(Timestamp(40), Timestamp(50)), [0]);
        assert_eq!(roster.lock().len(), 1, "what has ended is forgotten");
    }

    #[test]
    fn a_stay_ends_with_its_last_reader() {
        let roster = Roster::default();
        roster.attach(1, "eth1", Timestamp(5));
        roster.attach(1, "eth1", Timestamp(6));
        roster.detach(1, Timestamp(7));
        assert_eq!(roster.current().len(), 1);
        roster.detach(1, Timestamp(8));
        assert_eq!(roster.current(), []);
        assert_eq!(roster.watched(Timestamp(8), Timestamp(9)), [1]);
    }

    #[test]
    fn counts_belong_to_the_stay_that_lasts() {
        let roster = Roster::default();
        roster.attach(3, "eth3", Timestamp(1));
        roster.count(3, 10, 1);
        roster.detach(3, Timestamp(2));
        roster.attach(3, "eth3", Timestamp(4));
        roster.count(3, 5, 0);
        roster.count(4, 99, 99);
        let current: Vec<_> = roster.current().iter().map(|stay| (stay.interface, stay.frames, stay.drops)).collect();
        assert_eq!(current, [(3, 5, 0)]);
    }
}
