//! A live run: builds the parts, owns the threads, and knows the order in which they begin and end.
//!
//! A plane (`plane.rs`) watches interfaces and has one source for each worker: the kernel plane a single one, the packet
//! plane as many as are asked for. Each worker runs [`crate::worker`]'s loop, the recorder has a thread, and the calling
//! thread looks after everything else: signals, the control socket, and the interfaces that come and go. Metrics are told
//! by a thread of their own, which knows only how to ask.
//!
//! Begin: open the control socket, the address of metrics and the interfaces, give up the rights of root, raise the
//! fence, tell what the last run missed, and only then make threads. End, in reverse: the sources read what is left, the
//! workers hand over the open interval, the recorder writes and publishes it; all within [`STOP_SECS_MAX`].

pub mod control;
pub mod fence;
mod keeper;
mod latencies;
mod metrics;
mod mirrors;
mod overview;
mod plane;
pub mod privileges;
mod service;
mod sparing;
pub mod state;
mod status;
mod watcher;

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use flowlog::sink::{Sink, SinkError};
use rustix::thread::CapabilitySet;

use crate::capture::{DropReasons, Interface, Interfaces, Roster};
use crate::config::{CapturePlane, KernelSettings, MetricsAddress};
use crate::feed::{Clock, LiveFeed};
use crate::flow::interval::Windows;
use crate::ledger::{FrameCounts, RowCounts};
use crate::mirror::live::Setup;
use crate::recorder::{Live, Milestone, Recorder, RecorderError, Recording};
use crate::time::Timestamp;
use crate::worker::{Handover, Limits, Worker};
use control::ControlError;
use fence::{Fence, Territory};
use keeper::{Keeper, Signals};
use latencies::Latencies;
use mirrors::Mirrors;
use overview::{Board, Overview};
use plane::Chosen;
use privileges::{PrivilegeError, User};
use service::Service;
use state::{State, StateFile};
use watcher::Watcher;

pub use metrics::MetricsError;
pub use watcher::{TAPS_MAX, Watch};

/// Everything a live run needs.
pub struct Job {
    /// Tells the time.
    pub clock: Clock,
    /// Who counts.
    pub capture: CapturePlane,
    /// How the kernel plane counts.
    pub kernel: KernelSettings,
    /// How many threads count in the packet plane; interfaces are shared out among them.
    pub workers: NonZeroUsize,
    /// What to do.
    pub configuration: Configuration,
    /// Where records go.
    pub sink: Box<dyn Sink>,
    /// Reads and checks the configuration again.
    pub reload: Reload,
    /// Where to be reached; and whether that is asked for, or just the custom.
    pub control: Control,
    /// Where to tell metrics.
    pub metrics: MetricsAddress,
    /// Where to note how far the run has come.
    pub state: Option<StateFile>,
    /// Whom to become.
    pub user: Option<User>,
    /// A directory that must be writable as that user.
    pub output_directory: Option<PathBuf>,
    /// The files that it has to do with once it runs.
    pub territory: Territory,
}

/// What a reload can change.
pub struct Configuration {
    /// Which interfaces, and how they are opened.
    pub watch: Watch,
    /// Why this is not for the kernel plane, if it isn't.
    pub packets_only: Option<&'static str>,
    /// How all workers together count: the bound of flows is shared out among them.
    pub limits: Limits,
    /// How flows become records.
    pub recording: Recording,
    /// What is mirrored.
    pub mirror: Option<Setup>,
}

/// Reads and checks the configuration again. The sink is `None` where records go on going where they go.
pub type Reload = Box<dyn FnMut() -> Result<(Configuration, Option<Box<dyn Sink>>), ReloadError>>;

/// What is wrong with a configuration, in the words of whoever read it.
pub type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// The control socket that a run shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// This one: the run fails without it.
    Required(PathBuf),
    /// This one if it can be had.
    IfPossible(PathBuf),
}

/// Why a run did not begin, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The control socket that was asked for can't be had.
    #[error("control socket {0}")]
    Control(#[from] ControlError),
    /// The kernel plane was asked for and can't be had.
    #[error("the kernel plane: {0}")]
    Kernel(String),
    /// Metrics can't be told where they should be.
    #[error("metrics at {0}")]
    Metrics(#[from] MetricsError),
    /// Targets can't be sent to.
    #[error("mirroring: {0}")]
    Mirror(String),
    /// Rights can't be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Signals or threads can't be had.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The user that the run becomes may not write its output.
    #[error(
        "{}: {} can't write there ({cause}): give the directory to that user, or choose another with `user`",
        directory.display(),
        user.as_deref().unwrap_or("this user")
    )]
    Unwritable {
        /// The output directory.
        directory: PathBuf,
        /// Whom the run became.
        user: Option<String>,
        /// What the system said.
        cause: io::Error,
    },
    /// Records could not be written.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The last records could not be published.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What became of the frames.
    pub frames: FrameCounts,
    /// What became of the flows.
    pub rows: RowCounts,
}

