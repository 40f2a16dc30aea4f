//! Where other programs are.

use std::path::PathBuf;

/// Where a program is installed, if it is: on PATH or where Debian keeps daemons.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|directory| directory.join(name)).find(|program| program.is_file())
}
