//! Which interfaces are watched: attaches them as they come, and notices when they go.

use std::collections::BTreeMap;

use nix::net::if_::if_nameindex;

use super::plane::{Plane, Watching};
use crate::capture::live::TapOptions;
use crate::capture::{Interface, Interfaces, Roster};
use crate::config::glob::Glob;
use crate::time::{NANOS_PER_SEC, Rhythm, Timestamp};

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
    /// What was said of interfaces that can't be opened, so that it is said once.
    complaints: BTreeMap<String, String>,
    /// Losses that were told in the log, and when that was, by interface.
    losses_told: BTreeMap<u16, (u64, Timestamp)>,
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
            losses_told: BTreeMap::new(),
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

    fn attach(&mut self, name: String, kernel_index: u32) {
        if self.attached.len() >= TAPS_MAX {
            return self.complain(name, format!("not watched: {TAPS_MAX} interfaces are, and no more can be"));
        }
        let Some(interface) = self.interfaces.intern(Interface { name: name.clone(), capture: String::new() }) else {
            return self.complain(name, "not watched: too many interfaces have come and gone".to_owned());
        };
        let watching = match self.plane.attach(&name, interface) {
            Ok(watching) => watching,
            Err(cause) => return self.complain(name, format!("can't be watched yet: {cause}")),
        };
        tracing::info!(interface = name, "watched");
        self.complaints.remove(&name);
        self.attached.insert(name, Attached { kernel_index, watching });
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
                tracing::warn!(interface = stay.name, packets = since, "packets lost before they could be counted");
                self.losses_told.insert(stay.interface, (stay.drops, now));
            }
        }
    }
}

/// How many interfaces are watched at once. In the packet plane each takes two sockets and two capture buffers.
pub const TAPS_MAX: usize = 256;

/// How often the log speaks of the same interface's losses.
const LOSS_LOG_SECS: u64 = 60;
