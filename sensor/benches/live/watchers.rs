//! Who watches the wire, and how each says what it has counted.
//!
//! The options are those of the Debian 12 packages: tcpdump 4.99, softflowd 1.1.0.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::measure::{Run, Running, now};
use crate::programs;

/// Somebody who watches, or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watcher {
    /// The wire alone.
    Nobody,
    /// `flowtap run`: the kernel counts, or libpcap hands over frames.
    Flowtap(&'static str),
    /// Copies the headers of packets; knows no flows.
    Tcpdump,
    /// Exports NetFlow; to nobody here.
    Softflowd,
}

/// Who watches a device right now.
pub(crate) struct Watch {
    watcher: Watcher,
    program: PathBuf,
    running: Running,
    scratch: TempDir,
}

/// What a watcher told, and what it cost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Packets that it counted.
    pub(crate) counted: u64,
    /// Packets that it knows it lost, by reason.
    pub(crate) lost: Vec<(String, u64)>,
    /// User and system time from start to end.
    pub(crate) cpu: Duration,
    /// The greatest resident set.
    pub(crate) peak_bytes: u64,
    /// The kernel's maps, which are in no resident set, in megabytes.
    pub(crate) maps_megabytes: u64,
    /// All that it said.
    pub(crate) said: String,
}

impl Watcher {
    /// Who is compared, with nobody first.
    pub(crate) const ALL: [Self; 5] =
        [Self::Nobody, Self::Flowtap("ebpf"), Self::Flowtap("pcap"), Self::Tcpdump, Self::Softflowd];

    /// Whether it is one of ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Flowtap(_))
    }

    /// Where the program is, if there is one; `None` also for nobody.
    pub(crate) fn find(self, flowtap: &Path) -> Option<PathBuf> {
        match self {
            Self::Nobody => None,
            Self::Flowtap(_) => Some(flowtap.to_owned()),
            Self::Tcpdump => programs::find("tcpdump"),
            Self::Softflowd => programs::find("softflowd"),
        }
    }

    fn command(self, program: &Path, device: &str, configuration: &str, directory: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        command.current_dir(directory);
        match self {
            Self::Nobody => bail!("nobody has no command"),
            Self::Flowtap(plane) => {
                fs::write(directory.join("run.toml"), configuration)?;
                command.args(["run", "--config", "run.toml", "--interface", device, "--capture", plane]);
                command.args(["--output", "rows/rows.log", "--control-socket", "control.sock"]);
            }
            Self::Tcpdump => {
                // As much of a packet as its headers, and as much room as flowtap has by default, in KiB.
                command.args(["-n", "-i", device, "-s", "96", "-B", "16384", "-Z", "root", "-w", "/dev/null"]);
            }
            Self::Softflowd => {
                let (socket, pid) = (directory.join("control"), directory.join("pid"));
                command.args(["-d", "-i", device, "-m", FLOWS_MAX, "-B", "16777216", "-t", "maxlife=60", "-c"]);
                command.arg(socket).arg("-p").arg(pid);
            }
        }
        Ok(command)
    }

    /// What it says when it watches.
    fn is_ready(self, said: &str) -> bool {
        match self {
            Self::Nobody => true,
            Self::Flowtap(_) => said.contains(" running "),
            Self::Tcpdump => said.contains("listening on"),
            Self::Softflowd => said.contains("starting data collection"),
        }
    }
}

