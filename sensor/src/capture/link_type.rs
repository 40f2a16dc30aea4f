//! What the first bytes of a frame are.
//!
//! Authority: the LINKTYPE registry of tcpdump.org.

/// A link-layer header type that [`crate::packet`] can read, or that it refuses by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LinkType {
    /// Ethernet (1).
    Ethernet,
    /// Linux cooked capture version 1 (113).
    LinuxSll,
    /// Linux cooked capture version 2 (276).
    LinuxSll2,
    /// Raw IP, version told by its first nibble (12, 14, 101, and 228, 229 for one version).
    Raw,
    /// BSD loopback, family in either byte order (0).
    Null,
    /// OpenBSD loopback, family in network byte order (108).
    Loop,
    /// PPP, with or without HDLC framing bytes (9, 50).
    Ppp,
    /// PPPoE session or discovery without Ethernet (51).
    Pppoe,
    /// Cisco HDLC (104).
    CiscoHdlc,
    /// IEEE 802.11 (105).
    Ieee80211,
    /// IEEE 802.11 with a radiotap header (127).
    Radiotap,
    /// Linux netfilter log (239).
    Nflog,
    /// Anything else: its frames are refused and counted.
    Unsupported,
}

impl LinkType {
    /// What the registry's `number` stands for.
    pub fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 | 50 => Self::Ppp,
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            51 => Self::Pppoe,
            104 => Self::CiscoHdlc,
            105 => Self::Ieee80211,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            127 => Self::Radiotap,
            239 => Self::Nflog,
            276 => Self::LinuxSll2,
            _ => Self::Unsupported,
        }
    }
}
