//! `flowtap mirror`: what a configuration mirrors.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use flowtap::capture::Direction;
use flowtap::classify::Classifier;
use flowtap::config::glob::Glob;
use flowtap::config::{Flags, Protocol, Settings};
use flowtap::mirror::explain::{Answer, explain};
use flowtap::mirror::{Decider, Mode, OwnOutput, Point, Probe, Rule, RuleNumber, Session, Vni};
use flowtap::packet::{Addresses, Fragment};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use serde_json::{Value, json};

use super::{answer, mirrored::HostIdentity, record};

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

/// What there is to tell about one packet.
struct Explanation<'a> {
    args: &'a ExplainArgs,
    settings: &'a Settings,
    interface: &'a str,
    probe: Probe,
    own_output: OwnOutput,
    answers: Vec<(&'a Session, Answer)>,
    host: HostIdentity,
    /// Of each session, in the order of the configuration.
    vnis: Vec<Vni>,
}

impl<'a> Explanation<'a> {
    fn new(args: &'a ExplainArgs, settings: &'a Settings, host: HostIdentity) -> anyhow::Result<Self> {
        let mirror = &settings.mirror;
        if mirror.sessions().is_empty() {
            bail!("{}: there is no [[mirror.session]]", args.config.display());
        }
        let interface = match &args.interface {
            Some(name) => name.as_str(),
            None => only_interface(mirror.sessions()).context("say which interface with --interface")?,
        };
        let known = settings.interface(interface);
        let probe = probe(args, &Classifier::new(&known.vpc_cidrs, &known.subnet_cidrs))?;
        let decider = Decider::new(mirror, interface).with_context(|| interface.to_owned())?;
        let answers = explain(mirror, &decider, interface, &probe);
        let (own_output, vnis) = (mirror.own_output(&probe), mirror.vnis(&host.text));
        Ok(Self { args, settings, interface, probe, own_output, answers, host, vnis })
    }

    /// Session and rule that mirror the packet.
    fn taken(&self) -> Option<(&Session, RuleNumber)> {
        self.answers.iter().find_map(|(session, answer)| match answer {
            Answer::Accepted(rule) if self.own_output != OwnOutput::Yes => Some((*session, *rule)),
            _ => None,
        })
    }

    fn vni(&self, session: &Session) -> Option<Vni> {
        let mut with_vni = self.settings.mirror.sessions().iter().zip(&self.vnis);
        with_vni.find(|(known, _)| std::ptr::eq(*known, session)).map(|(_, vni)| *vni)
    }

    /// Whether a run watches the interface because of the file.
    fn is_watched(&self) -> bool {
        self.settings.live.watch.iter().any(|glob| glob.matches(self.interface))
    }

