//! Opens an input as a source, whatever it turns out to be.
//!
//! The first bytes decide, never the name: pcap or pcapng, plain or inside gzip (RFC 1952) or zstd (RFC 8878), also
//! when members or frames of the compression follow each other.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::pcap_file::{Dialect, FILE_HEADER_BYTES, PcapFile, RECORD_HEADER_BYTES};
use super::pcapng::{self, Names, PCAPNG_BLOCK_BYTES_MIN, Pcapng};
use super::stream::{self, Stream};
use super::{BLOCK_BYTES, CaptureError, Damage, Interfaces, Part, Source};

/// Where a capture comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A file, or anything else that can be opened and read.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// What a command line means: `-` is standard input.
    pub fn from_argument(argument: &OsStr) -> Self {
        if argument == "-" { Self::Stdin } else { Self::File(argument.into()) }
    }

    /// The name for interfaces that have none: the file's name without its extensions (`eth0` for
    /// `captures/eth0.pcap.gz`), or `stdin`.
    pub fn stem(&self) -> String {
        match self {
            Self::File(path) => stem(path),
            Self::Stdin => "stdin".to_owned(),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// Opens `input`; its interfaces are added to `interfaces`. With `interface` every frame is of the interface of that
/// name; without, interfaces are called what the capture calls them, or else after the file's stem.
///
/// # Errors
/// When it can't be opened or read, is empty, no capture, or ends before its header does.
pub fn open(input: &Input, interfaces: &Interfaces, interface: Option<&str>) -> Result<Box<dyn Source>, CaptureError> {
    let reader: Box<dyn Read + Send> = match input {
        Input::File(path) => {
            Box::new(File::open(path).map_err(|cause| CaptureError::Io { input: input.to_string(), cause })?)
        }
        Input::Stdin => Box::new(io::stdin()),
    };
    open_reader(reader, input, interfaces, interface)
}

/// Like [`open`], with what is read coming from `reader` and `input` only naming it.
///
/// # Errors
/// As those of [`open`].
pub fn open_reader(
    mut reader: Box<dyn Read + Send>,
    input: &Input,
    interfaces: &Interfaces,
    interface: Option<&str>,
) -> Result<Box<dyn Source>, CaptureError> {
    let names = Names {
        capture: input.to_string(),
        name: interface.map_or_else(|| input.stem(), str::to_owned),
        wanted: interface.is_some(),
    };
    let mut head = match read_head(&mut *reader, &names.capture) {
        // Not even a first byte, as of a directory: the offset says nothing then.
        Err(CaptureError::Read { input, offset: 0, cause }) => return Err(CaptureError::Io { input, cause }),
        other => other?,
    };
    if let Some(compression) = Compression::of(&head) {
        reader = compression.decoder(head, reader).map_err(|cause| unreadable(&names.capture, 0, cause))?;
        head = read_head(&mut *reader, &names.capture)?;
    }
    let Some(&magic) = head.first_chunk::<4>() else { return Err(refusal(names.capture, head)) };
    if magic == pcapng::MAGIC {
        let capture = names.capture.clone();
        let format = Pcapng::new(names, interfaces.clone());
        let first = (Part::BlockHeader, PCAPNG_BLOCK_BYTES_MIN);
        // The first block starts in what was read already.
        let reader = Box::new(Cursor::new(head).chain(reader));
        return Ok(Box::new(Stream::new(reader, format, &capture, 0, first)));
    }
    let Some(dialect) = Dialect::of(magic) else { return Err(refusal(names.capture, head)) };
    let format = pcap_file(dialect, &head, &names, interfaces).map_err(|damage| CaptureError::Damaged {
        input: names.capture.clone(),
        offset: 0,
        damage,
    })?;
    let first = (Part::RecordHeader, RECORD_HEADER_BYTES);
    Ok(Box::new(Stream::new(reader, format, &names.capture, FILE_HEADER_BYTES as u64, first)))
}

fn pcap_file(dialect: Dialect, head: &[u8], names: &Names, interfaces: &Interfaces) -> Result<PcapFile, Damage> {
    let header = head.first_chunk().ok_or(Damage::Cut {
        part: Part::FileHeader,
        needed_bytes: FILE_HEADER_BYTES,
        left_bytes: head.len(),
    })?;
    PcapFile::new(dialect, header, names.intern(interfaces, names.name.clone())?)
}

/// The first [`FILE_HEADER_BYTES`], or as many as there are: enough to know what follows.
fn read_head(reader: &mut dyn Read, input: &str) -> Result<Vec<u8>, CaptureError> {
    let mut head = vec![0; FILE_HEADER_BYTES];
    let mut held_bytes = 0;
    while let Some(room @ [_, ..]) = head.get_mut(held_bytes..) {
        match stream::read(reader, room).map_err(|cause| unreadable(input, held_bytes, cause))? {
            0 => break,
            read_bytes => held_bytes += read_bytes,
        }
    }
    head.truncate(held_bytes);
    Ok(head)
}

fn unreadable(input: &str, offset: usize, cause: io::Error) -> CaptureError {
    CaptureError::Read { input: input.to_owned(), offset: offset as u64, cause }
}

fn refusal(input: String, mut first_bytes: Vec<u8>) -> CaptureError {
    first_bytes.truncate(4);
    if first_bytes.is_empty() { CaptureError::Empty { input } } else { CaptureError::Format { input, first_bytes } }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A frame, or a frame to be skipped, which parallel compressors begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What `head` and then `reader` hold. A decoder keeps a window and no more, whatever the ratio.
    fn decoder(self, head: Vec<u8>, reader: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let packed = BufReader::with_capacity(BLOCK_BYTES, Cursor::new(head).chain(reader));
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(packed)?),
        })
    }
}

