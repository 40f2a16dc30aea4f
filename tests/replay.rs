//! A replay whose books are checked: every end-to-end run asserts that no frame and no packet went missing.

use serde_json::Value;

use crate::program::{Dir, Run};
use crate::rows::Rows;

/// A replay that ended with a ledger.
#[derive(Debug)]
pub struct Replay {
    /// Exit code.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub log: Vec<u8>,
    /// What it complained about, one message a line, without the program's name.
    pub complaints: Vec<String>,
    /// The summary for programs.
    pub ledger: Value,
}

impl Dir {
    /// Runs `flowtap replay` with these arguments and a summary for programs, and checks its ledger: the program's own
    /// verdict, both sums, and that the rows on standard output add up to what it says of them.
    ///
    /// # Panics
    /// As [`Dir::flowtap`], and if there is no ledger or it does not balance.
    #[track_caller]
    pub fn replay(&self, arguments: &[&str]) -> Replay {
        Replay::of(self.flowtap(&[&["replay", "--summary", "json"], arguments].concat()))
    }

    /// Runs a line of shell that holds `$FLOWTAP replay --summary json`, see [`Dir::shell`], and checks its ledger.
    ///
    /// # Panics
    /// As [`Self::replay`].
    #[track_caller]
    pub fn replay_in_shell(&self, line: &str) -> Replay {
        Replay::of(self.shell(line))
    }
}

impl Replay {
    /// The log of a replay that must have ended well, and without a word.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!((self.code, self.complaints.as_slice()), (Some(0), [].as_slice()));
        self.log()
    }

    /// Standard output as text.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn log(&self) -> String {
        String::from_utf8(self.log.clone()).unwrap_or_else(|error| panic!("output is no text: {error}"))
    }

    /// A number of the ledger by its path, such as `/frames/offered`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn count(&self, path: &str) -> u64 {
        let value = self.ledger.pointer(path).unwrap_or_else(|| panic!("the ledger has no {path}"));
        value.as_u64().unwrap_or_else(|| panic!("{path} is {value}"))
    }

    /// Counts of the ledger by reason, such as `/frames/refused`, added up.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn sum(&self, path: &str) -> u64 {
        let by_reason = self.ledger.pointer(path).and_then(Value::as_object);
        let by_reason = by_reason.unwrap_or_else(|| panic!("the ledger has no {path}"));
        by_reason.values().filter_map(Value::as_u64).sum()
    }

    #[track_caller]
    fn of(run: Run) -> Self {
        let mut lines: Vec<&str> = run.stderr.lines().collect();
        let ledger = lines.pop().and_then(|line| serde_json::from_str(line).ok());
        let ledger = ledger.unwrap_or_else(|| panic!("no ledger (exit code {:?}); it said:\n{}", run.code, run.stderr));
        let message = |line: &str| {
            let message = line.strip_prefix("flowtap: ").unwrap_or_else(|| panic!("it said {line:?}"));
            message.to_owned()
        };
        let complaints = lines.into_iter().map(message).collect();
        let replay = Self { code: run.code, log: run.stdout, complaints, ledger };
        replay.assert_balance();
        replay
    }

    #[track_caller]
    fn assert_balance(&self) {
        assert_eq!(self.ledger.get("balances"), Some(&Value::Bool(true)), "{}", self.ledger);
        let explained = ["counted", "filtered", "unfilterable"].map(|part| self.count(&format!("/frames/{part}")));
        let refused = self.sum("/frames/not-ip") + self.sum("/frames/refused");
        assert_eq!(self.count("/frames/offered"), explained.iter().sum::<u64>() + refused, "{}", self.ledger);
        assert_eq!(self.count("/packets"), self.count("/frames/counted"), "{}", self.ledger);
        let in_rows_or_left_out = self.count("/rows/packets") + self.sum("/omitted-packets");
        assert_eq!(self.count("/packets"), in_rows_or_left_out, "{}", self.ledger);
        // Other forms of output are read by the tests that ask for them.
        if let Ok(log) = std::str::from_utf8(&self.log)
            && !log.starts_with('{')
            && !log.is_empty()
        {
            self.assert_rows(log);
        }
    }

    /// Checks that the rows of `log` are those that the ledger tells of, and add up to its sums.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn assert_rows(&self, log: &str) {
        let rows = Rows::parse(log);
        let written = self.count("/rows/written") + self.count("/rows/skipdata");
        assert_eq!(rows.len() as u64, written, "rows; {}", self.ledger);
        for column in ["packets", "bytes"] {
            if let Some(sum) = rows.sum(column) {
                assert_eq!(sum, self.count(&format!("/rows/{column}")), "{column} of all rows; {}", self.ledger);
            }
        }
    }
}
