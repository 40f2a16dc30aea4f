//! Which interfaces are watched: attaches them as they come, and notices when they go.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender};
use nix::net::if_::if_nameindex;

use super::sparing::Sparing;
use crate::capture::live::{Command, Tap, TapOptions};
use crate::capture::{Filter, Interface, Interfaces, Roster};
use crate::config::glob::Glob;
use crate::time::Timestamp;

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
    /// About interfaces that can't be opened, by name.
    complaints: BTreeMap<String, Complaint>,
    /// By interface: its losses when it was looked at last, and the message that tells of them.
    losses: BTreeMap<u16, (u64, Sparing)>,
    next_serial: u64,
}

/// What keeps an interface from being watched.
#[derive(Default)]
struct Complaint {
    text: String,
    message: Sparing,
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
            losses: BTreeMap::new(),
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
        self.complaints.retain(|name, complaint| {
            present.contains_key(name) || !complaint.message.has_rested(now, COMPLAINT_LOG_SECS)
        });
        for (name, kernel_index) in present {
            if !self.attached.contains_key(&name) {
                self.attach(name, kernel_index, now);
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

    fn attach(&mut self, name: String, kernel_index: u32, now: Timestamp) {
        if self.attached.len() >= TAPS_MAX {
            return self.complain(&name, format!("not watched: {TAPS_MAX} interfaces are, and no more can be"), now);
        }
        let Some(interface) = self.interfaces.intern(Interface { name: name.clone(), capture: String::new() }) else {
            return self.complain(&name, "not watched: too many interfaces have come and gone".to_owned(), now);
        };
        let serial = self.next_serial;
        let tap = match Tap::open(serial, interface, &name, &self.watch.tap) {
            Ok(tap) => tap,
            Err(error) => return self.complain(&name, format!("can't be watched yet: {error}"), now),
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

    /// Tells at once what is new, and what stays as it is once in [`COMPLAINT_LOG_SECS`].
    fn complain(&mut self, name: &str, text: String, now: Timestamp) {
        let complaint = self.complaints.entry(name.to_owned()).or_default();
        if complaint.text != text {
            *complaint = Complaint { text, message: Sparing::default() };
        }
        complaint.message.note(1);
        if let Some(times) = complaint.message.due(now, COMPLAINT_LOG_SECS) {
            tracing::warn!(interface = name, times, "{}", complaint.text);
        }
    }

    /// Tells of losses, for each interface at most once in [`LOSS_LOG_SECS`], with their number since.
    fn tell_losses(&mut self, now: Timestamp) {
        for stay in self.roster.current() {
            let (seen, message) = self.losses.entry(stay.interface).or_default();
            // A new stay counts from 0.
            message.note(stay.drops.checked_sub(*seen).unwrap_or(stay.drops));
            *seen = stay.drops;
            if let Some(packets) = message.due(now, LOSS_LOG_SECS) {
                tracing::warn!(interface = stay.name, packets, "packets lost: the capture buffer was full");
            }
        }
    }
}

/// How many interfaces are watched at once. Each takes two sockets and two capture buffers.
pub const TAPS_MAX: usize = 256;

/// How often the log speaks of the same interface's losses.
const LOSS_LOG_SECS: u64 = 60;

/// How often the log repeats why the same interface is not watched.
const COMPLAINT_LOG_SECS: u64 = 3600;
