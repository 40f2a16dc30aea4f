//! The service's questions, answered by a server on loopback that insists on the token.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::config::{Flags, Settings};

const ETH0: [u8; 6] = [0x02, 0x29, 0x96, 0x8f, 0x6a, 0x2d];
const ETH1: [u8; 6] = [0x02, 0x29, 0x96, 0x8f, 0x6a, 0x2e];

/// Pages of an instance with two interfaces, of which the second has no IPv6.
fn pages() -> BTreeMap<&'static str, &'static str> {
    let document = r#"{"accountId":"123456789012","architecture":"x86_64","availabilityZone":"eu-west-1b",
        "imageId":"ami-1","instanceId":"i-0abc","instanceType":"m5.large","privateIp":"10.0.1.5","region":"eu-west-1"}"#;
    BTreeMap::from([
        ("dynamic/instance-identity/document", document),
        ("meta-data/placement/availability-zone-id", "euw1-az2"),
        ("meta-data/network/interfaces/macs/", "02:29:96:8f:6a:2d/\n02:29:96:8f:6a:2e/\n02:29:96:8f:6a:2f/"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/interface-id", "eni-0"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/subnet-id", "subnet-0"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/vpc-id", "vpc-0"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/subnet-ipv4-cidr-block", "10.0.1.0/24"),
        (
            "meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/subnet-ipv6-cidr-blocks",
            "2001:db8:0:1::/64\n2001:db8:0:2::/64",
        ),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2e/interface-id", "eni-1"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2e/subnet-id", "subnet-1"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2e/vpc-id", "vpc-0"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2e/vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("meta-data/network/interfaces/macs/02:29:96:8f:6a:2e/subnet-ipv4-cidr-block", "10.0.2.0/24"),
    ])
}

/// Serves `pages` for as long as the test lives, and gives the endpoint.
fn serve(pages: BTreeMap<&'static str, &'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &pages);
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, pages: &BTreeMap<&str, &str>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let has = |header: &str| headers.iter().any(|found| found == header);
    let (status, body) = match request.split(' ').collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token", _] if has("x-aws-ec2-metadata-token-ttl-seconds: 60") => ("200 OK", "VE9LRU4="),
        ["PUT", ..] => ("400 Bad Request", ""),
        ["GET", _, _] if !has("x-aws-ec2-metadata-token: ve9lru4=") => ("401 Unauthorized", ""),
        ["GET", path, _] => match path.strip_prefix("/latest/").and_then(|path| pages.get(path)) {
            Some(page) => ("200 OK", *page),
            None => ("404 Not Found", "<html>no such page</html>"),
        },
        _ => ("405 Method Not Allowed", ""),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
}

/// Asks for `hosts` by a clock of its own: each look at it takes so long. The service's thread has the time that this
/// clock leaves to answer; a busy machine may not let it, and then it is asked again.
fn ask_punctual(pages: BTreeMap<&'static str, &'static str>, hosts: &[Hardware], secs_per_look: u64) -> Answers {
    let endpoint = serve(pages);
    let mut attempts = (0..ATTEMPTS_MAX).map(|_| {
        let secs = AtomicU64::new(0);
        let now = || Timestamp(secs.fetch_add(secs_per_look, Ordering::Relaxed) * crate::time::NANOS_PER_SEC);
        ask(&endpoint, hosts, &now)
    });
    let is_late = |missing: &String| missing.contains("timeout");
    attempts.find(|answers| !answers.missing.iter().any(is_late)).unwrap_or_else(|| panic!("it is always late"))
}

const ATTEMPTS_MAX: u32 = 10;

fn hosts() -> Vec<Hardware> {
    vec![("eth0".to_owned(), ETH0), ("eth1".to_owned(), ETH1), ("br0".to_owned(), ETH1), ("eth9".to_owned(), [9; 6])]
}

fn learned(answers: &Answers) -> Settings {
    let mut settings = Settings::new(None, Flags::default()).unwrap();
    settings.learn(&answers.facts);
    settings
}

