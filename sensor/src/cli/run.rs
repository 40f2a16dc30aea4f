//! `flowtap run`: from the command line to a [`Job`] of the daemon, and to the same again when it is told to reload.

use std::fs;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::{io, thread};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use flowlog::format::Format;
use flowlog::sink::Sink;
use flowtap::capture::Filter;
use flowtap::capture::live::TapOptions;
use flowtap::config::glob::Glob;
use flowtap::config::{
    CaptureBuffer, CapturePlane, Destination, Flags, InstanceFacts, KernelSettings, LiveFlags, MetadataSource,
    MetricsAddress, RawConfig, Settings, Workers,
};
use flowtap::daemon::control::SOCKET_DEFAULT;
use flowtap::daemon::fence::Territory;
use flowtap::daemon::privileges::User;
use flowtap::daemon::state::{StateFile, try_directory};
use flowtap::daemon::{self, Configuration, Control, Job, Watch};
use flowtap::flow::FragmentRule;
use flowtap::sys::interface::{OWN_PREFIX, is_ours};
use nix::ifaddrs::getifaddrs;
use tracing::level_filters::LevelFilter;

use super::record::{self, RUNNING, RecordArgs};
use super::{INCOMPLETE, clock, instance, mirrored, output};

/// Watch interfaces and record what goes through them
///
/// Runs until SIGTERM or SIGINT; SIGHUP or `flowtap reload` reads the configuration again. Where it can, it counts in
/// the kernel: packets as they are on the wire, with the kernel's own verdicts. Elsewhere frames come from libpcap:
/// super-packets of segmentation offloads are one packet each, and everything seen is ACCEPT unless a policy says
/// otherwise; the log says which it is, and why. Started as root, it becomes an unprivileged user once everything is open. The log goes to standard
/// error. Exit code 1 means that records could not be written, 2 that the command line, the configuration, the policy
/// or the rights are wrong.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Interface to watch, by name or pattern like 'eth*' (repeatable) [default: those in the configuration file]
    #[arg(short, long, value_name = "NAME")]
    interface: Vec<Glob>,

    #[command(flatten)]
    record: RecordArgs,

    /// Who counts: ebpf (programs in the kernel), pcap (frames from libpcap), or auto, the best that there is [default: auto]
    #[arg(long, value_name = "PLANE", help_heading = RUNNING)]
    capture: Option<CapturePlane>,

    /// The kernel's buffer for each direction of an interface [default: 16MB]
    #[arg(long, value_name = "SIZE", help_heading = RUNNING)]
    capture_buffer: Option<CaptureBuffer>,

    /// Whom to become when started as root [default: nobody]
    #[arg(long, value_name = "NAME", help_heading = RUNNING)]
    user: Option<String>,

    /// Where `status` and `reload` reach this run [default: /run/flowtap/control.sock]
    #[arg(long, value_name = "PATH", help_heading = RUNNING)]
    control_socket: Option<PathBuf>,

    /// Where to note how far the run has come, to tell a gap after a crash [default: the output directory]
    #[arg(long, value_name = "DIRECTORY", help_heading = RUNNING)]
    state_directory: Option<PathBuf>,

    /// Where to tell metrics: `unix:PATH`, or a port of a loopback address like 127.0.0.1:9817 [default: off]
    #[arg(long, value_name = "ADDRESS", help_heading = RUNNING)]
    metrics: Option<MetricsAddress>,

    /// How much the log says
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = RUNNING)]
    log_level: LogLevel,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

/// Runs until told to stop.
///
/// # Errors
/// When the run could not begin.
pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let level = LevelFilter::from(args.log_level);
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_ansi(false).with_target(false).init();

    let mut known = InstanceFacts::default();
    let plan = Plan::new(&args, &mut known)?;
    let Plan { settings, format, .. } = &plan;
    let user = User::choose(settings.live.user.as_deref())?;
    let output_directory = output_directory(&settings.output.destination);
    let state_directory = state_directory(settings);
    let territory = territory(args.record.config_path(), settings);
    for directory in output_directory.iter().chain(&state_directory) {
        make_directory(directory, user.as_ref()).with_context(|| directory.display().to_string())?;
    }
    let control = match settings.live.control_socket.clone() {
        Some(path) => Control::Required(path),
        None => Control::IfPossible(SOCKET_DEFAULT.into()),
    };
    let metrics = settings.live.metrics.clone();
    let sink = output::open(settings, format)?;
    let mut reloader = Reloader::new(args, known, &plan)?;
    let job = Job {
        clock: Arc::new(clock::wall),
        capture: settings.live.capture,
        kernel: settings.live.kernel.clone(),
        workers: plan.workers,
        sink,
        control,
        metrics,
        state: state_directory.as_deref().map(StateFile::in_directory),
        user,
        output_directory,
        territory,
        reload: Box::new(move || reloader.reload().map_err(|error| format!("{error:#}").into())),
        configuration: plan.configuration,
    };
    match daemon::run(job) {
        Ok(outcome) => {
            let (frames, rows) = (outcome.frames, outcome.rows);
            let (rejected, rejected_after_counting) = (frames.rejected, frames.moved);
            let (frames_offered, packets) = (frames.offered, frames.packets);
            tracing::info!(
                frames = frames_offered,
                packets,
                rejected,
                rejected_after_counting,
                rows = rows.rows,
                nodata = rows.rows_nodata,
                skipdata = rows.rows_skipdata,
                "stopped"
            );
            if frames.balances() && rows.balances(&frames) {
                return Ok(ExitCode::SUCCESS);
            }
            tracing::error!("the ledger does not balance: this is a fault in flowtap, please report it");
            Ok(ExitCode::from(INCOMPLETE))
        }
        Err(error @ (daemon::DaemonError::Recorder(_) | daemon::DaemonError::Sink(_))) => {
            tracing::error!(%error, "records can't be written");
            Ok(ExitCode::from(INCOMPLETE))
        }
        Err(error) => Err(error.into()),
    }
}