/// Runs until a signal says to stop.
///
/// # Errors
/// When the run can't begin, or its records have nowhere to go.
pub fn run(job: Job) -> Result<Outcome, DaemonError> {
    let Job {
        clock,
        capture,
        kernel,
        workers,
        configuration,
        sink,
        reload,
        control,
        metrics,
        state,
        user,
        output_directory,
        territory,
    } = job;
    let Configuration { watch, packets_only, limits, recording, mirror } = configuration;
    let (started, interval_secs) = (clock(), recording.rules.interval_secs);
    let signals = Signals::new()?;
    let listener = listen(control)?;
    let door = metrics::Door::open(&metrics, user.as_ref())?;

    let (interfaces, roster) = (Interfaces::default(), Roster::default());
    let (drop_reasons, drain_time) = (DropReasons::default(), Latencies::new());
    let parts = plane::Parts {
        interfaces: &interfaces,
        roster: &roster,
        drop_reasons: &drop_reasons,
        drain_time: &drain_time,
        clock: &clock,
        interval_secs,
        workers: workers.get(),
        tap: watch.tap.clone(),
        copies_drops: mirror.as_ref().is_some_and(|setup| setup.mirror.drop_rule().is_some()),
    };
    let Chosen { plane, sources, rights, told, in_kernel, drops } =
        plane::choose(capture, &kernel, packets_only, &parts)?;
    let workers = sources.len();
    let limits = share(limits, workers);
    let mut watcher = Watcher::new(plane, watch, interfaces.clone(), roster.clone());
    watcher.scan(started);
    let prepared = mirrors::prepare(mirror, &in_kernel, drops)?;
    // Taps come and go with their interfaces, and ways with their routes, so the right to open them is kept.
    let rights = if prepared.needs_sockets() { rights | CapabilitySet::NET_RAW } else { rights };
    privileges::give_up(user.as_ref(), rights)?;
    let user = user.map(|user| user.name);
    if let Some(directory) = output_directory {
        state::try_directory(&directory).map_err(|cause| DaemonError::Unwritable { directory, user, cause })?;
    }

    let fence = Fence::raise(&territory);
    fence.tell();
    // Behind the fence: it holds for threads that are made later.
    let mirrors = Mirrors::start(prepared, rights.contains(CapabilitySet::NET_RAW), &clock)?;

    let board = Board::new();
    let (changes_sender, changes) = unbounded();
    let published = on_publication(&clock, &board, state.clone(), &roster);
    let live = Live { roster: roster.clone(), drop_reasons, changes, published };
    let (homes, homecomings): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
    let mut recorder = Recorder::live(recording, interfaces.clone(), sink, homes, live);
    if let Some(state) = &state {
        tell_gap(&mut recorder, state, &interfaces, started)?;
        note(state, &State { published_until: started.secs(), interfaces: watcher.names(), stopped: false });
    }

    let feed = Arc::new(LiveFeed::new(sources, Windows::new(interval_secs), limits, Arc::clone(&clock)));
    let overview = Arc::new(Overview {
        clock: Arc::clone(&clock),
        started,
        feed: Arc::clone(&feed),
        roster,
        board,
        told,
        fence,
        drain_time,
        mirrors: mirrors.clone(),
        interval_secs: AtomicU32::new(interval_secs),
        reloads: AtomicU64::new(0),
    });
    let _metrics = tell_metrics(door, &metrics, &overview)?;
    let (recorder_sender, handovers) = bounded::<Handover>(workers * SHARES_WAITING_MAX);
    let service = Service::from_environment(started);
    let mut keeper = Keeper { overview, watcher, changes: changes_sender, reload, workers, service };
    let mut frames = FrameCounts::default();
    let feed = &*feed;
    let written = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, home) in homecomings.into_iter().enumerate() {
            let worker = Worker::new(number, feed, recorder_sender.clone(), home);
            threads.push(scope.spawn(move || worker.run()));
        }
        drop(recorder_sender);
        let recorder = &mut recorder;
        let recording = scope.spawn(move || record(recorder, handovers, feed));
        tracing::info!(workers, interval_secs, "running");
        keeper.keep(&signals, listener.as_ref(), || recording.is_finished());
        tracing::info!("stopping: what is counted is published");
        exit_in_time();
        keeper.watcher.stop();
        for thread in threads {
            // A worker that panicked has told the recorder, and its counts are gone.
            thread.join().into_iter().for_each(|counts| frames.add(&counts));
        }
        recording.join().unwrap_or(Err(RecorderError::WorkerPanicked))
    });
    if let Some(report) = mirrors.stop() {
        for line in report.to_string().lines() {
            tracing::info!("{line}");
        }
        if !report.balances() {
            tracing::error!("the mirror's ledger does not balance: this is a fault in flowtap, please report it");
        }
    }
    let names = keeper.watcher.names();
    let (rows, mut sink) = recorder.into_parts();
    written?;
    sink.finish()?;
    if let Some(state) = &state {
        note(state, &State { published_until: clock().secs(), interfaces: names, stopped: true });
    }
    Ok(Outcome { frames, rows })
}

