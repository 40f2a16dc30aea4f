//! How much a session may copy. The numbers behind the defaults were measured: mirrored from the kernel, cut into wire
//! frames and with complete checksums, 1 GB of TCP took a processor several times as long as without.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::config::value::{ValueError, read_as_text};
use crate::config::whole_number;

/// How much a session may copy, in frames as they are on the wire, before they are cut or encapsulated. What is beyond
/// is skipped and counted. Each rate is a token bucket that holds what a tenth of a second brings, and at least one
/// super-packet. Every copy takes from both what it needs, one for each target where a session replicates; it goes whole
/// while both hold anything, and what it takes beyond is owed. So a copy of any size goes to every target that comes
/// before the buckets are empty. What no target would get anyhow, being too big or for none that is healthy, takes
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimit {
    /// Frames a second.
    pub packets: PacketRate,
    /// Bits a second, Ethernet header included.
    pub bits: BitRate,
}

/// Frames a second; `None` inside for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRate(Option<NonZeroU64>);

impl PacketRate {
    /// `None` for no limit.
    pub fn per_second(self) -> Option<NonZeroU64> {
        self.0
    }

    /// What the bucket holds.
    pub fn burst(self) -> Option<NonZeroU64> {
        burst(self.0, BURST_PACKETS_MIN)
    }
}

impl Default for PacketRate {
    /// A clean copy costs the sending path about 6 us a frame, measured, and at most 12 us of processor time. 25 000 a
    /// second are then 15 % of the time of one processor, 30 % at worst: production keeps the rest, whatever the filter
    /// takes.
    fn default() -> Self {
        Self(NonZeroU64::new(25_000))
    }
}

impl fmt::Display for PacketRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str(UNLIMITED),
        }
    }
}

impl FromStr for PacketRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let rate = whole_number(text).filter(|rate| *rate <= RATE_MAX).and_then(NonZeroU64::new);
        match (text, rate) {
            (UNLIMITED, _) => Ok(Self(None)),
            (_, Some(rate)) => Ok(Self(Some(rate))),
            (_, None) => Err(ValueError::new(text, "a rate of packets", "write a number like `25000`, or `unlimited`")),
        }
    }
}

/// Bits a second; `None` inside for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRate(Option<NonZeroU64>);

impl BitRate {
    /// `None` for no limit.
    pub fn per_second(self) -> Option<NonZeroU64> {
        self.0
    }

    /// What the bucket holds.
    pub fn burst(self) -> Option<NonZeroU64> {
        burst(self.0, BURST_BITS_MIN)
    }
}

impl Default for BitRate {
    /// What the default packets make at 1500 bytes; under a third of a gigabit link.
    fn default() -> Self {
        Self(NonZeroU64::new(300_000_000))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rate) = self.0 else { return f.write_str(UNLIMITED) };
        let (unit, size) =
            BIT_UNITS.into_iter().find(|(_, size)| rate.get().is_multiple_of(*size)).unwrap_or(("bit", 1));
        write!(f, "{}{unit}", rate.get() / size)
    }
}

impl FromStr for BitRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let of_unit = |(unit, size): (&str, u64)| whole_number(text.strip_suffix(unit)?)?.checked_mul(size);
        let rate = BIT_UNITS.into_iter().find_map(of_unit).filter(|rate| *rate <= RATE_MAX).and_then(NonZeroU64::new);
        match (text, rate) {
            (UNLIMITED, _) => Ok(Self(None)),
            (_, Some(rate)) => Ok(Self(Some(rate))),
            (_, None) => {
                Err(ValueError::new(text, "a rate of bits", "write it like `300Mbit` or `1Gbit`, or `unlimited`"))
            }
        }
    }
}

fn burst(rate: Option<NonZeroU64>, burst_min: NonZeroU64) -> Option<NonZeroU64> {
    rate.map(|rate| NonZeroU64::new(rate.get() / BURSTS_PER_SEC).map_or(burst_min, |burst| burst.max(burst_min)))
}

read_as_text!(PacketRate, BitRate);

const UNLIMITED: &str = "unlimited";
/// The largest first, as they are chosen for writing.
const BIT_UNITS: [(&str, u64); 4] = [("Gbit", 1_000_000_000), ("Mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];
/// Keeps every product of a rate and a time of hours within 64 bits.
const RATE_MAX: u64 = 1_000_000_000_000;
const BURSTS_PER_SEC: u64 = 10;
/// The wire frames of a super-packet of 64 KiB, at segments of 536 bytes.
const BURST_PACKETS_MIN: NonZeroU64 = NonZeroU64::new(123).expect("not zero");
/// The bits of those frames, with 54 bytes of headers each.
const BURST_BITS_MIN: NonZeroU64 = NonZeroU64::new((65_536 + 123 * 54) * 8).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(text: &str) -> Result<PacketRate, ValueError> {
        text.parse()
    }

    fn bits(text: &str) -> Result<BitRate, ValueError> {
        text.parse()
    }

    fn rate(number: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(number)
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["1bit", "1500bit", "300kbit", "300Mbit", "1001Mbit", "40Gbit", "1000Gbit", "unlimited"] {
            assert_eq!(bits(text).unwrap().to_string(), text);
        }
        assert_eq!(bits("1500000bit").unwrap().to_string(), "1500kbit");
        assert_eq!(bits("2Gbit").unwrap().per_second(), rate(2_000_000_000));
        for text in ["1", "25000", "unlimited"] {
            assert_eq!(packets(text).unwrap().to_string(), text);
        }
        assert_eq!(packets("unlimited").unwrap().per_second(), None);
    }

    #[test]
    fn what_is_no_rate() {
        for text in ["", "0", "0Mbit", "300", "300MB", "1001Gbit", "18446744073709551615Gbit", "-1bit", "+1bit"] {
            let expected =
                format!("`{text}` is not a rate of bits: write it like `300Mbit` or `1Gbit`, or `unlimited`");
            assert_eq!(bits(text).unwrap_err().to_string(), expected);
        }
        for text in ["", "0", "1/s", "1000000000001"] {
            let expected = format!("`{text}` is not a rate of packets: write a number like `25000`, or `unlimited`");
            assert_eq!(packets(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_bucket_holds_a_tenth_of_a_second_and_a_super_packet() {
        assert_eq!(packets("25000").unwrap().burst(), rate(2500));
        assert_eq!(bits("300Mbit").unwrap().burst(), rate(30_000_000));
        // 65536 bytes in segments of 536 are 123 frames, each with 14 + 20 + 20 bytes of headers.
        assert_eq!(packets("1").unwrap().burst(), rate(123));
        assert_eq!(bits("1kbit").unwrap().burst(), rate(577_424));
        assert_eq!((packets("unlimited").unwrap().burst(), bits("unlimited").unwrap().burst()), (None, None));
    }
}
