//! The one place where the program reads a clock.

use std::time::{Instant, SystemTime};

use flowtap::time::Timestamp;

/// Now, for measuring how long something takes.
#[expect(clippy::disallowed_methods, reason = "the library takes time as an argument; this is where it comes from")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Now, as the wall clock has it; the epoch if it is set to a time before that.
#[expect(clippy::disallowed_methods, reason = "the library takes time as an argument; this is where it comes from")]
pub(super) fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}
