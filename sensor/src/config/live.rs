//! What only a live run asks for: what to watch, how, and as whom.

use std::path::PathBuf;
use std::str::FromStr;

use super::flow_log::whole_number;
use super::glob::Glob;
use super::kernel::KernelSettings;
use super::metrics::MetricsAddress;
use super::value::{ValueError, read_as_text};

/// The settings of a live run, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSettings {
    /// The interfaces to watch: those that flags name, else those that the file has a table for.
    pub watch: Vec<Glob>,
    /// Who counts.
    pub capture: CapturePlane,
    /// How the kernel plane counts.
    pub kernel: KernelSettings,
    /// The kernel's buffer.
    pub capture_buffer: CaptureBuffer,
    /// Whom to become once everything is open. `None`: `nobody` if started as root, else nobody else.
    pub user: Option<String>,
    /// Where `flowtap status` and `flowtap reload` reach the run.
    pub control_socket: Option<PathBuf>,
    /// Where the run notes how far it has come. `None`: the output directory.
    pub state_directory: Option<PathBuf>,
    /// Where metrics are told.
    pub metrics: MetricsAddress,
}

/// The flags of `flowtap run` alone, by their long names.
#[derive(Debug, Clone, Default)]
pub struct LiveFlags {
    /// `--interface`
    pub watch: Vec<Glob>,
    /// `--capture`
    pub capture: Option<CapturePlane>,
    /// `--capture-buffer`
    pub capture_buffer: Option<CaptureBuffer>,
    /// `--user`
    pub user: Option<String>,
    /// `--control-socket`
    pub control_socket: Option<PathBuf>,
    /// `--state-directory`
    pub state_directory: Option<PathBuf>,
    /// `--metrics`
    pub metrics: Option<MetricsAddress>,
}

/// Who counts packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CapturePlane {
    /// The kernel plane where it can be had and suits the configuration, else the packet plane.
    #[default]
    Auto,
    /// Programs in the kernel: the kernel plane.
    Ebpf,
    /// This program, from frames that libpcap hands over: the packet plane.
    Pcap,
}

impl CapturePlane {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
        }
    }
}

impl FromStr for CapturePlane {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self::Auto),
            "ebpf" => Ok(Self::Ebpf),
            "pcap" => Ok(Self::Pcap),
            _ => Err(ValueError::new(text, "a way to capture", "write `auto`, `ebpf` or `pcap`")),
        }
    }
}

/// How much the kernel keeps of each direction of an interface while nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureBuffer(u32);

impl CaptureBuffer {
    /// Bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for CaptureBuffer {
    /// 16 MB: at 64-byte packets a tenth of a second of a million packets a second.
    fn default() -> Self {
        Self(16_000_000)
    }
}

impl FromStr for CaptureBuffer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let megabytes = text.strip_suffix("MB").and_then(whole_number).and_then(|count| u32::try_from(count).ok());
        let bytes = megabytes.filter(|count| (1..=BUFFER_MEGABYTES_MAX).contains(count)).map(|count| count * 1_000_000);
        bytes.map(Self).ok_or_else(|| ValueError::new(text, "a size of a buffer", "write `1MB` to `2000MB`"))
    }
}

/// libpcap takes the size as a positive `int`.
const BUFFER_MEGABYTES_MAX: u32 = 2000;

read_as_text!(CapturePlane, CaptureBuffer);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, RawConfig, Settings};

    #[test]
    fn buffers_have_bounds() {
        assert_eq!("1MB".parse::<CaptureBuffer>().unwrap().bytes(), 1_000_000);
        assert_eq!("2000MB".parse::<CaptureBuffer>().unwrap().bytes(), 2_000_000_000);
        for text in ["", "0MB", "2001MB", "16", "16 MB", "16mb", "-1MB"] {
            let expected = format!("`{text}` is not a size of a buffer: write `1MB` to `2000MB`");
            assert_eq!(text.parse::<CaptureBuffer>().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_plane_that_is_not_there_is_refused_with_its_line() {
        let refusal = RawConfig::parse("region = 'x'\ncapture = 'xdp'").unwrap_err().to_string();
        assert_eq!(refusal, "line 2: `xdp` is not a way to capture: write `auto`, `ebpf` or `pcap`");
    }

    #[test]
    fn flags_win_and_the_tables_say_what_is_watched_without_them() {
        let text = "metrics = '[::1]:9817'\ncapture-buffer = '2MB'\nuser = 'log'\n[[interface]]\nname = 'eth*'\n[[interface]]\nname = 'lo'";
        let settings = |live| {
            let flags = Flags { live, ..Flags::default() };
            Settings::new(Some(RawConfig::parse(text).unwrap()), flags).unwrap().live
        };
        let file_only = settings(LiveFlags::default());
        assert_eq!(file_only.watch, ["eth*", "lo"].map(|name| name.parse().unwrap()));
        assert_eq!((file_only.capture_buffer.bytes(), file_only.user.as_deref()), (2_000_000, Some("log")));
        assert_eq!(file_only.metrics.to_string(), "[::1]:9817");
        let capture_buffer = Some("4MB".parse().unwrap());
        let metrics = Some(MetricsAddress::Off);
        let watch = vec!["wg0".parse().unwrap()];
        let both = settings(LiveFlags { watch, capture_buffer, metrics, ..LiveFlags::default() });
        assert_eq!(both.watch, ["wg0".parse().unwrap()]);
        assert_eq!((both.capture_buffer.bytes(), both.user.as_deref()), (4_000_000, Some("log")));
        assert_eq!(both.metrics, MetricsAddress::Off);
    }
}
