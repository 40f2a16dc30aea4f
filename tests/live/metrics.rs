//! What a running daemon tells Prometheus is what it says of itself otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use flowtap_tests::Dir;
use flowtap_tests::program::flowtap;
use serde_json::Value;

use super::daemon::{DELIVERY_SECS_MAX, Daemon, ask, status, when_published};
use super::net::{Net, inside, namespaced};

/// The value of each line, by what stands before it.
fn metrics(dir: &Dir) -> BTreeMap<String, f64> {
    let mut stream = UnixStream::connect(dir.path("metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, text) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Status and metrics of one moment: nothing has changed from before to after.
fn at_once(dir: &Dir) -> (Value, BTreeMap<String, f64>) {
    let timeless = || {
        let mut status = status(dir);
        status["now"] = Value::Null;
        status
    };
    for _ in 0..20 {
        let (before, metrics, after) = (timeless(), metrics(dir), timeless());
        if before == after {
            return (after, metrics);
        }
        sleep(Duration::from_millis(50));
    }
    panic!("it never keeps still");
}

#[test]
fn metrics_and_status_agree_and_the_ledger_balances() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let daemon =
        Daemon::start(&net, &dir, &["-i", "near0", "-i", "lo", "--interval", "3s", "--metrics", "unix:metrics.sock"]);
    let _listener = net.listener();
    net.send(500, 0);
    // The far side's name is asked for again, which is no packet.
    inside(&net.near, "ip", &["neigh", "flush", "dev", "near0"]);
    inside(
        &net.near,
        "python3",
        &[
            "-c",
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
         s.sendto(b'x', ('10.9.0.2', 9))",
        ],
    );
    when_published(&dir);
    let (status, metrics) = at_once(&dir);
    let of = |name: &str| *metrics.get(name).unwrap_or_else(|| panic!("{name} is not in {metrics:#?}"));

    let sum = |family: &str| -> f64 {
        let lines = metrics.iter().filter(|(name, _)| name.starts_with(&format!("{family}{{")));
        lines.map(|(_, value)| value).sum()
    };
    assert!(of("flowtap_packets_counted_total") >= 501.0 && of("flowtap_intervals_total") >= 1.0, "{status}");
    assert!(of("flowtap_frames_not_counted_total{reason=\"arp\"}") >= 2.0, "{status}");
    let offered = of("flowtap_packets_counted_total") + sum("flowtap_frames_not_counted_total");
    assert_eq!(of("flowtap_frames_offered_total"), offered);
    let counted = of("flowtap_packets_in_rows_total") + sum("flowtap_packets_left_out_total");
    assert_eq!(of("flowtap_packets_counted_total"), counted + of("flowtap_packets_in_open_intervals"));
    assert_eq!(of("flowtap_frames_offered_total"), sum("flowtap_interface_frames_total"));
    assert_eq!(of("flowtap_ledger_balances"), 1.0);

    // Interfaces are told in the order in which they came.
    let place = |name: &str| {
        let watched = status["interfaces"].as_array().unwrap();
        watched.iter().position(|interface| interface["name"] == name).unwrap()
    };
    let (near, lo) = (place("near0"), place("lo"));
    let told = |path: &str| match status.pointer(path) {
        Some(Value::Number(number)) => number.as_f64().unwrap(),
        other => panic!("{path} is {other:?} in {status}"),
    };
    for (name, path) in [
        ("flowtap_frames_offered_total", "/frames/offered"),
        ("flowtap_frames_not_counted_total{reason=\"arp\"}", "/frames/not-counted/arp"),
        ("flowtap_packets_lost_total{reason=\"capture-buffer\"}", "/frames/lost/capture-buffer"),
        ("flowtap_packets_counted_total", "/packets/counted"),
        ("flowtap_packets_late_total", "/packets/late"),
        ("flowtap_packets_in_rows_total", "/packets/in-rows"),
        ("flowtap_packets_in_open_intervals", "/packets/in-open-intervals"),
        ("flowtap_rows_total{kind=\"reject\"}", "/rows/rejected"),
        ("flowtap_rows_total{kind=\"nodata\"}", "/rows/nodata"),
        ("flowtap_rows_total{kind=\"skipdata\"}", "/rows/skipdata"),
        ("flowtap_rows_late_total", "/rows/late"),
        ("flowtap_interface_frames_total{interface=\"near0\"}", &format!("/interfaces/{near}/frames")),
        ("flowtap_interface_packets_lost_total{interface=\"near0\"}", &format!("/interfaces/{near}/drops")),
        ("flowtap_interface_frames_total{interface=\"lo\"}", &format!("/interfaces/{lo}/frames")),
        ("flowtap_flow_table_flows_peak", "/flow-table/peak"),
        ("flowtap_flow_table_early_drains_total", "/flow-table/early-drains"),
        ("flowtap_policy_flows_unjudged_total", "/policy/unjudged"),
        ("flowtap_policy_flows_untracked_total", "/policy/untracked"),
        ("flowtap_policy_connections_evicted_total", "/policy/evicted"),
        ("flowtap_delivery_lag_seconds{quantile=\"0.5\"}", "/delivery-lag-secs/p50"),
        ("flowtap_delivery_lag_seconds{quantile=\"0.9\"}", "/delivery-lag-secs/p90"),
        ("flowtap_delivery_lag_seconds{quantile=\"0.99\"}", "/delivery-lag-secs/p99"),
        ("flowtap_delivery_lag_max_seconds", "/delivery-lag-secs/max"),
        ("flowtap_delivery_lag_seconds_sum", "/delivery-lag-secs/sum"),
        ("flowtap_delivery_lag_seconds_count", "/delivery-lag-secs/count"),
        ("flowtap_drain_time_seconds_count", "/drain-time-secs/count"),
        ("flowtap_published_until_timestamp_seconds", "/published-until"),
        ("flowtap_interval_seconds", "/interval-secs"),
        ("flowtap_reloads_total", "/reloads"),
        ("flowtap_start_time_seconds", "/started"),
    ] {
        assert_eq!(of(name), told(path), "{name} and {path}");
    }
    let rows = of("flowtap_rows_total{kind=\"accept\"}") + of("flowtap_rows_total{kind=\"reject\"}");
    assert_eq!(rows, told("/rows/written"));
    assert_eq!(of("flowtap_delivery_lag_seconds_count"), of("flowtap_intervals_total"));
    assert!(of("flowtap_delivery_lag_max_seconds") < DELIVERY_SECS_MAX as f64, "records were out in time: {status}");
    daemon.stop();
}

#[test]
fn the_socket_of_metrics_stays_through_reloads_and_has_one_owner() {
    let Some(net) = Net::new() else { return };
    let dir = Dir::new();
    let configuration = |metrics: &str| {
        dir.add("flowtap.toml", format!("metrics = '{metrics}'\n[[interface]]\nname = 'near0'\n"));
    };
    configuration("unix:metrics.sock");
    let mut daemon = Daemon::start(&net, &dir, &["--config", "flowtap.toml", "--interval", "60s"]);
    let socket = fs::metadata(dir.path("metrics.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(socket.uid(), 65_534, "`nobody`, whom the daemon has become");

    configuration("127.0.0.1:9817");
    ask(&dir, &["reload"]).success();
    daemon.until(|log| log.contains("the address of metrics changes at the next start"));
    assert_eq!(metrics(&dir)["flowtap_reloads_total"], 1.0);

    let second = ["run", "-i", "near0", "-o", "others/", "--control-socket", "other.sock"];
    let mut command = namespaced(&net.near, flowtap().to_str().unwrap(), &second);
    let refusal = dir.run(command.args(["--metrics", "unix:metrics.sock"])).failure(2);
    assert!(refusal.contains("metrics at metrics.sock: another run answers there"), "{refusal}");
    assert_eq!(metrics(&dir)["flowtap_reloads_total"], 1.0, "and the first goes on");
    daemon.stop();
}
