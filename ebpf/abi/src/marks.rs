//! What packets of a flow carried, gathered by OR alone.
//!
//! One word holds all of it, so a packet that brings nothing new costs a load and a comparison, and a merge of two
//! counts is one OR. To tell "always the same value" from "several", a value is stored beside its complement: once two
//! different values were seen, some bit stands in both.
//!
//! | bits | TCP | ICMP and ICMPv6 |
//! |---|---|---|
//! | 0 to 7 | OR of the flag bytes | code |
//! | 8 to 15 | mask of the cloud's flow logs | type |
//! | 16 to 31 | zero | complement of type and code |
//! | 32 to 44 | tag present, VLAN identifier | same |
//! | 48 to 60 | their complement | same |

/// TCP flags or ICMP type and code, and the outermost VLAN tag, of all packets so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "bytemuck", derive(bytemuck::Pod, bytemuck::Zeroable))]
#[repr(transparent)]
pub struct Marks(pub u64);

/// What was seen of something that should be the same in all packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<T> {
    /// No packet had it.
    Never,
    /// All packets that had it agreed.
    One(T),
    /// Two packets differed.
    Several,
}

/// FIN, SYN and RST: the flags that the cloud's flow logs know by themselves.
const FIN_SYN_RST: u64 = 0b111;
const SYN: u64 = 0b10;
const ACK: u64 = 0b1_0000;

const CLOUD_SHIFT: u32 = 8;
const ICMP_MASK: u64 = 0xffff;
const ICMP_COMPLEMENT_SHIFT: u32 = 16;
const VLAN_SHIFT: u32 = 32;
const VLAN_COMPLEMENT_SHIFT: u32 = 48;
const VLAN_PRESENT: u64 = 0x1000;
const VLAN_ID: u64 = 0x0fff;
const VLAN_MASK: u64 = VLAN_PRESENT | VLAN_ID;

impl Marks {
    /// Marks of a packet that has none.
    pub const NONE: Self = Self(0);

    /// Marks of one TCP packet. ACK is in the cloud's mask only if the same packet has SYN.
    #[inline(always)]
    pub const fn tcp(flags: u8) -> Self {
        let raw = flags as u64;
        let syn_ack = if raw & (SYN | ACK) == SYN | ACK { ACK } else { 0 };
        Self(raw | ((raw & FIN_SYN_RST) | syn_ack) << CLOUD_SHIFT)
    }

    /// Marks of one ICMP or ICMPv6 packet.
    #[inline(always)]
    pub const fn icmp(icmp_type: u8, code: u8) -> Self {
        let value = (icmp_type as u64) << 8 | code as u64;
        Self(value | (!value & ICMP_MASK) << ICMP_COMPLEMENT_SHIFT)
    }

    /// Marks of one packet with or without a VLAN tag: a flow that is tagged only at times is mixed too.
    #[inline(always)]
    pub const fn vlan(tag: Option<u16>) -> Self {
        let value = match tag {
            Some(id) => VLAN_PRESENT | (id as u64 & VLAN_ID),
            None => 0,
        };
        Self(value << VLAN_SHIFT | (!value & VLAN_MASK) << VLAN_COMPLEMENT_SHIFT)
    }

    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// OR of the flag bytes; for TCP only.
    pub const fn tcp_flags(self) -> u8 {
        self.0 as u8
    }

    /// OR of the masks that the cloud's flow logs define; for TCP only.
    pub const fn cloud_tcp_flags(self) -> u8 {
        (self.0 >> CLOUD_SHIFT) as u8
    }

    /// Type and code; for ICMP and ICMPv6 only.
    pub const fn icmp_type_and_code(self) -> Seen<(u8, u8)> {
        let value = self.0 & ICMP_MASK;
        match seen(value, self.0 >> ICMP_COMPLEMENT_SHIFT & ICMP_MASK) {
            Seen::Never => Seen::Never,
            Seen::One(()) => Seen::One(((value >> 8) as u8, value as u8)),
            Seen::Several => Seen::Several,
        }
    }

    /// Identifier of the outermost VLAN tag, `None` in it where packets had no tag.
    pub const fn vlan_id(self) -> Seen<Option<u16>> {
        let value = self.0 >> VLAN_SHIFT & VLAN_MASK;
        match seen(value, self.0 >> VLAN_COMPLEMENT_SHIFT & VLAN_MASK) {
            Seen::Never => Seen::Never,
            Seen::One(()) if value & VLAN_PRESENT == 0 => Seen::One(None),
            Seen::One(()) => Seen::One(Some((value & VLAN_ID) as u16)),
            Seen::Several => Seen::Several,
        }
    }
}

/// What the OR of values and the OR of their complements say together.
const fn seen(value: u64, complement: u64) -> Seen<()> {
    if value | complement == 0 {
        Seen::Never
    } else if value & complement == 0 {
        Seen::One(())
    } else {
        Seen::Several
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_is_in_the_clouds_mask_only_beside_syn() {
        // FIN-ACK is 1, RST-ACK 4, PSH-ACK 0, SYN-ACK 18, SYN with ECE and CWR 2.
        for (flags, cloud) in [(0x11, 1), (0x14, 4), (0x18, 0), (0x12, 18), (0xc2, 2), (0xff, 23)] {
            assert_eq!(Marks::tcp(flags).cloud_tcp_flags(), cloud, "flags {flags:#x}");
            assert_eq!(Marks::tcp(flags).tcp_flags(), flags);
        }
        // A SYN and an ACK in two packets are no SYN-ACK.
        let both = Marks::tcp(0x02).and(Marks::tcp(0x10));
        assert_eq!((both.tcp_flags(), both.cloud_tcp_flags()), (0x12, 0x02));
    }

    #[test]
    fn one_icmp_type_is_told_from_several() {
        assert_eq!(Marks::NONE.icmp_type_and_code(), Seen::Never);
        assert_eq!(Marks::icmp(0, 0).icmp_type_and_code(), Seen::One((0, 0)));
        let same = Marks::icmp(3, 1).and(Marks::icmp(3, 1)).and(Marks::NONE);
        assert_eq!(same.icmp_type_and_code(), Seen::One((3, 1)));
        assert_eq!(Marks::icmp(3, 1).and(Marks::icmp(3, 3)).icmp_type_and_code(), Seen::Several);
    }

    #[test]
    fn a_flow_tagged_only_at_times_is_mixed() {
        assert_eq!(Marks::NONE.vlan_id(), Seen::Never);
        assert_eq!(Marks::vlan(None).vlan_id(), Seen::One(None));
        assert_eq!(Marks::vlan(Some(0)).vlan_id(), Seen::One(Some(0)));
        assert_eq!(Marks::vlan(Some(4095)).and(Marks::tcp(0xff)).vlan_id(), Seen::One(Some(4095)));
        assert_eq!(Marks::vlan(Some(7)).and(Marks::vlan(None)).vlan_id(), Seen::Several);
        assert_eq!(Marks::vlan(Some(7)).and(Marks::vlan(Some(8))).vlan_id(), Seen::Several);
    }

    #[test]
    fn tcp_marks_and_vlan_do_not_touch() {
        let marks = Marks::tcp(0xff).and(Marks::vlan(Some(5)));
        assert_eq!((marks.tcp_flags(), marks.cloud_tcp_flags()), (0xff, 23));
        assert_eq!(marks.vlan_id(), Seen::One(Some(5)));
    }
}
