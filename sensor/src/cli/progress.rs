//! A progress bar on standard error, where that is a terminal.

use std::io::IsTerminal;

use flowtap::capture::Input;
use indicatif::{ProgressBar, ProgressStyle};

/// How far a replay has come.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for `inputs`, or one that is never seen. The length of compressed inputs and pipes is not known, nor is then
    /// how much is left.
    pub(super) fn new(inputs: &[Input], quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bytes: Option<u64> = inputs.iter().map(plain_bytes).sum();
        let (bar, template) = match bytes {
            Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
            None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec}"),
        };
        // The templates are ours and right; a default bar is no harm.
        Self { bar: bar.with_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar())) }
    }

    /// What the feed tells the bytes of each block.
    pub(super) fn callback(&self) -> Box<dyn FnMut(u64) + Send> {
        let bar = self.bar.clone();
        Box::new(move |bytes| bar.inc(bytes))
    }

    /// Takes the bar away, for what is said next.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The length of a file that is read byte for byte.
fn plain_bytes(input: &Input) -> Option<u64> {
    let Input::File(path) = input else { return None };
    let is_capture = path.extension().is_some_and(|suffix| suffix == "pcap" || suffix == "pcapng" || suffix == "cap");
    let metadata = is_capture.then(|| path.metadata().ok()).flatten()?;
    metadata.is_file().then_some(metadata.len())
}
