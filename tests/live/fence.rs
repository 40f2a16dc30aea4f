//! The fence around the running daemon.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use flowtap_tests::Dir;

use super::daemon::{Daemon, ask, status, udp};
use super::net::Net;

#[test]
fn every_thread_is_fenced_and_a_reload_reaches_nothing_beyond() {
    let Some(net) = Net::new() else { return };
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    // Everybody may, were it not for the fence.
    fs::set_permissions(elsewhere.path("."), Permissions::from_mode(0o777)).unwrap();
    let policy = "[[security-group]]\nname = 'g'\ninterfaces = ['near0']\n\
                  ingress = [{ protocol = 'udp', cidr = '0.0.0.0/0' }]\n";
    dir.add("policy.toml", policy);
    elsewhere.add("policy.toml", policy);
    let watch = "[[interface]]\nname = 'near0'\nlocal = '10.9.0.1'\n";
    dir.add("flowtap.toml", watch);
    let daemon = Daemon::start(&net, &dir, &["--config", "flowtap.toml", "--interval", "1s"]);

    let status = status(&dir);
    assert_eq!(status["fence"]["system-calls"], "fenced", "{status}");
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let mut threads = 0;
    for task in tasks {
        let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        threads += 1;
    }
    assert!(threads >= 3, "the keeper, a worker, the recorder");

    if status["fence"]["files"] == "not-fenced" {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    let outside = elsewhere.path("policy.toml");
    dir.add("flowtap.toml", format!("policy = '{}'\n{watch}", outside.display()));
    let refusal = ask(&dir, &["reload"]).failure(2);
    assert!(refusal.contains("Permission denied") && refusal.contains(outside.to_str().unwrap()), "{refusal}");
    dir.add("flowtap.toml", format!("policy = 'policy.toml'\n{watch}"));
    ask(&dir, &["reload"]).success();

    let _listener = net.listener();
    net.send(20, 0);
    assert_eq!(udp(&daemon.stop()).0, 20, "it records behind its fence");
}

#[test]
fn records_can_not_be_sent_elsewhere_by_a_reload() {
    let Some(net) = Net::new() else { return };
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    for place in [&dir, &elsewhere] {
        fs::set_permissions(place.path("."), Permissions::from_mode(0o777)).unwrap();
    }
    let configuration = |root: &str| {
        format!("[[interface]]\nname = 'near0'\n[flow-log]\ninterval = '1s'\n[[output]]\ndirectory = '{root}'\n")
    };
    dir.add("flowtap.toml", configuration("records"));
    let mut daemon = Daemon::start_alone(&net, &dir, &["--config", "flowtap.toml", "--control-socket", "control.sock"]);
    if status(&dir)["fence"]["files"] == "not-fenced" {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    dir.add("flowtap.toml", configuration(elsewhere.path("records").to_str().unwrap()));
    let refusal = ask(&dir, &["reload"]).failure(2);
    assert!(refusal.contains("fenced into where it began to write"), "{refusal}");
    assert!(elsewhere.files().is_empty());
    dir.add("flowtap.toml", configuration("records/beneath"));
    ask(&dir, &["reload"]).success();
    daemon.until(|_| dir.files().iter().any(|file| file.starts_with("records/beneath/AWSLogs/")));
}