#[test]
fn everything_is_asked_for_with_the_token() {
    let answers = ask_punctual(pages(), &hosts(), 0);
    assert_eq!(answers.missing, [""; 0]);
    let settings = learned(&answers);
    let fields = |name: &str| {
        let known = settings.interface(name).metadata;
        let keys = ["account-id", "region", "instance-id", "az-id", "interface-id", "subnet-id", "vpc-id"];
        keys.map(|key| known.get(key).cloned().unwrap_or_default()).join(" ")
    };
    assert_eq!(fields("eth0"), "123456789012 eu-west-1 i-0abc euw1-az2 eni-0 subnet-0 vpc-0");
    assert_eq!(fields("eth1"), "123456789012 eu-west-1 i-0abc euw1-az2 eni-1 subnet-1 vpc-0");
    assert_eq!(fields("br0"), fields("eth1"), "the bridge has its port's address");
    assert_eq!(fields("eth9"), "123456789012 eu-west-1 i-0abc euw1-az2 eth9  ");
    let (eth0, eth1) = (settings.interface("eth0"), settings.interface("eth1"));
    assert_eq!(eth0.vpc_cidrs, ["10.0.0.0/16".parse().unwrap()]);
    let blocks = ["10.0.1.0/24", "2001:db8:0:1::/64", "2001:db8:0:2::/64"];
    assert_eq!(eth0.subnet_cidrs, blocks.map(|block| block.parse().unwrap()));
    assert_eq!(eth1.subnet_cidrs, ["10.0.2.0/24".parse().unwrap()]);
}

#[test]
fn what_is_missing_or_means_nothing_is_named() {
    let mut pages = pages();
    pages.remove("meta-data/placement/availability-zone-id");
    pages.insert("meta-data/network/interfaces/macs/02:29:96:8f:6a:2d/vpc-ipv4-cidr-block", "everywhere");
    pages.insert("dynamic/instance-identity/document", "<html>");
    let answers = ask_punctual(pages, &hosts()[..1], 0);
    let [document, zone, block] = &answers.missing[..] else { panic!("{:?}", answers.missing) };
    assert!(document.starts_with("account-id, region, instance-id (not understood: "), "{document}");
    assert_eq!(zone, "az-id (there is none)");
    assert!(block.starts_with("vpc-cidr of eth0 (`everywhere` is not"), "{block}");
    assert_eq!(learned(&answers).interface("eth0").metadata["subnet-id"], "subnet-0", "the rest is there");
}

#[test]
fn without_a_service_everything_is_missing() {
    // A port that nobody is given who asks for any, as other tests do.
    let answers = ask("http://127.0.0.1:1", &hosts(), &|| Timestamp(0));
    assert_eq!(answers.facts, InstanceFacts::default());
    assert!(answers.missing.len() == 1 && answers.missing[0].starts_with("everything ("), "{:?}", answers.missing);
}

#[test]
fn the_time_for_all_questions_is_bounded() {
    let answers = ask_punctual(pages(), &hosts(), 1);
    // The token after one second, the document after two; three seconds are over.
    assert_eq!(answers.missing, ["az-id (not within 3 s)", "interfaces (not within 3 s)"]);
}

#[test]
fn a_service_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Two of the three seconds have passed at the second look.
    let secs = AtomicU64::new(0);
    let now = || Timestamp(secs.fetch_add(2, Ordering::Relaxed) * crate::time::NANOS_PER_SEC);
    let answers = ask(&endpoint, &hosts(), &now);
    assert!(answers.missing[0].contains("timeout"), "{:?}", answers.missing);
}

#[test]
fn hardware_addresses_are_six_bytes() {
    assert_eq!(hardware_address("02:29:96:8f:6a:2d"), Some(ETH0));
    for text in ["", "02:29:96:8f:6a", "02:29:96:8f:6a:2d:00", "02:29:96:8f:6a:xx", "../../../.."] {
        assert_eq!(hardware_address(text), None, "{text}");
    }
    assert!(hardware().unwrap().iter().all(|(name, address)| name != "lo" && *address != [0; 6]));
}
