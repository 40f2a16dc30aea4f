//! The one place where the program reads a clock.

use std::time::Instant;

/// Now, for measuring how long something takes.
#[expect(clippy::disallowed_methods, reason = "the library takes time as an argument; this is where it comes from")]
pub(super) fn now() -> Instant {
    Instant::now()
}