/// Everything typed or written in files, checked.
struct Plan {
    settings: Settings,
    format: Format,
    workers: NonZeroUsize,
    configuration: Configuration,
}

impl Plan {
    /// `known` is what the cloud has said before; what it says now is added.
    fn new(args: &RunArgs, known: &mut InstanceFacts) -> anyhow::Result<Self> {
        Self::of(args.record.read_config()?, flags(args), |settings| {
            if settings.live.metadata == MetadataSource::Ec2 {
                instance::ask(known);
                settings.learn(known);
            }
        })
    }

    fn of(file: Option<RawConfig>, flags: Flags, learn: impl FnOnce(&mut Settings)) -> anyhow::Result<Self> {
        let mut settings = Settings::new(file, flags)?;
        if settings.live.watch.is_empty() {
            bail!("nothing to watch: name interfaces with --interface, or in [[interface]] of a configuration file");
        }
        refuse_own_devices(&settings)?;
        let format: Format = settings.format.parse()?;
        settings.filter.as_deref().map(Filter::new).transpose()?;
        learn(&mut settings);
        let workers =
            settings.workers.map_or_else(|| workers_default().max(settings.live.fanout.readers()), Workers::count);
        let recording = record::recording(&settings, &format, workers, primary_address)?;
        let configuration = Configuration {
            watch: Watch {
                patterns: settings.live.watch.clone(),
                tap: TapOptions {
                    buffer_bytes: settings.live.capture_buffer.bytes(),
                    fanout: settings.live.fanout.readers(),
                },
                filter: settings.filter.clone(),
            },
            packets_only: packets_only(&settings),
            limits: record::limits(&settings, &format, NonZeroUsize::MIN, recording.rules.seed),
            recording,
            mirror: mirrored::live(&settings)?,
        };
        Ok(Self { settings, format, workers, configuration })
    }

    /// What decides where records go and in what form.
    fn output(&self) -> anyhow::Result<String> {
        let identity = output::identity(&self.settings, &self.format)?;
        Ok(format!("{:?} {:?} {}", self.settings.output, identity, self.format))
    }
}

/// Checks a configuration file as `run` would use it, and gives its settings.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn check(path: &Path) -> anyhow::Result<Settings> {
    let plan = Plan::of(Some(record::read_config(path)?), Flags::default(), |_| {})?;
    output::identity(&plan.settings, &plan.format)?;
    User::choose(plan.settings.live.user.as_deref())?;
    Ok(plan.settings)
}

fn flags(args: &RunArgs) -> Flags {
    let args = args.clone();
    Flags {
        live: LiveFlags {
            watch: args.interface,
            capture: args.capture,
            capture_buffer: args.capture_buffer,
            user: args.user,
            control_socket: args.control_socket,
            state_directory: args.state_directory,
            metrics: args.metrics,
        },
        ..args.record.into_flags()
    }
}

/// What a reload does: everything is read and checked again, and a new sink opened where the output has changed. The
/// number of workers, the user, the control socket, the address of metrics and the state directory stay as they were at
/// the start.
struct Reloader {
    args: RunArgs,
    workers: NonZeroUsize,
    capture: CapturePlane,
    kernel: KernelSettings,
    metrics: MetricsAddress,
    is_directory: bool,
    /// What the cloud has said so far.
    known: InstanceFacts,
    /// As of the last reload.
    output: String,
}

