//! Network namespaces and the cables between them. The kernel takes them away with their last user, so nothing is left
//! behind, however a run ends.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

/// A namespace that nobody else knows. No interface in it says anything on its own.
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes an empty one.
    ///
    /// # Errors
    ///
    /// When that is forbidden.
    pub(crate) fn new() -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // Not there where the kernel has no IPv6, and then not needed.
            fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
            Ok(Self { handle: File::open("/proc/thread-self/ns/net")? })
        };
        in_a_thread(make)
    }

    /// Runs `work` inside, in a thread of its own. Programs that it starts are inside as well.
    ///
    /// # Errors
    ///
    /// What the system or `work` says.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_a_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Runs a program inside, to its end; answers its standard output.
    ///
    /// # Errors
    ///
    /// When it can't be run, or complains.
    pub(crate) fn tool(&self, line: &str) -> Result<String> {
        self.run(|| tool(line))
    }

    /// How `ip` is told of it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// The cable that everything is about: frames come from `far` and are watched in `near`.
///
/// # Errors
///
/// When there can be none.
pub(crate) fn cable() -> Result<(Namespace, Namespace)> {
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    join((&near, NEAR, NEAR_ETHER), (&far, FAR, FAR_ETHER), 1500)?;
    Ok((near, far))
}

/// Joins two namespaces by a cable: a device with an Ethernet address at each end, both up.
///
/// # Errors
///
/// When `ip` is missing or complains.
pub(crate) fn join(near: (&Namespace, &str, &str), far: (&Namespace, &str, &str), mtu: u32) -> Result<()> {
    let [(near, near_device, near_ether), (far, far_device, far_ether)] = [near, far];
    near.tool(&format!(
        "ip link add {near_device} address {near_ether} mtu {mtu} type veth peer name {far_device} \
         address {far_ether} mtu {mtu} netns {}",
        far.path()
    ))?;
    near.tool(&format!("ip link set {near_device} up"))?;
    far.tool(&format!("ip link set {far_device} up"))?;
    Ok(())
}

/// What the kernel counted on a device of the calling thread's namespace.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeviceCounts {
    /// Frames that came in.
    pub(crate) received: u64,
    /// Frames that went out.
    pub(crate) sent: u64,
    /// Frames that were lost on the way out.
    pub(crate) send_drops: u64,
}

/// Reads the counters of a device.
///
/// # Errors
///
/// When there is no such device.
pub(crate) fn counts(device: &str) -> Result<DeviceCounts> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let found = text.lines().filter_map(|line| line.trim_start().split_once(':')).find(|(name, _)| *name == device);
    let (_, counts) = found.with_context(|| format!("no device {device}"))?;
    let counts = counts.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    ensure!(counts.len() >= 16, "{device} has {} counters", counts.len());
    Ok(DeviceCounts { received: counts[1], sent: counts[9], send_drops: counts[11] })
}

/// Lets the calling thread, and what it starts, run on one processor, or on all others where there are any.
///
/// # Errors
///
/// What the system says.
pub(crate) fn pin(place: Place) -> Result<()> {
    let processors = thread::available_parallelism()?.get();
    let wanted = |processor: usize| match place {
        Place::On(number) => processor == number % processors,
        Place::Beside(number) => processors == 1 || processor != number % processors,
    };
    let mut set = CpuSet::new();
    (0..processors).filter(|processor| wanted(*processor)).try_for_each(|processor| set.set(processor))?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Where a thread runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// On the processor of that number.
    On(usize),
    /// On any but that.
    Beside(usize),
}

fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(answer) => answer,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs a program to its end; answers its standard output.
///
/// # Errors
///
/// When it can't be run, or complains.
pub(crate) fn tool(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output().with_context(|| format!("can't run {program}"))?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(String::from_utf8(output.stdout)?)
}

/// The processor that sends.
pub(crate) const SENDER: usize = 0;
/// The devices at the ends of [`cable`].
pub(crate) const NEAR: &str = "near0";
/// See [`NEAR`].
pub(crate) const FAR: &str = "far0";
/// The Ethernet addresses of these ends.
pub(crate) const NEAR_ETHER: &str = "02:00:00:00:00:01";
/// See [`NEAR_ETHER`].
pub(crate) const FAR_ETHER: &str = "02:00:00:00:00:02";
/// Nobody has it: a stack drops what is sent to it at its first look.
pub(crate) const ELSEWHERE: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
