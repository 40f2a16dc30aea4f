//! What the first thread does while the others count: signals, the control socket, interfaces that come and go.

use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::control::{self, Request};
use super::overview::Overview;
use super::service::Service;
use super::watcher::Watcher;
use super::{Configuration, Reload, ReloadError, share};
use crate::recorder::Change;
use crate::time::{Rhythm, Timestamp};

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

/// Looks after a run.
pub(super) struct Keeper {
    pub(super) overview: Arc<Overview>,
    pub(super) watcher: Watcher,
    pub(super) changes: Sender<Change>,
    pub(super) reload: Reload,
    /// How many threads count.
    pub(super) workers: usize,
    pub(super) service: Service,
}

impl Keeper {
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
            let now = (self.overview.clock)();
            self.watcher.scan(now);
            self.overview.mirrors.tend();
            let published_until = self.overview.board.published_until_secs();
            self.service.turn(now, self.overview.feed.turns(), &self.watcher.names(), published_until);
        }
    }

    fn answer(&mut self, request: Request) -> Value {
        match request {
            Request::Status => self.overview.status().to_json(),
            Request::Reload => match self.reload_as_service() {
                Ok(from) => {
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
        let (Configuration { watch, packets_only, limits, recording, mirror }, sink) = (self.reload)()?;
        if self.overview.told.is_kernel()
            && let Some(why) = packets_only
        {
            return Err(format!("{why}: the kernel plane can't do that; restart for the packet plane").into());
        }
        if !self.overview.feed.may_change() {
            return Err(STILL_TO_COME.into());
        }
        // What may be refused comes first: then nothing is changed. Mirroring changes at once.
        self.overview.mirrors.change(mirror)?;
        let interval_secs = recording.rules.interval_secs;
        let changes = &self.changes;
        let limits = share(limits, self.workers);
        let watcher = &mut self.watcher;
        let changed = self.overview.feed.change(interval_secs, limits, |generation, from| {
            changes.send(Change { generation, recording, sink }).ok();
            watcher.change_rhythm(Rhythm::new(from, interval_secs));
        });
        let from = changed.ok_or(STILL_TO_COME)?;
        self.overview.reloaded(interval_secs);
        self.watcher.change(from, watch);
        Ok(from)
    }
}

/// Why a reload is refused in the interval of another one.
const STILL_TO_COME: &str = "the configuration before is still to come at the end of this interval: try again then";

/// Waits for a signal or a client, but not longer than until the interfaces are due to be looked at.
fn wait(signals: &Signals, listener: Option<&UnixListener>) {
    let mut waiting = vec![PollFd::new(&signals.stop, PollFlags::IN), PollFd::new(&signals.reload, PollFlags::IN)];
    waiting.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
    // What interrupts the wait is looked at right after.
    poll(&mut waiting, Some(&SCAN_EVERY)).ok();
}

/// How often the list of interfaces is looked at.
const SCAN_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
