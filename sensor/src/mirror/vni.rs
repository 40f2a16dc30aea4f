//! The network identifier that a session's copies carry (RFC 7348, section 5: VNI; RFC 8926 has the same for GENEVE).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::SessionNumber;
use crate::config::value::{ValueError, read_as_text};
use crate::config::whole_number;

/// A 24-bit VXLAN or GENEVE network identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// `None` for a number of more than 24 bits.
    pub const fn new(number: u32) -> Option<Self> {
        if number <= VNI_MAX { Some(Self(number)) } else { None }
    }

    /// The identifier of a session that configures none: the same after every start, and other on other hosts, so
    /// that an IDS can tell them apart (AWS takes a random one).
    ///
    /// It is taken from a hash of what makes the session the one it is: the host, by any `identity` that does not
    /// change (its machine id), the session's number and the pattern of its interfaces; never 0. `attempt` is 0, or
    /// counts on where another session has the identifier already.
    pub fn derived(identity: &str, number: SessionNumber, interface: &str, attempt: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [identity, &number.to_string(), interface, &attempt.to_string()] {
            hash.update(part.as_bytes());
            // No part can hold this byte at its end and be taken for another.
            hash.update([0]);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = digest;
        Self(u32::from_be_bytes([a, b, c, d]) % VNI_MAX + 1)
    }

    /// The number, below 2^24.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vni {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = whole_number(text).and_then(|number| Self::new(number.try_into().ok()?));
        number.ok_or_else(|| ValueError::new(text, "a VNI", "write a number from 0 to 16777215"))
    }
}

read_as_text!(Vni);

/// 24 bits.
const VNI_MAX: u32 = 0x00ff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> SessionNumber {
        text.parse().unwrap()
    }

    #[test]
    fn identifiers_have_24_bits() {
        assert_eq!(Vni::new(0x123456).unwrap().number(), 0x0012_3456);
        assert_eq!("16777215".parse(), Ok(Vni(0xff_ffff)));
        assert_eq!(Vni::new(0x0100_0000), None);
        for text in ["16777216", "-1", "", "0x10"] {
            let expected = format!("`{text}` is not a VNI: write a number from 0 to 16777215");
            assert_eq!(text.parse::<Vni>().unwrap_err().to_string(), expected);
        }
    }

    /// The expected value is the first four bytes of `printf 'host\0007\0eth0\0000\0' | sha256sum`.
    #[test]
    fn a_derived_identifier_is_stable() {
        assert_eq!(Vni::derived("host", number("7"), "eth0", 0), Vni(DERIVED));
    }

    #[test]
    fn another_host_session_interface_or_attempt_has_another() {
        let all = [
            Vni::derived("host", number("7"), "eth0", 0),
            Vni::derived("host2", number("7"), "eth0", 0),
            Vni::derived("host", number("8"), "eth0", 0),
            Vni::derived("host", number("7"), "eth1", 0),
            Vni::derived("host", number("7"), "eth0", 1),
        ];
        let different: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(different.len(), all.len());
    }

    const DERIVED: u32 = 3_992_426;
}
