//! Running the program in a directory of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;
use std::{env, io};

use tempfile::TempDir;

/// An empty directory that goes away with the test.
#[derive(Debug)]
pub struct Dir {
    temp: TempDir,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Run {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Dir {
    /// A new directory.
    ///
    /// # Panics
    /// If the system gives none.
    #[expect(clippy::new_without_default, reason = "a directory on disk is no default value")]
    pub fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}")) }
    }

    /// Where `name` lies in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes a file, with the folders on its way.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn add(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&path);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, contents));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Puts one of the project's captures here, under its own name.
    ///
    /// # Panics
    /// If there is no such capture.
    pub fn add_capture(&self, name: &str) {
        let path = crate::capture(name);
        self.add(name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }

    /// The bytes of a file in it.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Every file below it, as paths relative to it with `/` between, sorted.
    ///
    /// # Panics
    /// If a folder can't be listed.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        list(self.temp.path(), "", &mut files)
            .unwrap_or_else(|error| panic!("{}: {error}", self.temp.path().display()));
        files.sort();
        files
    }

    /// Runs the built program here with these arguments. Its environment is empty but for `PATH`, its input too.
    ///
    /// # Panics
    /// If the program is not built, or does not end within [`RUN_MILLIS_MAX`].
    #[track_caller]
    pub fn flowtap(&self, arguments: &[&str]) -> Run {
        self.run(command(&flowtap()).args(arguments))
    }

    /// Runs a line of shell here, in which `$FLOWTAP` is the built program.
    ///
    /// # Panics
    /// As [`Self::flowtap`].
    #[track_caller]
    pub fn shell(&self, line: &str) -> Run {
        self.run(command(Path::new("/bin/sh")).args(["-c", line]).env("FLOWTAP", flowtap()))
    }

    /// Runs any command here, see [`command`].
    ///
    /// # Panics
    /// If it can't be started, or does not end within [`RUN_MILLIS_MAX`].
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Run {
        // Files instead of pipes: a program that says much is never kept waiting for a reader.
        let talk = Self::new();
        let mut run = || -> io::Result<Option<ExitStatus>> {
            command.current_dir(self.temp.path()).stdin(Stdio::null());
            command.stdout(File::create(talk.path("stdout"))?).stderr(File::create(talk.path("stderr"))?);
            wait(command.spawn()?)
        };
        let ended = run().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (talk.read("stdout"), String::from_utf8_lossy(&talk.read("stderr")).into_owned());
        let Some(status) = ended else { panic!("{command:?} did not end; it said:\n{stderr}") };
        Run { code: status.code(), stdout, stderr }
    }
}

impl Run {
    /// Standard output of a run that must have ended well.
    ///
    /// # Panics
    /// If it did not, or the output is no text.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "it said:\n{}", self.stderr);
        String::from_utf8(self.stdout).unwrap_or_else(|error| panic!("output is no text: {error}"))
    }

    /// Standard error of a run that must have ended with this code.
    ///
    /// # Panics
    /// If it ended otherwise.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "it said:\n{}", self.stderr);
        self.stderr
    }
}

/// Compares texts and shows both in full where they differ.
///
/// # Panics
/// If they differ.
#[track_caller]
pub fn assert_text(actual: &str, expected: &str) {
    let rule = "~".repeat(60);
    assert!(actual == expected, "texts differ\nexpected:\n{rule}\n{expected}{rule}\nactual:\n{rule}\n{actual}{rule}\n");
}

/// A command whose environment is empty but for `PATH`, to which a test may add.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

/// The built program.
///
/// # Panics
/// If it is not there: a missing program must not look like a test that passed.
pub fn flowtap() -> PathBuf {
    let own = env::current_exe().unwrap_or_else(|error| panic!("the test does not know where it is: {error}"));
    program_beside(&own).unwrap_or_else(|| panic!("no flowtap near {}: run `cargo build` first", own.display()))
}

/// The program in the folder of its profile (`target/debug` or `target/release`), which holds `deps/` with the test in
/// it.
fn program_beside(test: &Path) -> Option<PathBuf> {
    test.ancestors().skip(1).take(2).map(|folder| folder.join("flowtap")).find(|path| path.is_file())
}

/// Waits for the end; `None` if it did not come in time and the child had to be killed.
fn wait(mut child: Child) -> io::Result<Option<ExitStatus>> {
    for _ in 0..RUN_MILLIS_MAX {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

/// How long a run may take. An end-to-end test takes a fraction of a second; a machine may be busy.
pub const RUN_MILLIS_MAX: u32 = 300_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = command(Path::new("/bin/sh"));
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_run_sees_the_files_and_only_the_environment_it_is_given() {
        let dir = Dir::new();
        dir.add("in/hello.txt", "hello\n");
        let run = dir.run(
            shell("cat in/hello.txt; echo $OWN ${CARGO_MANIFEST_DIR:-clean}; echo out > out.txt").env("OWN", "own"),
        );
        assert_text(&run.success(), "hello\nown clean\n");
        assert_eq!(dir.files(), ["in/hello.txt", "out.txt"]);
        assert_eq!(dir.read("out.txt"), b"out\n");
    }

    #[test]
    fn a_failure_gives_its_message() {
        assert_text(&Dir::new().run(&mut shell("echo oh no >&2; exit 3")).failure(3), "oh no\n");
    }

    #[test]
    #[should_panic(expected = "it said:\noh no")]
    fn a_failure_is_no_success() {
        Dir::new().run(&mut shell("echo oh no >&2; exit 3")).success();
    }

    #[test]
    fn the_program_is_found_from_the_folder_of_the_tests() {
        let dir = Dir::new();
        dir.add("target/debug/deps/e2e-0123", "");
        assert_eq!(program_beside(&dir.path("target/debug/deps/e2e-0123")), None);
        dir.add("target/debug/flowtap", "");
        assert_eq!(program_beside(&dir.path("target/debug/deps/e2e-0123")), Some(dir.path("target/debug/flowtap")));
        // A test that was copied beside the program finds it as well.
        assert_eq!(program_beside(&dir.path("target/debug/e2e")), Some(dir.path("target/debug/flowtap")));
    }

    #[test]
    fn the_projects_captures_can_be_added() {
        let dir = Dir::new();
        dir.add_capture("header-only.pcap");
        assert_eq!(dir.read("header-only.pcap").len(), 24);
    }
}