impl Reloader {
    fn new(args: RunArgs, known: InstanceFacts, first: &Plan) -> anyhow::Result<Self> {
        let is_directory = matches!(first.settings.output.destination, Destination::Directory(_));
        let live = &first.settings.live;
        let (capture, kernel, metrics) = (live.capture, live.kernel.clone(), live.metrics.clone());
        Ok(Self {
            args,
            known,
            workers: first.workers,
            capture,
            kernel,
            metrics,
            is_directory,
            output: first.output()?,
        })
    }

    fn reload(&mut self) -> anyhow::Result<(Configuration, Option<Box<dyn Sink>>)> {
        let plan = Plan::new(&self.args, &mut self.known)?;
        let (output, Plan { settings, format, workers, configuration }) = (plan.output()?, plan);
        let sink = if output == self.output { None } else { Some(self.open_another(&settings, &format)?) };
        if workers != self.workers {
            tracing::warn!("the number of workers changes at the next start");
        }
        if settings.live.capture != self.capture || settings.live.kernel != self.kernel {
            tracing::warn!("who counts, and the kernel's maps, change at the next start");
        }
        if settings.live.metrics != self.metrics {
            tracing::warn!("the address of metrics changes at the next start");
        }
        self.output = output;
        Ok((configuration, sink))
    }

    fn open_another(&self, settings: &Settings, format: &Format) -> anyhow::Result<Box<dyn Sink>> {
        let Destination::Directory(root) = &settings.output.destination else {
            bail!("records go to one file or stream until the run ends: only directories can be exchanged");
        };
        if !self.is_directory {
            bail!("records go to one file or stream until the run ends: only directories can be exchanged");
        }
        let tried = fs::create_dir_all(root).and_then(|()| try_directory(root));
        tried.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                anyhow!("{}: {error}; a run is fenced into where it began to write: start it again", root.display())
            }
            _ => anyhow!("{}: {error}", root.display()),
        })?;
        output::open(settings, format)
    }
}

/// The first IPv4 address of an interface of this host, which the kernel takes for its own packets.
fn primary_address(interface: &str) -> Option<Ipv4Addr> {
    let mut own = getifaddrs().ok()?.filter(|found| found.interface_name == interface);
    own.find_map(|found| Some(found.address?.as_sockaddr_in()?.ip()))
}

/// Refuses interfaces that are devices of our own, by their names or patterns: these are never watched.
///
/// # Errors
/// The first such name or pattern.
fn refuse_own_devices(settings: &Settings) -> anyhow::Result<()> {
    let mirrored = settings.mirror.sessions().iter().map(|session| &session.interface);
    settings.live.watch.iter().chain(mirrored).try_for_each(|glob| refuse_own_device(glob.as_str()))
}

/// Refuses an interface that is a device of our own, by its name or pattern.
///
/// # Errors
/// If it is one.
pub(super) fn refuse_own_device(name: &str) -> anyhow::Result<()> {
    if is_ours(name) {
        bail!(
            "interface `{name}` is never watched: names that begin with `{OWN_PREFIX}` are those of flowtap's own devices; \
             give it another name"
        );
    }
    Ok(())
}

/// Why these settings ask for frames, which only the packet plane has.
pub(super) fn packets_only(settings: &Settings) -> Option<&'static str> {
    if settings.filter.is_some() {
        return Some("a filter expression is run over frames");
    }
    (settings.fragments == FragmentRule::Apart).then_some("the kernel joins fragments with their flow")
}

/// Where the run notes how far it has come.
fn state_directory(settings: &Settings) -> Option<PathBuf> {
    settings.live.state_directory.clone().or_else(|| match &settings.output.destination {
        Destination::Directory(root) => Some(root.clone()),
        Destination::File(_) | Destination::Stdout => None,
    })
}

/// The files that a run has to do with once it has begun: its records, its state, and what a reload reads.
pub(super) fn territory(config: Option<&Path>, settings: &Settings) -> Territory {
    let writable = output_directory(&settings.output.destination).into_iter().chain(state_directory(settings));
    let readable = config.into_iter().chain(settings.policy.as_deref()).map(folder).map(Path::to_owned);
    Territory { writable: writable.collect(), readable: readable.collect() }
}

/// The directory that must be writable for records to be published.
fn output_directory(destination: &Destination) -> Option<PathBuf> {
    match destination {
        Destination::Directory(root) => Some(root.clone()),
        Destination::File(path) if output::is_stream(path) => None,
        Destination::File(path) => Some(folder(path).to_owned()),
        Destination::Stdout => None,
    }
}

/// The directory that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a directory that is not there, as the user that will write into it. One that is there keeps its owner.
fn make_directory(directory: &Path, user: Option<&User>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    match user.map(User::ids) {
        Some((uid, gid)) => chown(directory, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn workers_default() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(WORKERS_DEFAULT_MAX)
}

/// More threads than this only watch each other where frames come from libpcap.
const WORKERS_DEFAULT_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);