    fn class(&self) -> Option<&'static str> {
        self.probe.class.map(flowlog::record::TrafficClass::as_str)
    }

    fn rule(&self, session: &'a Session, number: RuleNumber) -> Option<&'a Rule> {
        session.filter.rules(self.probe.direction).iter().find(|rule| rule.number() == number)
    }

    fn text(&self) -> String {
        let mut lines = String::new();
        let mut line = |text: String| {
            // Writing to a string cannot fail.
            writeln!(lines, "{text}").ok();
        };
        let ExplainArgs { protocol, source, destination, direction, .. } = self.args;
        let class = self.class().map_or_else(String::new, |class| format!(", traffic class {class}"));
        let point = if self.args.rejected { ", dropped by the kernel" } else { "" };
        line(format!("{} {protocol} {source} > {destination} on {}{class}{point}", direction.as_str(), self.interface));
        for (session, answer) in &self.answers {
            line(format!("session {:<5} {}", session.number, self.sentence(session, *answer)));
        }
        match self.taken() {
            Some((session, rule)) => {
                let number = session.number;
                let (vni, targets) = (self.vni_words(session), self.targets(session));
                line(format!("mirrored by session {number}, rule {rule}, {vni}to {targets}"));
                match self.own_output {
                    OwnOutput::No | OwnOutput::Yes => {}
                    OwnOutput::IfItHoldsACopy => {
                        line("unless a tunnel's packet is in it: a copy of a copy is never mirrored".to_owned());
                    }
                    OwnOutput::IfItQuotesACopy => {
                        line("unless it is an error about a copy, which is never mirrored".to_owned());
                    }
                }
                if !self.is_watched() {
                    line(format!(
                        "but a run watches {0} only if `--interface` names it: no [[interface]] matches it",
                        self.interface
                    ));
                }
            }
            None if self.own_output == OwnOutput::Yes => {
                line(
                    "not mirrored: one end is a target and one port a tunnel's, so it is a copy, or an answer to one"
                        .to_owned(),
                );
            }
            None => line("not mirrored".to_owned()),
        }
        lines
    }

    fn sentence(&self, session: &'a Session, answer: Answer) -> String {
        let direction = self.args.direction.as_str();
        let filter = session.filter.name();
        let rule = |number| {
            let Some(rule) = self.rule(session, number) else { return String::new() };
            let description = rule.description().map_or_else(String::new, |text| format!(" ({text})"));
            format!("{direction} rule {number} of filter `{filter}`: {rule}{description}")
        };
        match answer {
            Answer::OtherInterface => {
                let is_watched = self.settings.live.watch.iter().any(|glob| glob.overlaps(&session.interface));
                let unwatched = if is_watched { "" } else { ", and no [[interface]] does" };
                format!("is for interfaces that match `{}`{unwatched}", session.interface.as_str())
            }
            Answer::Rejected(number) => format!("rejects it by {}", rule(number)),
            Answer::NoRule => format!("has no {direction} rule for it in filter `{filter}`"),
            Answer::Accepted(number) => format!("accepts it by {}", rule(number)),
            Answer::NotAsked => "is not asked".to_owned(),
        }
    }

    fn vni_words(&self, session: &Session) -> String {
        let source = if session.vni.is_some() { String::new() } else { format!(" (derived from {})", self.host.from) };
        self.vni(session).map_or_else(String::new, |vni| format!("with VNI {vni}{source}, "))
    }

    fn targets(&self, session: &Session) -> String {
        let named = self.settings.mirror.targets_of(session).map(|(_, target)| {
            format!(
                "{} ({}, {})",
                target.name,
                SocketAddr::new(target.address, target.port.get()),
                target.encapsulation.as_str()
            )
        });
        let named: Vec<String> = named.collect();
        match (session.mode, &named[..]) {
            (Mode::Balance, [_, _, ..]) => format!("one of {}", named.join(", ")),
            _ => named.join(", "),
        }
    }

    fn json(&self) -> Value {
        let sessions = self.answers.iter().map(|(session, answer)| {
            let (word, rule) = match answer {
                Answer::OtherInterface => ("other-interface", None),
                Answer::Rejected(rule) => ("rejected", Some(rule.number())),
                Answer::NoRule => ("no-rule", None),
                Answer::Accepted(rule) => ("accepted", Some(rule.number())),
                Answer::NotAsked => ("not-asked", None),
            };
            json!({
                "session": session.number.number(),
                "interface": session.interface.as_str(),
                "filter": session.filter.name(),
                "answer": word,
                "rule": rule,
            })
        });
        let taken = self.taken();
        let targets = taken.map_or_else(Vec::new, |(session, _)| {
            self.settings.mirror.targets_of(session).map(|(_, target)| target.name.as_str()).collect()
        });
        json!({
            "interface": self.interface,
            "direction": self.args.direction.as_str(),
            "traffic-class": self.class(),
            "own-output": self.own_output == OwnOutput::Yes,
            "unless": match self.own_output {
                OwnOutput::IfItHoldsACopy => Some("it-holds-a-copy"),
                OwnOutput::IfItQuotesACopy => Some("it-quotes-a-copy"),
                OwnOutput::No | OwnOutput::Yes => None,
            },
            "watched": self.is_watched(),
            "mirrored": taken.is_some(),
            "session": taken.map(|(session, _)| session.number.number()),
            "rule": taken.map(|(_, rule)| rule.number()),
            "vni": taken.and_then(|(session, _)| self.vni(session)).map(Vni::number),
            "vni-derived": taken.is_some_and(|(session, _)| session.vni.is_none()),
            "targets": targets,
            "sessions": sessions.collect::<Vec<_>>(),
        })
    }
}

/// The interface that every session spells out.
fn only_interface(sessions: &[Session]) -> Option<&str> {
    let mut names = sessions.iter().map(|session| Glob::as_literal(&session.interface));
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
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