impl Watch {
    /// Starts a watcher in the calling thread's namespace and on its processors, and waits until it watches.
    ///
    /// # Errors
    ///
    /// When it can't be started, or ends at once.
    pub(crate) fn start(watcher: Watcher, program: &Path, device: &str, configuration: &str) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        // Watchers become users of their own.
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
        let mut command = watcher.command(program, device, configuration, scratch.path())?;
        let running = Running::start(&mut command, scratch.path())?;
        let mut watch = Self { watcher, program: program.to_owned(), running, scratch };
        watch.until(|said| watcher.is_ready(said))?;
        Ok(watch)
    }

    /// Waits until it has said something.
    ///
    /// # Errors
    ///
    /// When it ends before, or takes too long.
    pub(crate) fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let begin = now();
        while !wanted(&self.running.said()?) {
            let ended = self.running.child.as_mut().and_then(|child| child.try_wait().transpose()).is_some();
            ensure!(!ended && begin.elapsed() < START_SECS_MAX, "{:?} said: {}", self.watcher, self.running.said()?);
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.child.as_ref().map_or(0, Child::id)
    }

    /// What flowtap says of itself right now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) fn status(&self) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command.args(["status", "--json", "--control-socket", "control.sock"]).current_dir(self.scratch.path());
        let output = command.output()?;
        ensure!(output.status.success(), "no status: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Ends it when it has seen `sent` packets or sees no more, and asks what it has counted.
    ///
    /// # Errors
    ///
    /// When it does not say, or contradicts itself.
    pub(crate) fn end(self, sent: u64) -> Result<Told> {
        match self.watcher {
            Watcher::Nobody => bail!("nobody watches"),
            Watcher::Flowtap(_) => self.end_flowtap(sent),
            Watcher::Tcpdump => {
                sleep(LAST_PACKETS);
                let run = self.stop(Signal::INT)?;
                let before = |mark: &str| -> Result<u64> {
                    let line = run.said.lines().find(|line| line.ends_with(mark)).context("tcpdump told no counts")?;
                    Ok(line.split(' ').next().unwrap_or_default().parse()?)
                };
                let lost = vec![("kernel".to_owned(), before(" dropped by kernel")?)];
                Ok(Told { counted: before(" captured")?, lost, ..Told::from(run) })
            }
            Watcher::Softflowd => {
                sleep(LAST_PACKETS);
                let control = programs::find("softflowctl").context("softflowctl is not installed")?;
                let socket = self.scratch.path().join("control");
                let output = Command::new(control).arg("-c").arg(socket).arg("statistics").output()?;
                let told = String::from_utf8_lossy(&output.stdout).into_owned();
                let behind = |mark: &str| -> Option<u64> {
                    let (_, rest) = told.split_once(mark)?;
                    rest.trim_start().split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
                };
                let counted = behind("Packets processed:").with_context(|| format!("softflowd told: {told}"))?;
                let lost = vec![("libpcap".to_owned(), behind("dropped by libpcap:").unwrap_or_default())];
                Ok(Told { counted, lost, ..Told::from(self.stop(Signal::TERM)?) })
            }
        }
    }

    /// Its last words and the rows that it wrote must agree.
    fn end_flowtap(self, sent: u64) -> Result<Told> {
        let begin = now();
        let lost = loop {
            let status = self.status()?;
            let lost: Vec<(String, u64)> = status["frames"]["lost"]
                .as_object()
                .context("no losses in status")?
                .iter()
                .filter_map(|(reason, count)| Some((reason.clone(), count.as_u64().filter(|count| *count > 0)?)))
                .collect();
            let counted = status["frames"]["counted"].as_u64().context("no count in status")?;
            if counted + lost.iter().map(|(_, count)| count).sum::<u64>() >= sent || begin.elapsed() > TURN_MAX {
                break lost;
            }
            sleep(Duration::from_millis(100));
        };
        let rows = self.scratch.path().join("rows/rows.log");
        let (scratch, run) = self.stop_and_keep(Signal::TERM)?;
        ensure!(run.status.success(), "flowtap ended with {}: {}", run.status, run.said);
        let last = |name: &str| number_behind(&run.said, name).with_context(|| format!("no {name} in: {}", run.said));
        let (counted, rejected, moved) = (last(" packets=")?, last(" rejected=")?, last("rejected_after_counting=")?);
        let in_rows = packets_in_rows(&rows)?;
        ensure!(
            in_rows == counted + rejected - moved,
            "{in_rows} packets in rows, {counted} counted, {rejected} rejected, {moved} of them counted before"
        );
        drop(scratch);
        let maps_megabytes = number_behind(&run.said, " megabytes=").unwrap_or(0);
        Ok(Told { counted, lost, maps_megabytes, ..Told::from(run) })
    }

    fn stop(self, signal: Signal) -> Result<Run> {
        Ok(self.stop_and_keep(signal)?.1)
    }

    fn stop_and_keep(self, signal: Signal) -> Result<(TempDir, Run)> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("it has ended")?;
        kill_process(id, signal)?;
        Ok((self.scratch, self.running.end()?))
    }
}

impl From<Run> for Told {
    fn from(run: Run) -> Self {
        Self { cpu: run.cpu, peak_bytes: run.peak_bytes, said: run.said, ..Self::default() }
    }
}

impl fmt::Display for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Flowtap(plane) => write!(f, "flowtap, {plane}"),
            Self::Tcpdump => f.write_str("tcpdump, no flows"),
            Self::Softflowd => f.write_str("softflowd"),
        }
    }
}

/// The last number that is said behind a mark.
fn number_behind(said: &str, mark: &str) -> Option<u64> {
    let (_, rest) = said.rsplit_once(mark)?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Rows in format v2; those of intervals without data have none. Line by line: see [`crate::measure::run`].
fn packets_in_rows(rows: &Path) -> Result<u64> {
    let mut sum = 0;
    for line in BufReader::new(fs::File::open(rows)?).lines().skip(1) {
        let line = line?;
        let packets = line.split(' ').nth(8).with_context(|| format!("a short row: {line}"))?;
        if packets != "-" {
            sum += packets.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// More than any part uses.
const FLOWS_MAX: &str = "20000000";
/// Until a watcher must have said that it watches.
const START_SECS_MAX: Duration = Duration::from_secs(20);
/// What is on the way to a watcher gets there.
const LAST_PACKETS: Duration = Duration::from_secs(1);
/// The kernel's maps are turned at least every five seconds.
const TURN_MAX: Duration = Duration::from_secs(7);
