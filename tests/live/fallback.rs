//! Who counts, where that is left to the daemon: the kernel if it may, else libpcap, and the reason is told.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;

use super::daemon::{DATAGRAM_BYTES, Daemon, FORMAT, status, udp};
use super::net::{Net, has, namespaced};

/// Root, but for what it takes to load programs into the kernel.
fn without_bpf(net: &Net, arguments: &[&str]) -> Command {
    let program = flowtap();
    let setpriv = ["--bounding-set=-bpf,-sys_admin,-perfmon", "--inh-caps=-all", program.to_str().unwrap()];
    namespaced(&net.near, "setpriv", &[&setpriv, arguments].concat())
}

/// Whether the kernel gives no reasons for drops, as before 5.17.
fn is_too_old() -> bool {
    let types = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    !types.windows(NAME_OF_REASONS.len()).any(|bytes| bytes == NAME_OF_REASONS)
}

const NAME_OF_REASONS: &[u8] = b"skb_drop_reason\0";
const TOO_OLD: &str = "Linux 5.17";

#[test]
fn auto_is_the_kernel_where_it_may_and_libpcap_where_not() {
    let Some(net) = Net::new() else { return };
    if !has("setpriv", &["--version"]) {
        return;
    }
    let _listener = net.listener();
    let arguments = ["-i", "near0", "--interval", "60s", "--format", FORMAT];
    let (plane, reason) = if is_too_old() { ("pcap", TOO_OLD) } else { ("ebpf", "") };
    let programs: [(Command, &[&str], &str, &str); 3] = [
        (namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]), &[], plane, reason),
        (without_bpf(&net, &["run"]), &[], "pcap", if is_too_old() { TOO_OLD } else { "CAP_BPF" }),
        (
            namespaced(&net.near, flowtap().to_str().unwrap(), &["run"]),
            &["--filter", "udp"],
            "pcap",
            "a filter expression is run over frames",
        ),
    ];
    for (command, more, plane, reason) in programs {
        let dir = Dir::new();
        let daemon = Daemon::launch(command, &dir, dir.path("logs"), &[&arguments, more].concat());
        net.send(50, 0);
        sleep(Duration::from_millis(200));
        let capture = &status(&dir)["capture"];
        assert_eq!(capture["plane"], plane, "{capture}");
        let log = daemon.log();
        if plane == "pcap" {
            let why = capture["why"].as_str().unwrap_or_else(|| panic!("{capture}"));
            assert!(why.contains(reason), "{why}");
            let told: Vec<_> = log.lines().filter(|line| line.contains(why)).collect();
            let [told] = told[..] else { panic!("once:\n{log}") };
            assert!(told.contains(" WARN capture: libpcap"), "{told}");
        } else {
            assert!(log.contains("capture: the kernel counts"), "{log}");
        }
        assert_eq!(udp(&daemon.stop()), (50, 50 * DATAGRAM_BYTES), "{plane} {reason}");
    }
}

#[test]
fn the_kernel_plane_that_is_asked_for_and_cannot_be_had_is_refused() {
    let Some(net) = Net::new() else { return };
    if !has("setpriv", &["--version"]) {
        return;
    }
    let arguments =
        ["run", "--capture", "ebpf", "-i", "near0", "--output", "logs/", "--control-socket", "control.sock"];
    let dir = Dir::new();
    let refusal = dir.run(&mut without_bpf(&net, &arguments)).failure(2);
    let lines: Vec<_> = refusal.lines().filter(|line| !line.is_empty()).collect();
    let [line] = lines[..] else { panic!("one message: {refusal}") };
    assert!(
        line.contains("the kernel plane: ") && line.contains(if is_too_old() { TOO_OLD } else { "CAP_BPF" }),
        "{line}"
    );

    let mut filtered = namespaced(&net.near, flowtap().to_str().unwrap(), &arguments);
    let refusal = dir.run(filtered.args(["--filter", "udp"])).failure(2);
    assert!(refusal.contains("a filter expression is run over frames: that it can't do"), "{refusal}");
    assert!(dir.files().iter().all(|file| !file.ends_with(".log")), "{:?}", dir.files());
}
