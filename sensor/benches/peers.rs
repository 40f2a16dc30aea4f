//! How each other program is made to do the same work: read the whole capture, count every packet in flows with an
//! active timeout of 60 s, and end.
//!
//! The options are those of the Debian 12 packages: softflowd 1.1.0, nfpcapd (nfdump) 1.7.1, argus 3.0.8,
//! pmacctd 1.7.7, tcpdump 4.99.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs;

/// Another program that can read a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Copies packets and knows no flows: what a pass through libpcap costs.
    Tcpdump,
    /// Exports NetFlow; ignores its 60 s life when reading a file, so it makes fewer rows than asked.
    Softflowd,
    /// Splits a flow into several records.
    Nfpcapd,
    /// Does not say what it counted.
    Argus,
    /// A core and a plugin process; both are measured.
    Pmacctd,
}

impl Peer {
    /// Every peer, the fastest first.
    pub(crate) const ALL: [Self; 5] = [Self::Tcpdump, Self::Softflowd, Self::Nfpcapd, Self::Argus, Self::Pmacctd];

    /// The name of the program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcpdump => "tcpdump",
            Self::Softflowd => "softflowd",
            Self::Nfpcapd => "nfpcapd",
            Self::Argus => "argus",
            Self::Pmacctd => "pmacctd",
        }
    }

    /// Where it is installed, if it is.
    pub(crate) fn find(self) -> Option<PathBuf> {
        programs::find(self.name())
    }

    /// The command that replays `capture`. Files it needs or makes go to `scratch`, which is empty.
    ///
    /// # Errors
    ///
    /// When a configuration file can't be written.
    pub(crate) fn command(self, program: &Path, capture: &Path, scratch: &Path) -> io::Result<Command> {
        // `timeout` is the bound of a peer that does not end; it waits for the peer, so its own account holds both.
        let mut command = Command::new("timeout");
        command.arg(PEER_SECS_MAX.to_string()).arg(program);
        match self {
            Self::Tcpdump => {
                command.arg("-n").arg("-r").arg(capture).args(["-w", "/dev/null"]);
            }
            Self::Softflowd => {
                // By default it drops the oldest flows at 8192. With a control socket it may wait for a client for
                // ever: reading a file it never polls, yet looks at what poll would have said.
                command.arg("-r").arg(capture).args(["-d", "-c", "none", "-t", "maxlife=60", "-m", FLOWS_MAX]);
                command.arg("-p").arg(scratch.join("pid"));
            }
            Self::Nfpcapd => {
                command.arg("-r").arg(capture).arg("-w").arg(scratch).args(["-e", "60,60", "-t", "60"]);
            }
            Self::Argus => {
                // Without -X it obeys the system's configuration, which waits for clients.
                command.arg("-X").arg("-r").arg(capture).args(["-S", "60", "-w", "/dev/null"]);
            }
            Self::Pmacctd => {
                let configuration = scratch.join("pmacctd.conf");
                fs::write(&configuration, pmacctd_configuration(capture, scratch))?;
                command.arg("-f").arg(configuration);
            }
        }
        Ok(command)
    }

    /// How many packets the peer counted, where it tells.
    pub(crate) fn packets(self, said: &str, scratch: &Path) -> io::Result<Option<u64>> {
        let number_behind = |mark: &str| {
            let (_, rest) = said.rsplit_once(mark)?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        match self {
            Self::Tcpdump | Self::Argus => Ok(None),
            Self::Softflowd => Ok(number_behind("Packets processed: ")),
            Self::Nfpcapd => Ok(number_behind("Total: Processed: ")),
            Self::Pmacctd => sum_of_pmacctd(&scratch.join(PMACCTD_OUTPUT)).map(Some),
        }
    }
}

/// Its files overwrite each other unless they are appended to, and packets are lost between its processes unless the
/// queue is long.
fn pmacctd_configuration(capture: &Path, scratch: &Path) -> String {
    format!(
        "daemonize: false\n\
         pcap_savefile: {}\n\
         aggregate: src_host, dst_host, src_port, dst_port, proto, tcpflags\n\
         plugins: print\n\
         plugin_pipe_size: 100000000\n\
         plugin_buffer_size: 100000\n\
         print_history: 1m\n\
         print_history_roundoff: m\n\
         print_refresh_time: 60\n\
         print_output: csv\n\
         print_output_file: {}\n\
         print_output_file_append: true\n",
        capture.display(),
        scratch.join(PMACCTD_OUTPUT).display()
    )
}

/// The last but one column of its rows is the number of packets; a line that names columns may come again.
fn sum_of_pmacctd(output: &Path) -> io::Result<u64> {
    use std::io::BufRead;
    let mut sum = 0;
    for line in io::BufReader::new(fs::File::open(output)?).lines() {
        let packets = line?.rsplit(',').nth(1).and_then(|column| column.parse::<u64>().ok());
        sum += packets.unwrap_or_default();
    }
    Ok(sum)
}

const PMACCTD_OUTPUT: &str = "pmacctd.csv";
/// A peer that takes longer is stopped and left out.
const PEER_SECS_MAX: u32 = 600;
/// More than any capture holds.
const FLOWS_MAX: &str = "20000000";
