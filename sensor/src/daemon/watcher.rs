//! Which interfaces are watched: attaches them as they come, and notices when they go.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender};
use nix::net::if_::if_nameindex;

use crate::capture::live::{Command, Tap, TapOptions};
use crate::capture::{Filter, Interface, Interfaces, Roster};
use crate::config::glob::Glob;
use crate::time::{NANOS_PER_SEC, Timestamp};

/// What to watch, and how.
#[derive(Debug, Clone)]
pub struct Watch {
    /// Names of interfaces, or patterns of them.
    pub patterns: Vec<Glob>,
    /// How they are opened.
    pub tap: TapOptions,
    /// The filter expression, which is right; without one everything is selected.
    pub filter: Option<String>,
}

/// Keeps the sources supplied with the interfaces that are there.
pub(super) struct Watcher {
    watch: Watch,
    /// What comes with a reload, and when.
    next: Option<(Timestamp, Watch)>,
    interfaces: Interfaces,
    roster: Roster,
    /// One for each worker's source.
    sources: Vec<Sender<Command>>,
    /// Serials of taps that closed by themselves.
    lost: Receiver<u64>,
    /// By name.
    attached: BTreeMap<String, Attached>,
    /// What was said of interfaces that can't be opened, so that it is said once.
    complaints: BTreeMap<String, String>,
    /// Losses that were told in the log, and when that was, by interface.
    losses_told: BTreeMap<u16, (u64, Timestamp)>,
    next_serial: u64,
}

struct Attached {
    /// The kernel's number: another interface may take over the name.
    kernel_index: u32,
    serial: u64,
    source: usize,
}

impl Watcher {
    pub(super) fn new(
        watch: Watch,
        interfaces: Interfaces,
        roster: Roster,
        sources: Vec<Sender<Command>>,
        lost: Receiver<u64>,
    ) -> Self {
        let watcher = Self {
            watch,
            next: None,
            interfaces,
            roster,
            sources,
            lost,
            attached: BTreeMap::new(),
            complaints: BTreeMap::new(),
            losses_told: BTreeMap::new(),
            next_serial: 0,
        };
        watcher.select();
        watcher
    }

    /// Watches something else from then on.
    pub(super) fn change(&mut self, from: Timestamp, watch: Watch) {
        self.next = Some((from, watch));
    }

    /// Looks once which interfaces there are.
    pub(super) fn scan(&mut self, now: Timestamp) {
        if let Some((_, watch)) = self.next.take_if(|(from, _)| now >= *from) {
            self.adopt(watch);
        }
        let Ok(list) = if_nameindex() else {
            tracing::warn!("the kernel does not list its interfaces; those attached stay attached");
            return;
        };
        let present: BTreeMap<String, u32> = list
            .iter()
            .map(|interface| (interface.name().to_string_lossy().into_owned(), interface.index()))
            .filter(|(name, _)| self.watch.patterns.iter().any(|pattern| pattern.matches(name)))
            .collect();
        self.let_go(&present);
        for (name, kernel_index) in present {
            if !self.attached.contains_key(&name) {
                self.attach(name, kernel_index);
            }
        }
        self.tell_losses(now);
    }

    /// The names of the interfaces that are watched.
    pub(super) fn names(&self) -> Vec<String> {
        self.attached.keys().cloned().collect()
    }

    fn adopt(&mut self, watch: Watch) {
        self.complaints.clear();
        self.watch = watch;
        self.select();
    }

    /// Gives the sources their filter. Each has its own: it remembers what it has compiled.
    fn select(&self) {
        for source in &self.sources {
            let filter = self.watch.filter.as_deref().and_then(|expression| Filter::new(expression).ok());
            source.send(Command::Select(filter.map(Box::new))).ok();
        }
    }

    /// Forgets interfaces that are gone, are another one of the same name, or are wanted no more.
    fn let_go(&mut self, present: &BTreeMap<String, u32>) {
        let failed: Vec<u64> = self.lost.try_iter().collect();
        let Self { attached, sources, .. } = self;
        attached.retain(|name, attached| {
            let has_failed = failed.contains(&attached.serial);
            if !has_failed && present.get(name) == Some(&attached.kernel_index) {
                return true;
            }
            tracing::warn!(
                interface = name,
                "no longer there: what was counted is kept, and it is watched when it returns"
            );
            if let Some(source) = sources.get(attached.source) {
                source.send(Command::Detach(attached.serial)).ok();
            }
            false
        });
    }

    fn attach(&mut self, name: String, kernel_index: u32) {
        if self.attached.len() >= TAPS_MAX {
            return self.complain(name, format!("not watched: {TAPS_MAX} interfaces are, and no more can be"));
        }
        let Some(interface) = self.interfaces.intern(Interface { name: name.clone(), capture: String::new() }) else {
            return self.complain(name, "not watched: too many interfaces have come and gone".to_owned());
        };
        let serial = self.next_serial;
        let tap = match Tap::open(serial, interface, &name, &self.watch.tap) {
            Ok(tap) => tap,
            Err(error) => return self.complain(name, format!("can't be watched yet: {error}")),
        };
        self.next_serial += 1;
        // The worker that has the fewest.
        let load = |source: &usize| self.attached.values().filter(|attached| attached.source == *source).count();
        let source = (0..self.sources.len()).min_by_key(load).unwrap_or_default();
        if let Some(source) = self.sources.get(source) {
            source.send(Command::Attach(tap)).ok();
        }
        tracing::info!(interface = name, worker = source, "watched");
        self.complaints.remove(&name);
        self.attached.insert(name, Attached { kernel_index, serial, source });
    }

    fn complain(&mut self, name: String, complaint: String) {
        if self.complaints.get(&name) != Some(&complaint) {
            tracing::warn!(interface = name, "{complaint}");
            self.complaints.insert(name, complaint);
        }
    }

    /// Tells of losses, for each interface at most once in [`LOSS_LOG_SECS`], with their number since.
    fn tell_losses(&mut self, now: Timestamp) {
        for stay in self.roster.current() {
            let (told, when) = self.losses_told.get(&stay.interface).copied().unwrap_or_default();
            // A new stay counts from 0.
            let since = stay.drops.checked_sub(told).unwrap_or(stay.drops);
            if since > 0 && now.0.saturating_sub(when.0) >= LOSS_LOG_SECS * NANOS_PER_SEC {
                tracing::warn!(interface = stay.name, packets = since, "packets lost: the capture buffer was full");
                self.losses_told.insert(stay.interface, (stay.drops, now));
            }
        }
    }
}

/// How many interfaces are watched at once. Each takes two sockets and two capture buffers.
pub const TAPS_MAX: usize = 256;

/// How often the log speaks of the same interface's losses.
const LOSS_LOG_SECS: u64 = 60;
