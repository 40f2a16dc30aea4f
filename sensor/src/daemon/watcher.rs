//! Which interfaces are watched: attaches them as they come, and notices when they go.

use std::collections::BTreeMap;

use super::plane::{Plane, Watching};
use super::sparing::Sparing;
use crate::capture::live::TapOptions;
use crate::capture::{Interface, Interfaces, Roster};
use crate::config::glob::Glob;
use crate::sys::interface;
use crate::time::{Rhythm, Timestamp};

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

/// Keeps a plane supplied with the interfaces that are there.
pub(super) struct Watcher {
    plane: Box<dyn Plane>,
    watch: Watch,
    /// What comes with a reload, and when.
    next: Option<(Timestamp, Watch)>,
    interfaces: Interfaces,
    roster: Roster,
    /// By name.
    attached: BTreeMap<String, Attached>,
    /// About interfaces that can't be opened, by name.
    complaints: BTreeMap<String, Complaint>,
    /// By interface: its losses when it was looked at last, and the message that tells of them.
    losses: BTreeMap<u16, (u64, Sparing)>,
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
    watching: Watching,
}

impl Watcher {
    pub(super) fn new(plane: Box<dyn Plane>, watch: Watch, interfaces: Interfaces, roster: Roster) -> Self {
        let mut watcher = Self {
            plane,
            watch,
            next: None,
            interfaces,
            roster,
            attached: BTreeMap::new(),
            complaints: BTreeMap::new(),
            losses: BTreeMap::new(),
        };
        watcher.select();
        watcher
    }

    /// Tells the plane that intervals change.
    pub(super) fn change_rhythm(&mut self, rhythm: Rhythm) {
        self.plane.change_rhythm(rhythm);
    }

    /// Ends the watching of all: what is left is handed out.
    pub(super) fn stop(&mut self) {
        self.plane.stop();
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
        let is_wanted = |name: &str| self.watch.patterns.iter().any(|pattern| pattern.matches(name));
        let Ok(present) = interface::present(is_wanted) else {
            tracing::warn!("the kernel does not list its interfaces; those attached stay attached");
            return;
        };
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

    fn select(&mut self) {
        self.plane.change(&self.watch.tap, self.watch.filter.as_deref());
    }

    /// Forgets interfaces that are gone, are another one of the same name, or are wanted no more.
    fn let_go(&mut self, present: &BTreeMap<String, u32>) {
        let Self { attached, plane, .. } = self;
        let ended = plane.ended();
        attached.retain(|name, attached| {
            let has_ended = ended.contains(&attached.watching);
            if !has_ended && present.get(name) == Some(&attached.kernel_index) {
                return true;
            }
            tracing::warn!(
                interface = name,
                "no longer there: what was counted is kept, and it is watched when it returns"
            );
            plane.detach(attached.watching);
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
        let watching = match self.plane.attach(&name, interface) {
            Ok(watching) => watching,
            Err(cause) => return self.complain(&name, format!("can't be watched yet: {cause}"), now),
        };
        tracing::info!(interface = name, "watched");
        self.complaints.remove(&name);
        self.attached.insert(name, Attached { kernel_index, watching });
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
                tracing::warn!(interface = stay.name, packets, "packets lost before they could be counted");
            }
        }
    }
}

/// How many interfaces are watched at once. In the packet plane each takes two sockets and two capture buffers.
pub const TAPS_MAX: usize = 256;

/// How often the log speaks of the same interface's losses.
const LOSS_LOG_SECS: u64 = 60;

/// How often the log repeats why the same interface is not watched.
const COMPLAINT_LOG_SECS: u64 = 3600;
