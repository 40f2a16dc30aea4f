//! The Debian package: built, and put through an administrator's hands.

use std::env;
use std::path::Path;

use flowtap_tests::program::{command, flowtap};
use flowtap_tests::totals::skip;
use flowtap_tests::{Dir, root};

#[test]
fn the_package_installs_runs_upgrades_and_leaves_nothing() {
    if command(Path::new("dpkg-shlibdeps")).arg("--version").output().is_err() {
        return skip("dpkg-dev is not installed");
    }
    let mut test = command(&root().join("packaging/deb/test"));
    // Where cargo keeps the sources, and with them the licences, of what is linked.
    test.envs(["HOME", "CARGO_HOME"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    let said = Dir::new().run(test.arg(flowtap())).success();
    let skipped = said.lines().find(|line| line.starts_with("skipped: "));
    match skipped {
        Some(reason) => skip(reason.trim_start_matches("skipped: ")),
        None => assert!(said.contains("nothing is left"), "{said}"),
    }
}