/// The name of `path` without the extensions that captures have.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut stem = &*name;
    while let Some((front, extension)) = stem.rsplit_once('.')
        && !front.is_empty()
        && is_capture_extension(&extension.to_ascii_lowercase())
    {
        stem = front;
    }
    stem.to_owned()
}

/// `tcpdump -C` numbers its files behind the extension: `.pcap1`, `.pcap2`.
fn is_capture_extension(extension: &str) -> bool {
    let extension = extension.trim_end_matches(|c: char| c.is_ascii_digit());
    ["pcap", "pcapng", "cap", "dmp", "dump", "gz", "zst", "zstd"].contains(&extension)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::super::testing::{Drained, PCAP, PCAPNG, drain, open_bytes, read, read_with};
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 0).unwrap()
    }

    fn assert_both_frames(drained: &Drained) {
        assert_eq!(drained.payloads(), [&b"abc"[..], b"defgh"]);
        assert_eq!(drained.times_ns(), [1_000_002_000, 4_000_005_000]);
        assert!(drained.errors.is_empty());
    }

    #[test]
    fn both_formats_in_both_compressions() {
        for plain in [PCAP, PCAPNG] {
            for packed in [plain.to_vec(), gzip(plain), zstd(plain)] {
                assert_both_frames(&read(&packed).unwrap());
            }
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let (front, back) = PCAP.split_at(30);
        assert_both_frames(&read(&[gzip(front), gzip(b""), gzip(back)].concat()).unwrap());
        assert_both_frames(&read(&[zstd(front), zstd(b""), zstd(back)].concat()).unwrap());
        let skippable = b"\x50\x2a\x4d\x18\x02\0\0\0hi";
        assert_both_frames(&read(&[&skippable[..], &zstd(PCAP)].concat()).unwrap());
    }

    #[test]
    fn a_cut_in_the_compression_is_an_error_after_the_frames() {
        let long = [PCAP, &PCAP[24..].repeat(5_000)].concat();
        for packed in [gzip(&long), zstd(&long)] {
            let drained = read(&packed[..packed.len() - 6]).unwrap();
            let [(frames, CaptureError::Read { input, .. })] = &*drained.errors else { panic!("{:?}", drained.errors) };
            assert_eq!((input.as_str(), *frames), ("test.pcap", drained.frames.len()));
        }
        let drained = read(&gzip(&long[..long.len() - 1])).unwrap();
        assert_eq!(drained.frames.len(), 10_001);
        let cut = Damage::Cut { part: Part::Record, needed_bytes: 21, left_bytes: 20 };
        assert_eq!(drained.damage(), Some((long.len() as u64 - 21, cut)));
    }

    #[test]
    fn nothing_at_all_is_said_to_be_empty() {
        for nothing in [Vec::new(), gzip(b""), zstd(b"")] {
            let error = read(&nothing).unwrap_err();
            assert_eq!(error.to_string(), "test.pcap: is empty, there is not even a file header");
        }
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let text = read(b"PK\x03\x04 an archive of some kind").unwrap_err().to_string();
        assert!(text.starts_with("test.pcap: is not a capture: its first bytes [50, 4b, 03, 04] are"), "{text}");
        assert!(
            matches!(read(b"\xd4\xc3").unwrap_err(), CaptureError::Format { first_bytes, .. } if first_bytes == [0xd4, 0xc3])
        );
        assert!(matches!(read(&gzip(&gzip(PCAP))).unwrap_err(), CaptureError::Format { .. }));
        assert!(matches!(read(b"\x1f\x8b not gzip").unwrap_err(), CaptureError::Read { offset: 0, .. }));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let interfaces = Interfaces::default();
        let directory = open(&Input::File(folder.clone()), &interfaces, None).err().unwrap().to_string();
        assert!(directory.starts_with(&format!("{}: Is a directory", folder.display())), "{directory}");
        let missing = folder.join("no-such.pcap");
        let missing_error = open(&Input::File(missing.clone()), &interfaces, None).err().unwrap().to_string();
        assert!(missing_error.starts_with(&format!("{}: No such file", missing.display())), "{missing_error}");
        assert_eq!(interfaces.count(), 0);
    }

    #[test]
    fn a_files_stem_names_its_interface() {
        for (path, stem) in [
            ("/var/cap/eth0.pcap.gz", "eth0"),
            ("eth0.2024-01-01.PCAPNG", "eth0.2024-01-01"),
            ("lan.pcap12", "lan"),
            ("lan", "lan"),
            (".pcap", ".pcap"),
            ("host.example", "host.example"),
            ("x.cap.zst", "x"),
        ] {
            assert_eq!(Input::File(path.into()).stem(), stem);
        }
        assert_eq!(Input::from_argument(OsStr::new("-")).stem(), "stdin");
        assert_eq!(Input::from_argument(OsStr::new("-")).to_string(), "standard input");

        let interfaces = Interfaces::default();
        read_with(PCAP, &interfaces).unwrap();
        assert_eq!(interfaces.get(0).unwrap().name, "test");
    }

    #[test]
    fn a_wanted_name_is_that_of_every_interface() {
        let interfaces = Interfaces::default();
        for bytes in [PCAP, PCAPNG] {
            let reader = Box::new(Cursor::new(bytes));
            let mut source = open_reader(reader, &Input::Stdin, &interfaces, Some("wan")).unwrap();
            assert_both_frames(&drain(&mut *source));
        }
        assert_eq!(interfaces.count(), 1);
        let only = interfaces.get(0).unwrap();
        assert_eq!((&*only.name, &*only.capture), ("wan", "standard input"));
    }

    #[test]
    fn files_of_one_stem_stay_apart() {
        let interfaces = Interfaces::default();
        for name in ["monday/eth0.pcap", "tuesday/eth0.pcap"] {
            open_bytes(PCAP, name, &interfaces).unwrap();
        }
        assert_eq!(interfaces.count(), 2);
    }
}
