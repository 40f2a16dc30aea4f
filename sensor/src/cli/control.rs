//! `flowtap status` and `flowtap reload`: questions to a run over its control socket.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use flowtap::daemon::control::{Request, SOCKET_DEFAULT, ask};
use serde_json::Value;

use super::answer;

/// Ask a run how it is going
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One line of JSON, for programs
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    socket: SocketArgs,
}

/// Tell a run to read its configuration again
///
/// The new configuration holds from the end of the interval on. One that is wrong changes nothing.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Debug, Args)]
struct SocketArgs {
    /// Where the run is reached
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    control_socket: PathBuf,
}

impl SocketArgs {
    fn ask(&self, request: Request) -> anyhow::Result<Value> {
        let reply = ask(&self.control_socket, request)?;
        if reply["ok"] != true {
            bail!("{}", reply["error"].as_str().unwrap_or("the run answered nothing that is understood here"));
        }
        Ok(reply)
    }
}

/// Prints how a run is going.
///
/// # Errors
/// When no run answers.
pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = args.socket.ask(Request::Status)?;
    if args.json {
        answer(&status.to_string());
    } else {
        let mut text = String::new();
        outline(&mut text, "", &status);
        answer(&text);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a run read its configuration again.
///
/// # Errors
/// When no run answers, or the configuration is wrong.
pub(super) fn reload(args: &ReloadArgs) -> anyhow::Result<ExitCode> {
    let reply = args.socket.ask(Request::Reload)?;
    answer(&format!("the new configuration holds from {} on (Unix seconds)", reply["from"]));
    Ok(ExitCode::SUCCESS)
}

/// The same answer for people: a line for each value, those within each other with dots between their names.
fn outline(text: &mut String, name: &str, value: &Value) {
    let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| outline(text, &inner(key), member)),
        Value::Array(elements) => {
            for element in elements {
                let key = element["name"].as_str().unwrap_or("-");
                let members = element.as_object().into_iter().flatten().filter(|(member, _)| *member != "name");
                members.for_each(|(member, value)| outline(text, &inner(&format!("{key}.{member}")), value));
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Null => {
            // Writing to a string cannot fail.
            writeln!(text, "{name:<40} {value}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outline_has_a_line_for_each_value() {
        let mut text = String::new();
        outline(&mut text, "", &json!({ "rows": { "late": 2 }, "interfaces": [{ "name": "eth0", "drops": 1 }] }));
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["interfaces.eth0.drops", "1"], ["rows.late", "2"]]);
    }
}
