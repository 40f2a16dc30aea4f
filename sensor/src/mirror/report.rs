//! What became of mirrored packets, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::counters::{Counts, SessionCounts, Volume};
use super::executor::Unasked;
use super::fragmentation::Fragmentation;
#[cfg(feature = "ebpf")]
use super::kernel::MirrorCounters;
use super::{Mirror, Vni};

/// What became of the packets that sessions matched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Each session, in the order of the configuration.
    pub sessions: Vec<SessionReport>,
    /// Frames that no session was asked about.
    pub unasked: Unasked,
    /// Frames that the kernel lost before they could be shown to a session.
    pub tap_drops: u64,
    /// What became of copies behind each tunnel device, where the kernel mirrors. They count as sent.
    pub behind: Vec<Behind>,
    /// Whether packets are copied where the kernel drops them.
    pub at_drop: AtDrop,
    /// What IP did meanwhile with packets too large for their path, all traffic of the network namespace together. Where
    /// the kernel mirrors, and tells.
    pub fragmentation: Option<Fragmentation>,
}

/// Whether packets are copied where the kernel drops them, for rules with `verdict = "rejected"`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AtDrop {
    /// No rule asked for it.
    #[default]
    NotAsked,
    /// They are, or were before a reload.
    Copied(DropCounts),
    /// They can't be.
    Impossible {
        /// Why not.
        why: String,
    },
}

/// What became of packets that the kernel dropped, before a session could be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DropCounts {
    /// Copies that came from the kernel.
    pub copied: u64,
    /// Of these, those whose interface can't be told: no session is asked.
    pub without_interface: u64,
    /// Packets of which no copy could be made, as there was no room or they could not be read, by drop reason.
    pub missed: BTreeMap<String, u64>,
}

/// What became of copies that were handed to a tunnel device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behind {
    /// Its name.
    pub device: String,
    /// Frames that it sent on.
    pub sent: u64,
    /// Frames that it dropped, as for want of memory.
    pub dropped: u64,
    /// Frames that it could not send on, as for want of a route.
    pub errors: u64,
}

/// What became of one session's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Its number.
    pub number: u16,
    /// The interfaces it mirrors, as configured: others may have a session of the same number.
    pub interface: String,
    /// Its network identifier.
    pub vni: Vni,
    /// Its counters.
    pub counts: SessionCounts,
}

impl Report {
    /// A report of `mirror`'s sessions, whose `vnis` and `counts` come in their order.
    pub fn new(mirror: &Mirror, vnis: &[Vni], counts: &[SessionCounts], unasked: Unasked) -> Self {
        let sessions = mirror.sessions().iter().zip(vnis).zip(counts);
        let sessions = sessions.map(|((session, vni), counts)| SessionReport {
            number: session.number.number(),
            interface: session.interface.as_str().to_owned(),
            vni: *vni,
            counts: *counts,
        });
        Self { sessions: sessions.collect(), unasked, tap_drops: 0, ..Self::default() }
    }

    /// A report of what the kernel has mirrored; a session's number and interface tell its network identifier.
    #[cfg(feature = "ebpf")]
    pub fn of_kernel(counters: &MirrorCounters, vnis: &BTreeMap<(u16, String), Vni>) -> Self {
        let sessions = counters.sessions.iter().filter_map(|session| {
            let number = session.number.number();
            let counts = SessionCounts {
                ingress: Counts::of_kernel(&session.ingress),
                egress: Counts::of_kernel(&session.egress),
            };
            let interface = session.interface.clone();
            let vni = *vnis.get(&(number, interface.clone()))?;
            Some(SessionReport { number, interface, vni, counts })
        });
        let behind = counters.devices.iter().map(|device| Behind {
            device: device.device.clone(),
            sent: device.sent,
            dropped: device.dropped,
            errors: device.errors,
        });
        Self {
            sessions: sessions.collect(),
            unasked: Unasked { own: counters.own_copies, ..Unasked::default() },
            tap_drops: counters.not_gathered,
            behind: behind.collect(),
            at_drop: AtDrop::NotAsked,
            fragmentation: counters.fragmentation,
        }
    }

    /// Adds an earlier report: sessions that are the same are added up, others listed behind.
    pub fn merge(&mut self, earlier: &Self) {
        for theirs in &earlier.sessions {
            let same = |ours: &&mut SessionReport| (ours.number, &ours.interface) == (theirs.number, &theirs.interface);
            match self.sessions.iter_mut().find(same) {
                Some(ours) => ours.counts.merge(&theirs.counts),
                None => self.sessions.push(theirs.clone()),
            }
        }
        self.unasked.not_ip += earlier.unasked.not_ip;
        self.unasked.undirected += earlier.unasked.undirected;
        self.unasked.own += earlier.unasked.own;
        self.tap_drops += earlier.tap_drops;
        if self.at_drop == AtDrop::NotAsked {
            self.at_drop = earlier.at_drop.clone();
        }
    }

    /// Whether every wire frame that a session matched was sent, or skipped for a reason.
    pub fn balances(&self) -> bool {
        self.sessions.iter().all(|session| session.counts.balances())
    }

