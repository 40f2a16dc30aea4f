//! What IP says of packets that were too large for their path: fragments made, and packets lost because they must not be
//! fragmented. The kernel counts them by network namespace, all traffic together, so copies are only some of them.
//!
//! Authority: RFC 2011 (ipFragFails, ipFragCreates) and RFC 4293 for IPv6, as proc(5) shows them.

use std::{fs, io};

/// What became of packets too large for their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fragmentation {
    /// Packets that were too large and could not be fragmented: lost.
    pub failed: u64,
    /// Fragments made.
    pub fragments: u64,
}

impl Fragmentation {
    /// Reads both IP versions' counters in the calling thread's namespace.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read() -> io::Result<Self> {
        let v4 = fs::read_to_string("/proc/thread-self/net/snmp")?;
        // A kernel without IPv6 has no such file.
        let v6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default();
        Ok(Self::parse(&v4, &v6))
    }

    /// What came since it was `before`.
    pub fn since(self, before: Self) -> Self {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Self { failed: since(self.failed, before.failed), fragments: since(self.fragments, before.fragments) }
    }

    fn parse(v4: &str, v6: &str) -> Self {
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let of_v4 = |wanted: &str| -> u64 {
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        let of_v6 = |wanted: &str| -> u64 {
            let mut pairs = v6.lines().filter_map(|line| line.split_once(char::is_whitespace));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            failed: of_v4("FragFails") + of_v6("Ip6FragFails"),
            fragments: of_v4("FragCreates") + of_v6("Ip6FragCreates"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_found_by_name() {
        let v4 = "Ip: Forwarding FragOKs FragFails FragCreates\nIp: 1 2 3 40\nIcmp: FragFails\nIcmp: 9\n";
        let v6 = "Ip6FragOKs                      \t5\nIp6FragFails                    \t6\nIp6FragCreates \t70\n";
        assert_eq!(Fragmentation::parse(v4, v6), Fragmentation { failed: 9, fragments: 110 });
        assert_eq!(Fragmentation::parse("", ""), Fragmentation::default());
        let later = Fragmentation { failed: 11, fragments: 110 };
        assert_eq!(later.since(Fragmentation::parse(v4, v6)), Fragmentation { failed: 2, fragments: 0 });
    }
}
