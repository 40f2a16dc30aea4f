//! Manual pages and completions: well formed, and complete.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use flowtap_tests::program::command;
use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, root};

/// The commands that people type.
const COMMANDS: [&str; 7] = ["mirror", "replay", "run", "check", "status", "reload", "completions"];

/// Formats a page and gives its text, after what groff finds fault with.
fn format(page: &Path) -> Option<String> {
    let mut groff = command(Path::new("groff"));
    groff.args(["-man", "-Tascii", "-ww", "-P-c", "-rLL=200n", "-rHY=0"]).arg(page);
    match groff.stdin(Stdio::null()).output() {
        Err(_) => {
            skip("groff is not installed");
            None
        }
        Ok(output) => {
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", page.display());
            // Bold letters are struck over themselves.
            let text = String::from_utf8(output.stdout).unwrap();
            Some(without_overstrike(&text))
        }
    }
}

fn without_overstrike(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '\u{8}' => plain.truncate(plain.len().saturating_sub(1)),
            _ => plain.push(c),
        }
    }
    plain
}

#[test]
fn every_command_has_a_manual_page_with_its_options() {
    let dir = Dir::new();
    dir.flowtap(&["man", "pages/man1"]).success();
    let mut expected: Vec<String> = COMMANDS.iter().map(|name| format!("pages/man1/flowtap-{name}.1")).collect();
    expected.extend(["pages/man1/flowtap.1", "pages/man1/flowtap-mirror-explain.1"].map(str::to_owned));
    expected.sort();
    assert_eq!(dir.files(), expected);
    for page in &expected {
        format(&dir.path(page));
    }
    let Some(run) = format(&dir.path("pages/man1/flowtap-run.1")) else { return };
    let help = dir.flowtap(&["run", "--help"]).success();
    let options: Vec<_> = help.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 20, "{help}");
    for option in options {
        assert!(run.contains(option.trim_end_matches([',', '.', ')'])), "{option} is not in flowtap-run(1)");
    }
    assert!(run.contains("SIGHUP"), "what it says at length");
}

/// The program names all its keys when it meets one that is like none of them.
#[test]
fn every_key_of_the_configuration_is_in_its_manual_page() {
    let page = root().join("packaging/man/flowtap.toml.5");
    let source = fs::read_to_string(&page).unwrap().replace("\\-", "-");
    format(&page);
    let dir = Dir::new();
    let mut keys = 0;
    for (text, heading) in TABLES {
        dir.add("flowtap.toml", text);
        let refusal = dir.flowtap(&["check", "flowtap.toml"]).failure(2);
        let (_, known) = refusal.split_once("known here: ").unwrap_or_else(|| panic!("{refusal}"));
        let part = part(&source, heading);
        for key in known.trim().trim_matches('`').split("`, `") {
            let is_word_of = |line: &str| line.split([' ', ',']).skip(1).any(|word| word == key);
            let is_there = part.iter().any(|line| line.starts_with(".B") && is_word_of(line));
            // Tables have headings.
            let has_heading =
                source.lines().any(|line| line == format!(".SH [{key}]") || line == format!(".SH [[{key}]]"));
            assert!(is_there || has_heading, "`{key}` is not in {heading} of flowtap.toml(5)");
            keys += 1;
        }
    }
    assert!(keys > 90, "{keys}");
}

/// A key that is none in each table, and the part of the manual page that has its keys.
const TABLES: [(&str, &str); 11] = [
    ("qqqqqqqq = 1", ".SH HEAD OF THE FILE"),
    ("[[interface]]\nname = 'x'\nqqqqqqqq = 1", ".SH [[interface]]"),
    ("[kernel]\nqqqqqqqq = 1", ".SH [kernel]"),
    ("[flow-log]\nqqqqqqqq = 1", ".SH [flow-log]"),
    ("[[output]]\nqqqqqqqq = 1", ".SH [[output]]"),
    ("[mirror]\nqqqqqqqq = 1", ".SH MIRRORING"),
    ("[[mirror.target]]\nqqqqqqqq = 1", ".SH [[mirror.target]]"),
    ("[[mirror.target]]\nhealth-check = { qqqqqqqq = 1 }", ".SS Keys of health-check"),
    ("[[mirror.filter]]\nqqqqqqqq = 1", ".SH [[mirror.filter]]"),
    ("[[mirror.filter]]\nrules = [{ qqqqqqqq = 1 }]", ".SS Keys of rules"),
    ("[[mirror.session]]\nqqqqqqqq = 1", ".SH [[mirror.session]]"),
];

/// The lines beneath a heading.
fn part<'p>(page: &'p str, heading: &str) -> Vec<&'p str> {
    let mut below = page.lines().skip_while(|line| *line != heading);
    assert!(below.next().is_some(), "flowtap.toml(5) has no {heading}");
    below.take_while(|line| !line.starts_with(".SH ") && !line.starts_with(".SS ")).collect()
}

#[test]
fn completions_are_scripts_that_name_every_command() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = dir.flowtap(&["completions", shell]).success();
        for name in COMMANDS {
            assert!(script.contains(name), "{shell} does not know {name}");
        }
        let file = format!("flowtap.{shell}");
        dir.add(&file, &script);
        if command(Path::new(shell)).arg("--version").output().is_err() {
            skip(&format!("{shell} is not installed"));
            continue;
        }
        dir.run(command(Path::new(shell)).args(["-n", &file])).success();
    }
}
