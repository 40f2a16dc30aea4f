//! The built program, seen from outside: what its end-to-end tests share.
//!
//! A test makes a [`Dir`], puts files into it, runs the program there and compares text:
//!
//! ```no_run
//! use flowtap_tests::{Dir, assert_text};
//!
//! let dir = Dir::new();
//! dir.add_capture("ping-matrix.pcap");
//! let log = dir.flowtap(&["replay", "ping-matrix.pcap"]).success();
//! assert_text(&log, "version account-id ...\n");
//! ```
//!
//! [`Dir::replay`] runs a replay and checks its books. What a capture must add up to is in [`totals`]. Nothing here
//! knows the library: the program is met as a stranger meets it.

pub mod mirror;
pub mod program;
pub mod replay;
pub mod rows;
pub mod totals;

pub use program::{Dir, Run, assert_text};
pub use replay::Replay;
pub use rows::Rows;

use std::path::PathBuf;

/// The root of the repository.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// A capture of the project's own, see `pcaps/README.md`.
pub fn capture(name: &str) -> PathBuf {
    root().join("pcaps").join(name)
}
