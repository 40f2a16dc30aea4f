//! The Internet checksum (RFC 1071), and the pseudo-headers over which TCP and UDP compute it (RFC 9293, RFC 8200).

use crate::packet::Addresses;

/// A sum of 16-bit words in network order, not yet folded. It holds 2^32 words and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The pseudo-header of a TCP segment or UDP datagram of `length_bytes`.
    pub fn of_pseudo_header(addresses: Addresses, protocol: u8, length_bytes: u32) -> Self {
        let sum = Self(u64::from(length_bytes) + u64::from(protocol));
        match addresses {
            Addresses::V4 { src, dst } => sum.over(&src.to_be_bytes()).over(&dst.to_be_bytes()),
            Addresses::V6 { src, dst } => sum.over(&src.to_be_bytes()).over(&dst.to_be_bytes()),
        }
    }

    /// Adds bytes that begin at an even place. An odd last byte counts as if a zero followed.
    #[must_use]
    pub fn over(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        let mut last = [0; 4];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Self(self.0 + sum + u64::from(u32::from_be_bytes(last)))
    }

    /// The sum in 16 bits, not complemented: what the kernel leaves in a checksum that a card is to complete.
    pub fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// The checksum.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum for UDP, in which 0 means that there is none (RFC 768).
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 section 3: the sum of these bytes is 0xddf2.
    const RFC_1071: [u8; 8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(Sum::default().over(&RFC_1071).folded(), 0xddf2);
        assert_eq!(Sum::default().over(&RFC_1071).checksum(), 0x220d);
        // In two parts, of which the first is even.
        assert_eq!(Sum::default().over(&RFC_1071[..6]).over(&RFC_1071[6..]).folded(), 0xddf2);
        assert_eq!(Sum::default().over(&[0x12, 0x34, 0x56]).folded(), 0x1234 + 0x5600);
    }

    #[test]
    fn udp_never_says_zero() {
        assert_eq!(Sum::default().over(&[0xff, 0xff]).checksum(), 0);
        assert_eq!(Sum::default().over(&[0xff, 0xff]).udp_checksum(), 0xffff);
        assert_eq!(Sum::default().udp_checksum(), 0xffff);
    }

    #[test]
    fn pseudo_headers() {
        // 10.0.0.1 to 192.0.2.7: 0a00 + 0001 + c000 + 0207 + protocol 6 + 20 bytes.
        let addresses = Addresses::V4 { src: 0x0a00_0001, dst: 0xc000_0207 };
        assert_eq!(Sum::of_pseudo_header(addresses, 6, 20).folded(), 0x0a00 + 1 + 0xc000 + 0x0207 + 6 + 20);
        // A length of more than 16 bits, as in super-packets: its upper half is a word of its own.
        assert_eq!(
            Sum::of_pseudo_header(addresses, 6, 0x0002_0014).folded(),
            0x0a00 + 1 + 0xc000 + 0x0207 + 6 + 20 + 2
        );
    }
}