    /// For programs. While it goes on, what is matched and neither mirrored nor skipped is being sent.
    pub fn to_json(&self) -> Value {
        let session = |session: &SessionReport| {
            json!({
                "number": session.number,
                "interface": session.interface,
                "vni": session.vni.number(),
                "ingress": direction(&session.counts.ingress),
                "egress": direction(&session.counts.egress),
                "metrics": session.counts.aws().into_iter().collect::<BTreeMap<_, _>>(),
            })
        };
        json!({
            "sessions": self.sessions.iter().map(session).collect::<Vec<_>>(),
            "not-asked": {
                "not-ip": self.unasked.not_ip,
                "undirected": self.unasked.undirected,
                "own-copies": self.unasked.own,
            },
            "tap-drops": self.tap_drops,
            "tunnel-devices": self.behind.iter().map(|behind| json!({
                "device": behind.device,
                "sent": behind.sent,
                "dropped": behind.dropped,
                "errors": behind.errors,
            })).collect::<Vec<_>>(),
            "at-drop": match &self.at_drop {
                AtDrop::NotAsked => Value::Null,
                AtDrop::Copied(DropCounts { copied, without_interface, missed }) => json!({
                    "copied": copied,
                    "without-interface": without_interface,
                    "missed": missed,
                }),
                AtDrop::Impossible { why } => json!({ "impossible": why }),
            },
            "ip-fragmentation": self.fragmentation.map(|fragmentation| json!({
                "failed": fragmentation.failed,
                "fragments": fragmentation.fragments,
            })),
            "balances": self.balances(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for session in &self.sessions {
            let total = session.counts.total();
            let (mirrored, skipped) = (total.mirrored, total.skipped_total());
            writeln!(
                f,
                "mirror    session {} (VNI {}): {} matched = {} sent + {} skipped; {} bytes sent, {} in and {} out",
                session.number,
                session.vni,
                total.matched.packets,
                mirrored.packets,
                skipped.packets,
                mirrored.bytes,
                session.counts.ingress.mirrored.packets,
                session.counts.egress.mirrored.packets,
            )?;
            let reasons: Vec<_> =
                total.skipped().map(|(reason, volume)| format!("{} {}", reason.as_str(), volume.packets)).collect();
            if !reasons.is_empty() {
                writeln!(f, "  skipped: {}", reasons.join(", "))?;
            }
            if total.cut.packets > 0 {
                writeln!(
                    f,
                    "  cut to the packet length: {} frames, {} bytes less",
                    total.cut.packets, total.cut.bytes
                )?;
            }
            if total.fragmented.packets > 0 {
                writeln!(f, "  sent as fragments: {} frames", total.fragmented.packets)?;
            }
            if total.partial.packets > 0 {
                let Volume { packets, bytes } = total.partial;
                writeln!(f, "  partial: of {packets} dropped packets {bytes} bytes could not be read")?;
            }
        }
        if self.unasked.undirected > 0 {
            writeln!(
                f,
                "  {} packets were not mirrored because their direction is not known (see --local)",
                self.unasked.undirected
            )?;
        }
        if self.unasked.own > 0 {
            writeln!(f, "  {} packets were mirrored copies already, and were let go", self.unasked.own)?;
        }
        for behind in self.behind.iter().filter(|behind| behind.dropped + behind.errors > 0) {
            let Behind { device, dropped, errors, .. } = behind;
            writeln!(f, "  behind {device}: {dropped} copies dropped, {errors} that could not be sent on")?;
        }
        match &self.at_drop {
            AtDrop::NotAsked => {}
            AtDrop::Copied(counts) => {
                let missed: u64 = counts.missed.values().sum();
                if missed > 0 {
                    writeln!(f, "  {missed} dropped packets were lost before a session could be asked")?;
                }
                if counts.without_interface > 0 {
                    let none = counts.without_interface;
                    writeln!(f, "  {none} dropped packets were not mirrored because their interface is not known")?;
                }
            }
            AtDrop::Impossible { why } => {
                writeln!(f, "  nothing was mirrored where the kernel drops packets: {why}")?;
            }
        }
        if let Some(Fragmentation { failed, .. }) = self.fragmentation.filter(|fragmentation| fragmentation.failed > 0)
        {
            writeln!(f, "  {failed} packets were too large for their path, copies and all other traffic of the host")?;
        }
        if self.tap_drops > 0 {
            writeln!(f, "  {} frames were lost before a session could be asked", self.tap_drops)?;
        }
        Ok(())
    }
}

fn direction(counts: &Counts) -> Value {
    let volume = |volume: Volume| json!({ "packets": volume.packets, "bytes": volume.bytes });
    json!({
        "matched": volume(counts.matched),
        "mirrored": volume(counts.mirrored),
        "skipped": counts.skipped().map(|(reason, of)| (reason.as_str(), volume(of))).collect::<BTreeMap<_, _>>(),
        "cut": volume(counts.cut),
        "fragmented": volume(counts.fragmented),
        "partial": volume(counts.partial),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u16, packets: u64) -> Report {
        let mut counts = SessionCounts::default();
        counts.ingress.matched.add(packets, packets * 100);
        counts.ingress.mirrored.add(packets, packets * 100);
        let vni = Vni::new(7).unwrap_or_else(|| unreachable!());
        Report {
            sessions: vec![SessionReport { number, interface: "eth0".to_owned(), vni, counts }],
            tap_drops: 1,
            fragmentation: Some(Fragmentation { failed: 4, fragments: 0 }),
            ..Report::default()
        }
    }

    #[test]
    fn reports_of_one_session_add_up() {
        let mut all = report(1, 5);
        all.merge(&report(1, 6));
        all.merge(&report(2, 7));
        let packets: Vec<_> = all.sessions.iter().map(|session| session.counts.total().mirrored.packets).collect();
        assert_eq!((packets, all.tap_drops, all.balances()), (vec![11, 7], 3, true));
        assert_eq!(all.to_json()["sessions"][0]["metrics"]["NetworkMirrorIn"], 1100);
        assert_eq!(all.to_json()["ip-fragmentation"]["failed"], 4);
        assert!(all.to_string().contains("\n  4 packets were too large for their path"), "{all}");
    }
}
