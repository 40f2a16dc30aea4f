//! Mirroring as a part of a run: begins with it or with a reload, and ends with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DaemonError, ReloadError};
use crate::feed::Clock;
use crate::mirror::live::{LiveMirror, Setup};
use crate::mirror::report::Report;

/// What mirrors, if anything does. All clones are one.
#[derive(Clone)]
pub(super) struct Mirrors {
    running: Arc<Mutex<Option<LiveMirror>>>,
    clock: Clock,
}

impl Mirrors {
    /// Begins, if there is something to mirror.
    pub(super) fn start(setup: Option<Setup>, clock: &Clock) -> Result<Self, DaemonError> {
        let running = setup.map(|setup| LiveMirror::start(setup, Arc::clone(clock)));
        let running = running.transpose().map_err(DaemonError::Mirror)?;
        Ok(Self { running: Arc::new(Mutex::new(running)), clock: Arc::clone(clock) })
    }

    /// Goes over to another configuration; if that can't be had, what was goes on.
    pub(super) fn change(&self, setup: Option<Setup>) -> Result<(), ReloadError> {
        let mut running = self.lock();
        match (setup, running.as_ref()) {
            (Some(setup), Some(mirror)) => mirror.replace(setup, (self.clock)())?,
            (Some(setup), None) => *running = Some(LiveMirror::start(setup, Arc::clone(&self.clock))?),
            (None, Some(_)) => {
                running.take().map(LiveMirror::stop);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// What became of mirrored packets so far, if any are.
    pub(super) fn report(&self) -> Option<Report> {
        self.lock().as_ref().map(LiveMirror::report)
    }

    /// Sends what is queued and ends.
    pub(super) fn stop(&self) -> Option<Report> {
        self.lock().take().map(LiveMirror::stop)
    }

    fn lock(&self) -> MutexGuard<'_, Option<LiveMirror>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
