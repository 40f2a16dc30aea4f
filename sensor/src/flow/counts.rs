//! What is counted per flow and interval. Counting is a commutative sum, so tables can be merged in any order.

/// The running counts of one flow in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Sum of IP packet lengths.
    pub bytes: u64,
    /// Time of the first packet, nanoseconds since the epoch.
    pub first_ns: u64,
    /// Time of the last packet, nanoseconds since the epoch.
    pub last_ns: u64,
    /// AWS's `tcp-flags` mask, see [`aws_flags`].
    pub flags_aws: u8,
    /// OR of the TCP flag bytes.
    pub flags_raw: u8,
}

impl Counts {
    /// The counts of a single packet.
    #[inline]
    pub fn of_packet(time_ns: u64, ip_bytes: u32, tcp_flags: u8) -> Self {
        Self {
            packets: 1,
            bytes: u64::from(ip_bytes),
            first_ns: time_ns,
            last_ns: time_ns,
            flags_aws: aws_flags(tcp_flags),
            flags_raw: tcp_flags,
        }
    }

    /// Counts one more packet.
    #[inline]
    pub fn observe(&mut self, time_ns: u64, ip_bytes: u32, tcp_flags: u8) {
        self.add(&Self::of_packet(time_ns, ip_bytes, tcp_flags));
    }

    /// Takes packets and bytes away again, as far as they are there; says how much that was. Times and flags stay what
    /// they were: which packet brought them is not known any more.
    pub fn take(&mut self, packets: u64, bytes: u64) -> (u64, u64) {
        let packets = packets.min(self.packets);
        // Without packets there are no bytes, and a packet is never without any.
        let least_left = (self.packets - packets) * IP_BYTES_MIN;
        let bytes = if packets == self.packets { self.bytes } else { bytes.min(self.bytes.saturating_sub(least_left)) };
        self.packets -= packets;
        self.bytes -= bytes;
        (packets, bytes)
    }

    /// Adds what was counted elsewhere for the same flow and interval.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.flags_aws |= other.flags_aws;
        self.flags_raw |= other.flags_raw;
    }
}

/// The length of an IPv4 header: no IP packet is shorter.
const IP_BYTES_MIN: u64 = 20;

/// What one packet adds to AWS's `tcp-flags`: FIN 1, SYN 2 and RST 4 as they are, ACK 16 only beside a SYN in the same
/// packet; PSH, URG, ECE and CWR never ("Flow log records", `tcp-flags`).
#[inline]
pub fn aws_flags(tcp_flags: u8) -> u8 {
    let syn_beside_ack = (tcp_flags << 3) & tcp_flags & 0x10;
    tcp_flags & 0x07 | syn_beside_ack
}

/// What only our own `x-` fields ask for. Kept beside the counts, and only where the format asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// Identifier of the outermost VLAN tag; an untagged packet holds `None`.
    pub vlan: Same<Option<u16>>,
    /// Ethernet source address.
    pub ether_src: Same<Option<[u8; 6]>>,
    /// Ethernet destination address.
    pub ether_dst: Same<Option<[u8; 6]>>,
    /// ICMP type.
    pub icmp_type: Same<Option<u8>>,
    /// ICMP code.
    pub icmp_code: Same<Option<u8>>,
}

impl Detail {
    /// Adds what was seen elsewhere for the same flow and interval.
    pub fn add(&mut self, other: &Self) {
        self.vlan.add(other.vlan);
        self.ether_src.add(other.ether_src);
        self.ether_dst.add(other.ether_dst);
        self.icmp_type.add(other.icmp_type);
        self.icmp_code.add(other.icmp_code);
    }
}

/// A value as long as all packets of a flow agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Same<T> {
    /// No packet has said anything.
    #[default]
    Unset,
    /// Every packet so far said this.
    One(T),
    /// Packets differ.
    Mixed,
}

impl<T: Copy + Eq> Same<T> {
    fn add(&mut self, other: Self) {
        *self = match (*self, other) {
            (known, Self::Unset) | (Self::Unset, known) => known,
            (Self::One(a), Self::One(b)) if a == b => Self::One(a),
            _ => Self::Mixed,
        };
    }
}

impl<T: Copy> Same<Option<T>> {
    /// The value all packets share, if there is one.
    pub fn shared(self) -> Option<T> {
        match self {
            Self::One(value) => value,
            Self::Unset | Self::Mixed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_flags_follow_the_documented_table() {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const PSH: u8 = 8;
        const ACK: u8 = 16;
        const URG: u8 = 32;
        const ECE: u8 = 64;
        for (seen, expected) in [
            (FIN, 1),
            (SYN, 2),
            (RST, 4),
            (SYN | ACK, 18),
            (ACK, 0),
            (PSH | ACK, 0),
            (FIN | ACK, 1),
            (RST | ACK, 4),
            (SYN | ECE, 2),
            (URG, 0),
            (0, 0),
        ] {
            assert_eq!(aws_flags(seen), expected, "flag byte {seen:#04x}");
        }
    }

    #[test]
    fn a_short_connection_collapses_to_3_and_19() {
        let mut client = Counts::of_packet(1, 60, 0x02);
        client.add(&Counts::of_packet(2, 52, 0x11));
        assert_eq!(client.flags_aws, 3);
        let mut server = Counts::of_packet(1, 60, 0x12);
        server.add(&Counts::of_packet(2, 52, 0x11));
        assert_eq!(server.flags_aws, 19);
        assert_eq!(server.flags_raw, 0x13);
    }

    #[test]
    fn counts_add_up_in_any_order() {
        let a = Counts::of_packet(7, 100, 0x02);
        let b = Counts::of_packet(3, 50, 0x10);
        let mut ab = a;
        ab.add(&b);
        let mut ba = b;
        ba.add(&a);
        assert_eq!(ab, ba);
        assert_eq!((ab.packets, ab.bytes, ab.first_ns, ab.last_ns), (2, 150, 3, 7));
    }

    #[test]
    fn a_value_is_shared_only_while_all_agree() {
        let mut vlan = Same::One(Some(7_u16));
        vlan.add(Same::Unset);
        vlan.add(Same::One(Some(7)));
        assert_eq!(vlan.shared(), Some(7));
        vlan.add(Same::One(None));
        assert_eq!(vlan, Same::Mixed);
        assert_eq!(vlan.shared(), None);
    }
}
