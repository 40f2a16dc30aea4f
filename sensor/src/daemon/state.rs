//! How far a run has come, noted beside its output, so that the next run can tell what a crash has cost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a run has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// Unix seconds: every interval that ended by then is published.
    pub published_until: u64,
    /// The interfaces that were watched then, by name.
    pub interfaces: Vec<String>,
    /// Whether the run ended in order: then what comes after is no gap.
    pub stopped: bool,
}

/// Where a run notes its state.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in `directory`. Its name begins with a dot, which readers of data lakes pass over.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join(FILE_NAME) }
    }

    /// What the last run noted; `None` if there was none.
    ///
    /// # Errors
    /// When it can't be read, or is not what a run writes.
    pub fn load(&self) -> io::Result<Option<State>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        Ok(serde_json::from_reader(io::BufReader::new(file)).map(Some)?)
    }

    /// Replaces what was noted, all at once.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

impl State {
    /// What no run has recorded before `now_secs`: its first and last second. `None` after a run that ended in order.
    pub fn gap(&self, now_secs: u64) -> Option<(u64, u64)> {
        let is_gap = !self.stopped && self.published_until < now_secs;
        is_gap.then(|| (self.published_until, now_secs - 1))
    }
}

/// Makes sure that files can be made in `directory`.
///
/// # Errors
/// When they can't.
pub fn try_directory(directory: &Path) -> io::Result<()> {
    let probe = directory.join(".flowtap.probe");
    File::create(&probe)?;
    fs::remove_file(probe)
}

const FILE_NAME: &str = ".flowtap.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn state(stopped: bool) -> State {
        State { published_until: 660, interfaces: vec!["eth0".to_owned()], stopped }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        assert_eq!(file.load().unwrap(), None);
        file.save(&state(false)).unwrap();
        file.save(&state(true)).unwrap();
        assert_eq!(file.load().unwrap(), Some(state(true)));
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [".flowtap.json"], "nothing is left beside it");
        fs::write(directory.path().join(".flowtap.json"), "{").unwrap();
        assert!(file.load().is_err());
    }

    #[test]
    fn only_a_crash_leaves_a_gap() {
        assert_eq!(state(false).gap(700), Some((660, 699)));
        assert_eq!(state(false).gap(660), None, "the next run began at once");
        assert_eq!(state(false).gap(10), None, "the clock was set back");
        assert_eq!(state(true).gap(700), None);
    }
}
