//! Mirror tables as the file that would make them: every default written out.

use std::time::Duration;

use toml::{Table, Value};

use crate::capture::Direction;
use crate::mirror::{Filter, HealthCheck, Mirror, Question, Rule, Session, Target, Vni};

/// The `mirror` table; `None` where nothing is configured. VNIs that are not configured are those of the host that is so
/// identified.
pub(in crate::config) fn effective(mirror: &Mirror, identity: &str) -> Option<Table> {
    let sessions = mirror.sessions().iter().zip(mirror.vnis(identity));
    let lists = [
        ("target", tables(mirror.targets().iter().map(target))),
        ("filter", tables(mirror.filters().iter().map(|each| filter(each)))),
        ("session", tables(sessions.map(|(each, vni)| session(mirror, each, vni)))),
    ];
    let given = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let table: Table = given.map(|(key, list)| (key.to_owned(), Value::Array(list))).collect();
    (!table.is_empty()).then_some(table)
}

fn tables(tables: impl Iterator<Item = Table>) -> Vec<Value> {
    tables.map(Value::Table).collect()
}

/// A table of the keys that have a value.
fn table<const N: usize>(entries: [(&str, Option<Value>); N]) -> Table {
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn text(value: &impl ToString) -> Option<Value> {
    Some(value.to_string().into())
}

fn number(value: impl Into<i64>) -> Option<Value> {
    Some(Value::Integer(value.into()))
}

fn secs(time: Duration) -> Option<Value> {
    Some(format!("{}s", time.as_secs()).into())
}

fn target(target: &Target) -> Table {
    table([
        ("name", text(&target.name)),
        ("address", text(&target.address)),
        ("port", number(target.port.get())),
        ("encapsulation", text(&target.encapsulation.as_str())),
        ("weight", number(target.weight.number().get())),
        ("health-check", target.health_check.as_ref().map(|check| Value::Table(health_check(check)))),
    ])
}

fn health_check(check: &HealthCheck) -> Table {
    let (protocol, path) = match &check.question {
        Question::Tcp => ("tcp", None),
        Question::Http(path) => ("http", text(&path.as_str())),
    };
    table([
        ("protocol", text(&protocol)),
        ("port", number(check.port.get())),
        ("path", path),
        ("interval", secs(check.interval)),
        ("timeout", secs(check.timeout)),
        ("healthy-threshold", number(check.healthy_threshold.count())),
        ("unhealthy-threshold", number(check.unhealthy_threshold.count())),
    ])
}

fn filter(filter: &Filter) -> Table {
    let of = |direction, word| filter.rules(direction).iter().map(move |each| rule(each, word));
    let rules = tables(of(Direction::Ingress, "ingress").chain(of(Direction::Egress, "egress")));
    table([("name", text(&filter.name())), ("rules", Some(Value::Array(rules)))])
}

fn rule(rule: &Rule, direction: &str) -> Table {
    let criteria = rule.criteria();
    table([
        ("direction", text(&direction)),
        ("number", number(rule.number().number())),
        ("action", text(&rule.action().as_str())),
        ("protocol", text(&criteria.protocol)),
        ("source", criteria.source.as_ref().and_then(text)),
        ("destination", criteria.destination.as_ref().and_then(text)),
        ("source-ports", criteria.source_ports.as_ref().and_then(text)),
        ("destination-ports", criteria.destination_ports.as_ref().and_then(text)),
        ("service", criteria.service.and_then(|service| text(&service.as_str()))),
        ("verdict", criteria.verdict.and_then(|verdict| text(&verdict.as_str()))),
        ("description", rule.description().map(Value::from)),
    ])
}

fn session(mirror: &Mirror, session: &Session, vni: Vni) -> Table {
    let targets: Vec<String> = mirror.targets_of(session).map(|(_, target)| target.name.clone()).collect();
    table([
        ("number", number(session.number.number())),
        ("interface", text(&session.interface.as_str())),
        ("filter", text(&session.filter.name())),
        ("targets", Some(targets.into())),
        ("mode", text(&session.mode.as_str())),
        ("vni", number(vni.number())),
        ("packet-length", session.packet_length.and_then(|length| number(length.bytes()))),
        ("too-big", text(&session.too_big.as_str())),
        ("offload", text(&session.offload.as_str())),
        ("packets-per-second-max", text(&session.rate.packets)),
        ("bits-per-second-max", text(&session.rate.bits)),
        ("description", session.description.as_deref().map(Value::from)),
    ])
}
