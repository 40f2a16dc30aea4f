//! `flowtap mirror`: what a configuration mirrors.

mod explanation;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use flowtap::capture::Direction;
use flowtap::classify::Classifier;
use flowtap::config::{Flags, Protocol, Settings};
use flowtap::mirror::{Point, Probe};
use flowtap::packet::{Addresses, Fragment};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::mirrored::HostIdentity;
use super::{answer, record};
use explanation::Explanation;

/// Ask about traffic mirroring
#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    #[command(subcommand)]
    command: MirrorCommand,
}

#[derive(Debug, Subcommand)]
enum MirrorCommand {
    Explain(ExplainArgs),
}

/// Tell which session and rule would mirror a packet, and why
///
/// Every session of the configuration is listed in the order in which it is asked. Without ports, the packet is what a
/// later fragment is: only rules that ask for no ports match. A VNI that is not configured is the one that a run on this
/// host takes.
#[derive(Debug, Args)]
struct ExplainArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Protocol: a name like tcp, or a number
    #[arg(value_name = "PROTOCOL")]
    protocol: Protocol,

    /// Source address, with a port as in 10.0.0.1:40000 or [2001:db8::1]:40000
    #[arg(value_name = "SOURCE")]
    source: End,

    /// Destination address, likewise
    #[arg(value_name = "DESTINATION")]
    destination: End,

    /// From the interface's point of view
    #[arg(long)]
    direction: DirectionArg,

    /// The interface [default: the one that all sessions name]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,

    /// A packet that the kernel drops, seen where it is dropped
    #[arg(long)]
    rejected: bool,

    /// One line of JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionArg {
    Ingress,
    Egress,
}

impl DirectionArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl From<DirectionArg> for Direction {
    fn from(direction: DirectionArg) -> Self {
        match direction {
            DirectionArg::Ingress => Self::Ingress,
            DirectionArg::Egress => Self::Egress,
        }
    }
}

/// One end of a packet.
#[derive(Debug, Clone, Copy)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.parse().map(|address| Self { address, port: None });
        let with_port = || text.parse().map(|end: SocketAddr| Self { address: end.ip(), port: Some(end.port()) });
        bare.or_else(|_| with_port()).map_err(|_| {
            "write an address like `10.0.0.1` or `2001:db8::1`, with a port as in `10.0.0.1:443` or `[2001:db8::1]:443`"
                .to_owned()
        })
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// Answers a question about mirroring.
///
/// # Errors
/// When the configuration or the question is wrong.
pub(super) fn run(args: &MirrorArgs) -> anyhow::Result<ExitCode> {
    let MirrorCommand::Explain(args) = &args.command;
    let settings = Settings::new(Some(record::read_config(&args.config)?), Flags::default())?;
    let explanation = Explanation::new(args, &settings, HostIdentity::read())?;
    answer(&if args.json { explanation.json().to_string() } else { explanation.text() });
    Ok(ExitCode::SUCCESS)
}

/// The addresses of this host's interfaces.
///
/// # Errors
/// When the system does not tell.
pub(super) fn host_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let address = |storage: SockaddrStorage| -> Option<IpAddr> {
        let v4 = storage.as_sockaddr_in().map(|v4| v4.ip().into());
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    let interfaces = getifaddrs().context("this host's addresses")?;
    Ok(interfaces.filter_map(|interface| address(interface.address?)).collect())
}

fn probe(args: &ExplainArgs, classifier: &Classifier) -> anyhow::Result<Probe> {
    let ExplainArgs { protocol, source, destination, .. } = args;
    let Some(number) = protocol.number() else { bail!("a packet has one protocol, not `all`") };
    let addresses = match (source.address, destination.address) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.into(), dst: dst.into() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.into(), dst: dst.into() },
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("source and destination are of different versions of IP")
        }
    };
    let ports = match (source.port, destination.port) {
        (Some(source), Some(destination)) => Some((source, destination)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => bail!("give both ports or none"),
    };
    if ports.is_some() && !protocol.has_ports() {
        bail!("protocol {protocol} has no ports");
    }
    let (src_port, dst_port) = ports.unwrap_or_default();
    Ok(Probe {
        direction: args.direction.into(),
        addresses,
        protocol: number,
        ports,
        class: classifier.class(source.address, destination.address, src_port, dst_port, number),
        fragment: Fragment::None,
        point: if args.rejected { Point::Drop } else { Point::Tap },
    })
}