/// What each of so many workers may hold.
fn share(limits: Limits, workers: usize) -> Limits {
    Limits { flows_max: limits.flows_max.div_ceil(workers.max(1)), ..limits }
}

/// The recorder's thread.
fn record(recorder: &mut Recorder, handovers: Receiver<Handover>, feed: &LiveFeed) -> Result<(), RecorderError> {
    let written = recorder.run(&handovers);
    // Workers that wait for a recorder that has failed, or for each other, must not wait for ever.
    drop(handovers);
    recorder.release_workers();
    feed.abandon();
    written
}

fn listen(control: Control) -> Result<Option<UnixListener>, ControlError> {
    match control {
        Control::Required(path) => control::listen(&path).map(Some),
        Control::IfPossible(path) => match control::listen(&path) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(%error, "running without a control socket: `status` and `reload` won't reach this run");
                Ok(None)
            }
        },
    }
}

/// Answers those who come through the door, if there is one, until it is dropped.
fn tell_metrics(
    door: Option<metrics::Door>,
    address: &MetricsAddress,
    overview: &Arc<Overview>,
) -> io::Result<Option<metrics::Server>> {
    let Some(door) = door else { return Ok(None) };
    let overview = Arc::clone(overview);
    let server = metrics::Server::start(door, Arc::new(move || metrics::text(&overview.status())))?;
    tracing::info!(%address, "metrics are told");
    Ok(Some(server))
}

/// Writes what no run has recorded since the last one crashed.
fn tell_gap(
    recorder: &mut Recorder,
    state: &StateFile,
    interfaces: &Interfaces,
    now: Timestamp,
) -> Result<(), RecorderError> {
    let last = state.load().unwrap_or_else(|error| {
        tracing::warn!(%error, "how far the last run came can't be read: a gap, if there is one, is not told");
        None
    });
    let Some((last, (start_secs, end_secs))) = last.and_then(|last| last.gap(now.secs()).map(|gap| (last, gap))) else {
        return Ok(());
    };
    let index = |name: &String| interfaces.intern(Interface { name: name.clone(), capture: String::new() });
    let missed: Vec<_> = last.interfaces.iter().filter_map(index).collect();
    tracing::warn!(
        start_secs,
        end_secs,
        interfaces = missed.len(),
        "the last run did not end in order: SKIPDATA is written"
    );
    recorder.write_gap(&missed, start_secs, end_secs)
}

/// What is done whenever an interval is published.
fn on_publication(
    clock: &Clock,
    board: &Board,
    state: Option<StateFile>,
    roster: &Roster,
) -> Box<dyn FnMut(&Milestone<'_>) + Send> {
    let (clock, board, roster) = (Arc::clone(clock), board.clone(), roster.clone());
    Box::new(move |milestone| {
        for file in &milestone.files {
            tracing::debug!(path = %file.path.display(), rows = file.row_count, "published");
        }
        board.post(milestone, clock());
        if let Some(state) = &state {
            let interfaces = roster.current().into_iter().map(|stay| stay.name).collect();
            note(state, &State { published_until: milestone.until_secs, interfaces, stopped: false });
        }
    })
}

fn note(file: &StateFile, state: &State) {
    if let Err(error) = file.save(state) {
        tracing::warn!(%error, "how far the run has come can't be noted: after a crash the gap would look longer");
    }
}

/// Ends the program when stopping takes longer than [`STOP_SECS_MAX`]: whoever stops a service waits for it.
fn exit_in_time() {
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(STOP_SECS_MAX));
        tracing::error!("stopping takes longer than {STOP_SECS_MAX} s: what is not published is given up");
        std::process::exit(EXIT_GIVEN_UP);
    });
}

/// How long a run may take to publish what it has counted, once it is told to stop.
pub const STOP_SECS_MAX: u64 = 10;

/// As after any output that could not be written.
const EXIT_GIVEN_UP: i32 = 1;

/// How many shares a worker may have waiting before it waits itself.
const SHARES_WAITING_MAX: usize = 2;

#[cfg(test)]
mod tests;
