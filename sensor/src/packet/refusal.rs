//! Why a frame is not a packet.
//!
//! A refusal is a reason and nothing more: no text, no allocation. The ledger has one counter for each.

/// Why [`parse`](super::parse) gives no [`Packet`](super::Packet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The frame is whole and says that it holds something else than IP. Counted by type; nothing is wrong.
    NotIp(NotIp),
    /// There may have been an IP packet, but it cannot be read.
    Fault(Fault),
}

impl Refusal {
    /// Every refusal.
    pub fn all() -> impl Iterator<Item = Self> {
        NotIp::ALL.into_iter().map(Self::NotIp).chain(Fault::ALL.into_iter().map(Self::Fault))
    }

    /// Whether traffic may be missing from the records because of it: the packet may well be sound, and we cannot read
    /// it. A packet that contradicts itself is none that a host would take either.
    pub fn is_loss(self) -> bool {
        match self {
            Self::NotIp(_) => false,
            Self::Fault(fault) => match fault {
                Fault::UnsupportedLinkType
                | Fault::TruncatedLink
                | Fault::TruncatedTag
                | Fault::TruncatedIp
                | Fault::TooManyTags
                | Fault::WifiProtected
                | Fault::WifiAggregate
                | Fault::WifiFragment => true,
                Fault::LinkHeader | Fault::IpVersion | Fault::HeaderLength | Fault::TotalLength => false,
            },
        }
    }

    /// The name that counters carry. Names are unique and never change.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotIp(kind) => kind.name(),
            Self::Fault(fault) => fault.name(),
        }
    }
}

impl From<NotIp> for Refusal {
    fn from(kind: NotIp) -> Self {
        Self::NotIp(kind)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What a frame holds instead of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotIp {
    /// Address resolution (RFC 826).
    Arp,
    /// Link layer discovery (IEEE 802.1AB).
    Lldp,
    /// Port authentication (IEEE 802.1X).
    Eapol,
    /// Encrypted by IEEE 802.1AE: what is inside cannot be known.
    Macsec,
    /// A bridge's spanning tree (IEEE 802.1D).
    SpanningTree,
    /// Another protocol above logical link control (IEEE 802.2).
    Llc,
    /// PPPoE looking for, or leaving, its peer (RFC 2516).
    PppoeDiscovery,
    /// PPP talking about itself: link and network control, authentication (RFC 1661).
    PppControl,
    /// What an MPLS label stack carries is not IP: a pseudowire.
    MplsPayload,
    /// Wi-Fi beacons, association and the like.
    WifiManagement,
    /// Wi-Fi acknowledgements and the like.
    WifiControl,
    /// A Wi-Fi data frame without data.
    WifiNoData,
    /// Any other ethertype, PPP protocol or address family.
    Other,
}

impl NotIp {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Arp,
        Self::Lldp,
        Self::Eapol,
        Self::Macsec,
        Self::SpanningTree,
        Self::Llc,
        Self::PppoeDiscovery,
        Self::PppControl,
        Self::MplsPayload,
        Self::WifiManagement,
        Self::WifiControl,
        Self::WifiNoData,
        Self::Other,
    ];

    /// The name that counters carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Lldp => "lldp",
            Self::Eapol => "eapol",
            Self::Macsec => "macsec",
            Self::SpanningTree => "spanning-tree",
            Self::Llc => "llc",
            Self::PppoeDiscovery => "pppoe-discovery",
            Self::PppControl => "ppp-control",
            Self::MplsPayload => "mpls-payload",
            Self::WifiManagement => "wifi-management",
            Self::WifiControl => "wifi-control",
            Self::WifiNoData => "wifi-no-data",
            Self::Other => "other-protocol",
        }
    }
}

/// What keeps a frame's IP header from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// We have no parser for frames of this link type.
    UnsupportedLinkType,
    /// The captured bytes end within the link layer's own header.
    TruncatedLink,
    /// The captured bytes end within a VLAN tag, label, LLC, PPP or PPPoE header.
    TruncatedTag,
    /// The captured bytes end within the IP header or its IPv4 options.
    TruncatedIp,
    /// The link layer's own header contradicts itself.
    LinkHeader,
    /// More VLAN tags, labels or attributes than our bounds allow.
    TooManyTags,
    /// The IP header's version is not the one announced, or neither 4 nor 6.
    IpVersion,
    /// The IPv4 header says that it is shorter than 20 bytes.
    HeaderLength,
    /// The IPv4 packet says that it is shorter than its own header.
    TotalLength,
    /// A Wi-Fi frame whose payload is encrypted.
    WifiProtected,
    /// A Wi-Fi frame that aggregates several packets (A-MSDU), which we do not take apart.
    WifiAggregate,
    /// A later piece of a fragmented Wi-Fi frame: it holds no headers.
    WifiFragment,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 12] = [
        Self::UnsupportedLinkType,
        Self::TruncatedLink,
        Self::TruncatedTag,
        Self::TruncatedIp,
        Self::LinkHeader,
        Self::TooManyTags,
        Self::IpVersion,
        Self::HeaderLength,
        Self::TotalLength,
        Self::WifiProtected,
        Self::WifiAggregate,
        Self::WifiFragment,
    ];

    /// The name that counters carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnsupportedLinkType => "unsupported-link-type",
            Self::TruncatedLink => "truncated-link-header",
            Self::TruncatedTag => "truncated-tag",
            Self::TruncatedIp => "truncated-ip-header",
            Self::LinkHeader => "bad-link-header",
            Self::TooManyTags => "too-many-tags",
            Self::IpVersion => "bad-ip-version",
            Self::HeaderLength => "bad-header-length",
            Self::TotalLength => "bad-total-length",
            Self::WifiProtected => "wifi-protected",
            Self::WifiAggregate => "wifi-aggregate",
            Self::WifiFragment => "wifi-fragment",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_refusal_is_there_once_and_has_its_own_name() {
        let all = Refusal::all().count();
        assert_eq!(Refusal::all().collect::<HashSet<_>>().len(), all);
        assert_eq!(Refusal::all().map(Refusal::name).collect::<HashSet<_>>().len(), all);
    }

    #[test]
    fn names_are_kebab_case() {
        for refusal in Refusal::all() {
            assert!(refusal.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{refusal:?}");
        }
    }

    #[test]
    fn a_refusal_stays_small() {
        assert!(size_of::<Refusal>() <= 2);
    }
}
