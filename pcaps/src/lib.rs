//! The generator of the small captures in this folder.
//!
//! Every capture is a story told in code: who talks to whom, what each packet is worth, and what a flow log must make
//! of it. The expected totals come from the story itself, never from reading a capture back. Nothing depends on the
//! clock, the machine or chance, so the committed files are exactly what this crate writes.
//!
//! [`captures`] is the list; each function of [`story`] tells some of them. Beneath are [`packet`] (IP and what is in
//! it), [`link`] (what is around it) and [`pcap`] and [`pcapng`] (files).

pub mod capture;
pub mod cast;
pub mod expected;
pub mod fragment;
pub mod icmp;
pub mod link;
pub mod packet;
pub mod payload;
pub mod pcap;
pub mod pcapng;
pub mod random;
pub mod story;
pub mod tcp;
pub mod time;

use std::path::{Path, PathBuf};
use std::{fs, io};

use capture::Capture;

/// All captures, in the order of `README.md`.
pub fn captures() -> Vec<Capture> {
    let stories: [fn() -> Vec<Capture>; 9] = [
        story::demo::captures,
        story::services::captures,
        story::flows::captures,
        story::policy::captures,
        story::encapsulated::captures,
        story::link_types::captures,
        story::headers::captures,
        story::files::captures,
        story::damaged::captures,
    ];
    stories.iter().flat_map(|tell| tell()).collect()
}

/// A file that the generator writes: its place within the folder, and its contents.
pub type Output = (PathBuf, Vec<u8>);

/// Every file: the captures and their expected totals.
pub fn outputs() -> Vec<Output> {
    let files = |capture: Capture| {
        let totals = Path::new("expected").join(format!("{}.tsv", capture.stem()));
        [(totals, expected::table(&capture).into_bytes()), (PathBuf::from(capture.name), capture.contents)]
    };
    captures().into_iter().flat_map(files).collect()
}

/// Writes every file below `folder`.
///
/// # Errors
/// What the file system says.
pub fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("expected"))?;
    outputs().into_iter().try_for_each(|(path, contents)| fs::write(folder.join(path), contents))
}

/// The files below `folder` that are missing or differ from what [`write()`] would write.
pub fn differences(folder: &Path) -> Vec<PathBuf> {
    let differs = |(path, contents): Output| match fs::read(folder.join(&path)) {
        Ok(found) if found == contents => None,
        _ => Some(path),
    };
    outputs().into_iter().filter_map(differs).collect()
}
