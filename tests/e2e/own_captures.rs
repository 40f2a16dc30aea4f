//! The project's own captures: against the tables that their generator wrote, and against lines typed by hand from the
//! stories in `pcaps/README.md`.

use std::fs;

use flowtap_tests::totals::{FORMAT, Table, expected};
use flowtap_tests::{Dir, assert_text, root};
