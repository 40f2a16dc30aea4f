//! Who makes the copies.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flowtap::capture::kernel::Device;
use flowtap::classify::Classifier;
use flowtap::config::{Flags, RawConfig, Settings};
use flowtap::mirror::kernel::{CopyOutcome, KernelMirror, MirrorSizes, Plan, is_skip, outcome_name};

use super::{ALL, IDS_IP, NEAR, OUT, OUT_IP, Site, VNI, configuration};
use crate::watchers::{Watch, Watcher};
use crate::wire::{Place, SENDER, counts, pin};

/// Somebody who mirrors everything at the near end, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tap {
    /// The wire alone.
    Nothing,
    /// Linux's own action, into a vxlan device that completes checksums in software.
    Mirred,
    /// flowtap's mirroring programs, and nothing else of it.
    Programs,
    /// `flowtap run`, which counts flows as well: in the kernel, or a thread that taps.
    Run(&'static str),
}

/// A tap that is set.
pub(super) enum Tapping {
    Nothing,
    Mirred,
    Programs(Box<KernelMirror>),
    Run(Box<Watch>),
}

/// What it said of its copies.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies {
    pub(super) sent: u64,
    /// By reason.
    pub(super) skipped: Vec<(String, u64)>,
}

impl Tap {
    pub(super) const ALL: [Self; 5] =
        [Self::Nothing, Self::Mirred, Self::Programs, Self::Run("ebpf"), Self::Run("pcap")];

    /// Sets it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn start(self, site: &Site, flowtap: &Path) -> Result<Tapping> {
        site.near.run(|| {
            pin(Place::Beside(SENDER))?;
            Ok(match self {
                Self::Nothing => Tapping::Nothing,
                Self::Mirred => {
                    mirred(site)?;
                    Tapping::Mirred
                }
                Self::Programs => {
                    let mut mirror = programs(&configuration(NEAR, ALL))?;
                    mirror.attach(&Device::find(NEAR)?)?;
                    Tapping::Programs(Box::new(mirror))
                }
                Self::Run(plane) => Tapping::Run(Box::new(run(plane, flowtap)?)),
            })
        })
    }
}

impl Tapping {
    /// Asks what became of the copies, and ends it.
    ///
    /// # Errors
    ///
    /// When the account does not balance.
    pub(super) fn end(self, site: &Site) -> Result<Copies> {
        match self {
            Self::Nothing => Ok(Copies::default()),
            Self::Mirred => {
                let counts = site.near.run(|| counts(VXLAN))?;
                Ok(Copies { sent: counts.sent, skipped: vec![("device".to_owned(), counts.send_drops)] })
            }
            Self::Programs(mirror) => copies_of_programs(&mirror),
            Self::Run(watch) => {
                // What waits for the thread goes out.
                sleep(Duration::from_millis(500));
                copies_of_run(&watch.end(0)?.said)
            }
        }
    }
}

/// The device is as flowtap's own is: no checksum in the outer header, checksums of inner packets and the cutting of
/// super-packets before it.
fn mirred(site: &Site) -> Result<()> {
    let near = &site.near;
    near.tool(&format!(
        "ip link add {VXLAN} type vxlan id {VNI} remote {IDS_IP} local {OUT_IP} dev {OUT} dstport 4789 noudpcsum ttl 64 \
         nolearning"
    ))?;
    near.tool(&format!("ethtool -K {VXLAN} tx off"))?;
    near.tool(&format!("ip link set {VXLAN} up"))?;
    near.tool(&format!("tc qdisc replace dev {NEAR} clsact"))?;
    for direction in ["ingress", "egress"] {
        near.tool(&format!(
            "tc filter add dev {NEAR} {direction} protocol all u32 match u32 0 0 action mirred egress mirror dev {VXLAN} \
             continue"
        ))?;
    }
    Ok(())
}

/// A run that mirrors, in the calling thread's namespace.
///
/// # Errors
///
/// When it can't be started.
pub(super) fn run(plane: &'static str, flowtap: &Path) -> Result<Watch> {
    let mut watch = Watch::start(Watcher::Flowtap(plane), flowtap, NEAR, &configuration(NEAR, ALL))?;
    match plane {
        "ebpf" => watch.until(|said| said.contains("mirrored, as far as sessions say"))?,
        // The thread taps soon.
        _ => sleep(Duration::from_millis(500)),
    }
    Ok(watch)
}

/// The programs for a configuration, in the calling thread's namespace.
///
/// # Errors
///
/// When the kernel refuses.
pub(super) fn programs(configuration: &str) -> Result<KernelMirror> {
    let mirror = Settings::new(Some(RawConfig::parse(configuration)?), Flags::default())?.mirror;
    let vnis = mirror.vnis("bench");
    let classifier = Arc::new(|_: &str| Classifier::default());
    Ok(KernelMirror::new(Plan { mirror, vnis, classifier }, &MirrorSizes::default())?)
}

fn copies_of_programs(mirror: &KernelMirror) -> Result<Copies> {
    let counters = mirror.counters()?;
    let mut copies = Copies::default();
    for totals in counters.sessions.iter().flat_map(|session| [session.ingress, session.egress]) {
        ensure!(totals.balances(), "{counters:?}");
        copies.sent += totals.of(CopyOutcome::Mirrored).0;
        let reasons = CopyOutcome::ALL.into_iter().filter(|outcome| is_skip(*outcome));
        copies.skipped.extend(reasons.map(|reason| (outcome_name(reason).to_owned(), totals.of(reason).0)));
    }
    Ok(copies)
}

/// By the last words of a run.
pub(super) fn copies_of_run(said: &str) -> Result<Copies> {
    let (_, account) = said.rsplit_once("mirror    session 1 ").with_context(|| format!("no account in: {said}"))?;
    let words: Vec<&str> = account.lines().next().unwrap_or_default().split(' ').collect();
    let before = |mark: &str| -> Result<u64> {
        let at = words.iter().position(|word| word.trim_end_matches(';') == mark).context("a short account")?;
        Ok(words.get(at.saturating_sub(1)).copied().unwrap_or_default().parse()?)
    };
    let [matched, sent, skipped] = [before("matched")?, before("sent")?, before("skipped")?];
    ensure!(matched == sent + skipped, "{account}");
    let mut copies = Copies { sent, skipped: Vec::new() };
    if skipped > 0 {
        let (_, reasons) = account.split_once("skipped: ").context("skipped for no reason")?;
        for reason in reasons.lines().next().unwrap_or_default().split(", ") {
            let (name, count) = reason.rsplit_once(' ').with_context(|| format!("no count: {reason}"))?;
            copies.skipped.push((name.to_owned(), count.parse()?));
        }
    }
    Ok(copies)
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nobody"),
            Self::Mirred => f.write_str("tc u32, mirred"),
            Self::Programs => f.write_str("flowtap's programs alone"),
            Self::Run(plane) => write!(f, "flowtap run, {plane}, counting too"),
        }
    }
}

const VXLAN: &str = "vx0";
