//! The dashboard and the alert rules in `packaging/` speak of metrics that we tell, in words that Prometheus takes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::tests::known;
use super::text;

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(packaging("grafana/flowtap.json")).unwrap()).unwrap()
}

fn rules() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(packaging("prometheus/flowtap.rules.yml")).unwrap()).unwrap()
}

/// Every query under a key of this name, at any depth.
fn queries(value: &Value, key: &str) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let here = members.get(key).and_then(Value::as_str).map(str::to_owned);
            here.into_iter().chain(members.values().flat_map(|member| queries(member, key))).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(|element| queries(element, key)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The names of ours in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("flowtap_")).map(str::to_owned).collect()
}

/// The names that stand at the beginning of lines.
fn told() -> BTreeSet<String> {
    let text = text(&known());
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

#[test]
fn every_metric_in_a_query_is_told() {
    let told = told();
    let dashboard = dashboard();
    let variables = dashboard["templating"].clone();
    let mut asked = queries(&dashboard, "expr");
    asked.extend(queries(&variables, "definition"));
    asked.extend(queries(&rules(), "expr"));
    assert!(asked.len() > 30, "{asked:?}");
    for query in asked {
        let unknown: Vec<_> = names(&query).into_iter().filter(|name| !told.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {query}");
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_how_bad() {
    let rules = rules();
    let alerts = rules["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(alerts.len(), 7);
    for alert in alerts {
        assert!(alert["alert"].as_str().unwrap().starts_with("Flowtap"), "{alert}");
        assert!(["warning", "critical"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{alert}");
        assert!(alert["annotations"]["summary"].is_string() && alert["annotations"]["description"].is_string());
    }
}

#[test]
fn a_dashboard_can_be_imported() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one number: {panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        // Whatever a Prometheus is called where it is imported: the variable says which.
        let sources = queries(&panel["datasource"], "uid");
        assert!(sources.iter().all(|uid| uid == "${datasource}"), "{panel}");
        assert!(panel["type"] == "row" || !queries(panel, "expr").is_empty(), "{panel}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance"]);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = promtool() else {
        eprintln!("skipped: needs promtool (Debian: prometheus)");
        return;
    };
    let promtool = |arguments: &[&str], input: &str| {
        let mut command = Command::new(&promtool);
        command.args(arguments).current_dir(packaging("prometheus"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    };
    promtool(&["check", "metrics"], &text(&known()));
    promtool(&["check", "rules", "--lint-fatal", "flowtap.rules.yml"], "");
    promtool(&["test", "rules", "flowtap.rules.test.yml"], "");
    // The dashboard's queries, with the values that Grafana would put in, are sound if a rule could use them.
    let queries = queries(&dashboard(), "expr").into_iter().enumerate().map(|(number, query)| {
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "6h").replace("$instance", ".+");
        serde_json::json!({ "record": format!("panel:{number}"), "expr": query })
    });
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    let group = serde_json::json!({ "groups": [{ "name": "panels", "rules": queries.collect::<Vec<_>>() }] });
    fs::write(&file, group.to_string()).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

/// The system's, or the one that `make setup` has fetched.
fn promtool() -> Option<PathBuf> {
    let fetched = packaging("../.venv/bin/promtool");
    let candidates = [PathBuf::from("promtool"), fetched];
    let works =
        |tool: &PathBuf| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    candidates.into_iter().find(works)
}
