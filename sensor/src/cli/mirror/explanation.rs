//! What there is to tell about one packet, for people and for programs.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use flowtap::classify::Classifier;
use flowtap::config::Settings;
use flowtap::config::glob::Glob;
use flowtap::mirror::explain::{Answer, explain};
use flowtap::mirror::{Decider, Mode, OwnOutput, Probe, Rule, RuleNumber, Session, Vni};
use serde_json::{Value, json};

use super::{ExplainArgs, probe};
use crate::cli::mirrored::HostIdentity;
use crate::cli::run::refuse_own_device;

/// What there is to tell about one packet.
pub(super) struct Explanation<'a> {
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
    /// What `settings` say of the packet that was asked about, on the host that is so identified.
    ///
    /// # Errors
    /// When the question makes no sense.
    pub(super) fn new(args: &'a ExplainArgs, settings: &'a Settings, host: HostIdentity) -> anyhow::Result<Self> {
        let mirror = &settings.mirror;
        if mirror.sessions().is_empty() {
            bail!("{}: there is no [[mirror.session]]", args.config.display());
        }
        let interface = match &args.interface {
            Some(name) => name.as_str(),
            None => only_interface(mirror.sessions()).context("say which interface with --interface")?,
        };
        refuse_own_device(interface)?;
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

    /// For people.
    pub(super) fn text(&self) -> String {
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

    /// For programs.
    pub(super) fn json(&self) -> Value {
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
