//! Walks our own tree for what a reader would trip over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowtap_tests::program::command;
use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, root};

/// Every file under version control whose name ends so, with its path and text. `None`, and a word about it, where
/// there is no such control, as in an unpacked archive.
fn files(suffix: &str) -> Option<Vec<(String, String)>> {
    let mut list = command(Path::new("git"));
    list.args(["-C", root().to_str().unwrap(), "ls-files", "-z"]);
    let run = Dir::new().run(&mut list);
    if run.code != Some(0) {
        skip("this is no git tree");
        return None;
    }
    let paths = run.success();
    let paths = paths.split_terminator('\0').filter(|path| path.ends_with(suffix));
    // A file that is deleted and not yet committed is still listed.
    let text = |path: &str| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?));
    Some(paths.filter_map(text).collect())
}

/// Lines of `files` that `is_bad` finds fault with.
fn faults<'a>(files: &'a [(String, String)], is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let lines =
        |(path, text): &'a (String, String)| text.lines().enumerate().map(move |(at, line)| (path, at + 1, line));
    let bad = files.iter().flat_map(lines).filter(|(.., line)| is_bad(line));
    bad.map(|(path, number, line)| format!("{path}:{number}: {}", line.trim())).collect()
}

#[test]
fn every_module_says_what_it_is() {
    let Some(sources) = files(".rs") else { return };
    let silent: Vec<_> = sources.iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "no opening comment: {silent:#?}");
    assert!(sources.len() > 100);
}

#[test]
fn nothing_is_left_undone() {
    let Some(sources) = files("") else { return };
    // Put together here, so that this file does not find itself.
    let leftovers =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("dbg", "!("), concat!("to", "do!(")];
    let has_word = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let is_letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
            !is_letter(before) && (word.ends_with('(') || !is_letter(after))
        })
    };
    let found = faults(&sources, |line| leftovers.iter().any(|word| has_word(line, word)));
    assert!(found.is_empty(), "{found:#?}");
}

/// House rule: unsafe code lives in one module, and in the program for the kernel.
#[test]
fn unsafe_code_stays_in_its_place() {
    let Some(sources) = files(".rs") else { return };
    let is_elsewhere = |path: &str| !path.starts_with("sensor/src/sys") && !path.starts_with("ebpf/");
    let elsewhere: Vec<_> = sources.into_iter().filter(|(path, _)| is_elsewhere(path)).collect();
    let keyword = concat!("un", "safe");
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["{", "fn", "impl", "extern", "trait"].iter().any(|next| code.contains(&format!("{keyword} {next}")))
    };
    let found = faults(&elsewhere, is_unsafe);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_file_is_too_long_to_read() {
    let Some(sources) = files(".rs") else { return };
    let long: Vec<_> = sources
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

const FILE_LINES_MAX: usize = 800;

#[test]
fn every_capture_has_its_story_and_its_table() {
    let stories = fs::read_to_string(root().join("pcaps/README.md")).unwrap();
    let Some(listed) = files("").or_else(|| Some(Vec::new())) else { return };
    let tables: BTreeSet<String> = listed
        .into_iter()
        .filter_map(|(path, _)| Some(path.strip_prefix("pcaps/expected/")?.strip_suffix(".tsv")?.to_owned()))
        .collect();
    let mut captures = BTreeSet::new();
    for entry in fs::read_dir(root().join("pcaps")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some((stem, "pcap" | "pcapng" | "bin")) = name.split_once('.') else { continue };
        assert!(stories.contains(&format!("| `{name}` |")), "{name} has no line in pcaps/README.md");
        captures.insert(stem.to_owned());
    }
    assert!(tables.is_empty() || tables == captures, "captures {captures:?} but tables {tables:?}");
}

/// The words that the page for newcomers tells them to type.
#[test]
fn every_make_word_that_is_named_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let Some(pages) = files(".md") else { return };
    let mut named = BTreeSet::new();
    for (_, text) in &pages {
        let words = text.match_indices("make ").filter(|(at, _)| text[..*at].ends_with(['`', '\n']));
        let word = |(at, start): (usize, &str)| {
            let rest = &text[at + start.len()..];
            rest[..rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len())].to_owned()
        };
        named.extend(words.map(word));
    }
    for word in &named {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{word}:"))), "`make {word}` is no target");
    }
    assert!(named.contains("demo") && named.contains("test"), "{named:?}");
}

/// Versions 2 to 11 of the specification in its order, without version 6 (Transit Gateway), then our own.
#[test]
fn every_field_of_the_specification_is_there() {
    let specified = "\
        version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action \
        log-status \
        vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr \
        region az-id sublocation-type sublocation-id \
        pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path \
        ecs-cluster-arn ecs-cluster-name ecs-container-instance-arn ecs-container-instance-id ecs-container-id \
        ecs-second-container-id ecs-service-name ecs-task-definition-arn ecs-task-arn ecs-task-id \
        reject-reason resource-id encryption-status \
        instance-tag instance-tag-2 interface-tag interface-tag-2 asg-tag asg-tag-2 interface-type \
        next-hop-interface-id next-hop-subnet-id next-hop-az-id next-hop-vpc-id next-hop-interface-type";
    let own = "x-traffic-class x-drop-reason x-community-id x-tcp-flags-raw x-icmp-type x-icmp-code x-vlan x-ether-src \
               x-ether-dst x-first-ns x-last-ns x-interface";
    let header = |format: &str| {
        let dir = Dir::new();
        dir.add_capture("header-only.pcap");
        let log = dir.replay(&["header-only.pcap", "--format", format]).success();
        log.trim_end().split(' ').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let set = |names: &str| names.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(header("all"), set(specified));
    assert_eq!(header("full"), set(&format!("{specified} {own}")));

    let table = fs::read_to_string(root().join("flowlog/src/field.rs")).unwrap();
    for name in set(&format!("{specified} {own}")) {
        let row = format!(" \"{name}\" \"{}\" ", name.replace('-', "_"));
        assert!(table.contains(&row), "{name} is not in flowlog/src/field.rs");
    }
}
