//! What the first thread does while the others count: signals, the control socket, interfaces that come and go.

use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::control::{self, Request};
use super::fence::Fence;
use super::service::Service;
use super::status::Status;
use super::watcher::Watcher;
use super::{Configuration, Reload, ReloadError};
use crate::capture::Roster;
use crate::feed::{Clock, LiveFeed};
use crate::ledger::{FrameCounts, RowCounts};
use crate::recorder::{Change, Milestone};
use crate::time::Timestamp;

/// Signals as bytes that can be waited for.
pub(super) struct Signals {
    stop: UnixStream,
    reload: UnixStream,
}

impl Signals {
    /// Takes SIGTERM and SIGINT for stop, SIGHUP for reload.
    pub(super) fn new() -> io::Result<Self> {
        let (stop, stop_end) = UnixStream::pair()?;
        let (reload, reload_end) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        reload.set_nonblocking(true)?;
        pipe::register(SIGTERM, stop_end.try_clone()?)?;
        pipe::register(SIGINT, stop_end)?;
        pipe::register(SIGHUP, reload_end)?;
        Ok(Self { stop, reload })
    }
}

/// Whether a signal came since the last call.
fn came(mut signal: &UnixStream) -> bool {
    signal.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0)
}

/// Where the recorder posts how far it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Board {
    posted: Arc<Mutex<Posted>>,
}

#[derive(Debug, Clone, Default)]
struct Posted {
    until_secs: u64,
    rows: RowCounts,
}

impl Board {
    pub(super) fn post(&self, milestone: &Milestone<'_>) {
        let mut posted = self.lock();
        posted.until_secs = milestone.until_secs;
        posted.rows.clone_from(milestone.counts);
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after a run.
pub(super) struct Keeper<'a> {
    pub(super) clock: Clock,
    pub(super) started: Timestamp,
    pub(super) feed: &'a LiveFeed,
    pub(super) watcher: Watcher,
    pub(super) roster: Roster,
    pub(super) board: Board,
    pub(super) changes: Sender<Change>,
    pub(super) reload: Reload,
    /// As of the last reload.
    pub(super) interval_secs: u32,
    pub(super) reloads: u64,
    pub(super) fence: Fence,
    pub(super) service: Service,
}

impl Keeper<'_> {
    /// Looks after the run until a signal says to stop, or it is over.
    pub(super) fn keep(&mut self, signals: &Signals, listener: Option<&UnixListener>, is_over: impl Fn() -> bool) {
        self.service.ready();
        loop {
            wait(signals, listener);
            if came(&signals.stop) || is_over() {
                return self.service.stopping();
            }
            if came(&signals.reload) {
                self.answer(Request::Reload);
            }
            if let Some(listener) = listener {
                control::serve(listener, |request| self.answer(request));
            }
            let now = (self.clock)();
            self.watcher.scan(now);
            let published_until = self.board.lock().until_secs;
            self.service.turn(now, self.feed.turns(), &self.watcher.names(), published_until);
        }
    }

    fn answer(&mut self, request: Request) -> Value {
        match request {
            Request::Status => self.status(),
            Request::Reload => match self.reload_as_service() {
                Ok(from) => {
                    self.reloads += 1;
                    tracing::info!(from = from.secs(), "configuration read again");
                    json!({ "ok": true, "from": from.secs() })
                }
                Err(error) => {
                    tracing::error!(%error, "configuration not changed");
                    json!({ "ok": false, "error": error.to_string() })
                }
            },
        }
    }

    fn reload_as_service(&mut self) -> Result<Timestamp, ReloadError> {
        self.service.reloading();
        let reloaded = self.reload();
        self.service.ready();
        reloaded
    }

    /// Goes over to the configuration as it is now, at the end of this interval; says when that is.
    fn reload(&mut self) -> Result<Timestamp, ReloadError> {
        let (Configuration { watch, limits, recording }, sink) = (self.reload)()?;
        let interval_secs = recording.rules.interval_secs;
        let changes = &self.changes;
        let changed = self.feed.change(interval_secs, limits, |generation| {
            changes.send(Change { generation, recording, sink }).ok();
        });
        let from =
            changed.ok_or("the configuration before is still to come at the end of this interval: try again then")?;
        self.interval_secs = interval_secs;
        self.watcher.change(from, watch);
        Ok(from)
    }

    fn status(&self) -> Value {
        let (posted, frames) = self.counts();
        let status = Status {
            now: (self.clock)(),
            started: self.started,
            interval_secs: self.interval_secs,
            published_until: posted.until_secs,
            reloads: self.reloads,
            fence: &self.fence,
            interfaces: self.roster.current(),
            frames: &frames,
            rows: &posted.rows,
        };
        status.to_json()
    }

    /// What became of rows and frames. A worker reports when it is through with a block, which may be a moment after
    /// the rows of that block are written.
    fn counts(&self) -> (Posted, FrameCounts) {
        let posted = self.board.lock().clone();
        let written = posted.rows.packets + posted.rows.omitted.total();
        let mut frames = self.feed.reported();
        for _ in 0..REPORT_TRIES {
            if frames.packets >= written {
                break;
            }
            thread::sleep(REPORT_PAUSE);
            frames = self.feed.reported();
        }
        (posted, frames)
    }
}

/// Waits for a signal or a client, but not longer than until the interfaces are due to be looked at.
fn wait(signals: &Signals, listener: Option<&UnixListener>) {
    let mut waiting = vec![PollFd::new(&signals.stop, PollFlags::IN), PollFd::new(&signals.reload, PollFlags::IN)];
    waiting.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
    // What interrupts the wait is looked at right after.
    poll(&mut waiting, Some(&SCAN_EVERY)).ok();
}

/// How often the list of interfaces is looked at.
const SCAN_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How long a status waits for workers to report.
const REPORT_TRIES: u32 = 50;
const REPORT_PAUSE: Duration = Duration::from_millis(10);
