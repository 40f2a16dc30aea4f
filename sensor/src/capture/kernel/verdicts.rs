//! Which drops the kernel is asked for, and by which of its tracepoints.

use super::btf::{Btf, BtfError};
use flowtap_abi::DROP_REASONS_MAX;
use std::collections::BTreeMap;

/// The running kernel's drop reasons, by number.
#[derive(Debug, Clone, Default)]
pub struct DropReasons {
    names: BTreeMap<u32, String>,
}

/// How the verdict program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictSource {
    /// A tracepoint whose arguments the verifier knows.
    TypedTracepoint,
    /// The same one, raw.
    RawTracepoint,
}

impl DropReasons {
    /// Reads them from the kernel's type information.
    ///
    /// # Errors
    /// The kernel has no drop reasons: it is older than 5.17.
    pub fn read(btf: &Btf) -> Result<Self, BtfError> {
        let values = btf.enum_values("skb_drop_reason")?;
        let names = values
            .into_iter()
            .filter(|(_, number)| *number < DROP_REASONS_MAX)
            .filter_map(|(name, number)| Some((number, name.strip_prefix(PREFIX)?.to_owned())))
            .collect();
        Ok(Self { names })
    }

    /// The kernel's name of a reason, without the common beginning: `NETFILTER_DROP`.
    pub fn name(&self, number: u32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// The number of a reason in the running kernel.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.names.iter().find(|(_, known)| *known == name).map(|(&number, _)| number)
    }

    /// All numbers and names.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names.iter().map(|(&number, name)| (number, name.as_str()))
    }
}

const PREFIX: &str = "SKB_DROP_REASON_";

/// A global of the programs, and the structure and member in the kernel whose offset it is.
pub(crate) type Offset = (&'static str, &'static str, &'static str);

/// Offsets that the verdict program wants.
pub(super) const OFFSETS: [Offset; 23] = [
    ("SKB_HEAD", "sk_buff", "head"),
    ("SKB_DATA", "sk_buff", "data"),
    ("SKB_TAIL", "sk_buff", "tail"),
    ("SKB_END", "sk_buff", "end"),
    ("SKB_LEN", "sk_buff", "len"),
    ("SKB_NETWORK_HEADER", "sk_buff", "network_header"),
    ("SKB_MAC_HEADER", "sk_buff", "mac_header"),
    ("SKB_PROTOCOL", "sk_buff", "protocol"),
    ("SKB_DEVICE", "sk_buff", "dev"),
    ("SKB_IN_INTERFACE", "sk_buff", "skb_iif"),
    ("SKB_SOCKET", "sk_buff", "sk"),
    ("SKB_MARK", "sk_buff", "mark"),
    ("SKB_CONTROL_BUFFER", "sk_buff", "cb"),
    ("CONTROL_BUFFER_WORDS", "qdisc_skb_cb", "data"),
    ("SKB_CHECKSUM_START", "sk_buff", "csum_start"),
    ("SKB_CHECKSUM_OFFSET", "sk_buff", "csum_offset"),
    ("SHARED_GSO_SIZE", "skb_shared_info", "gso_size"),
    ("SHARED_GSO_SEGMENTS", "skb_shared_info", "gso_segs"),
    ("DEVICE_INDEX", "net_device", "ifindex"),
    ("DEVICE_TYPE", "net_device", "type"),
    ("DEVICE_NAMESPACE", "net_device", "nd_net.net"),
    ("SOCKET_NAMESPACE", "sock", "__sk_common.skc_net.net"),
    ("NAMESPACE_INODE", "net", "ns.inum"),
];

/// The few that tell a copy of ours among them, and how many frames it is.
pub(crate) const LOSS_OFFSETS: [Offset; 10] = [
    ("SKB_HEAD", "sk_buff", "head"),
    ("SKB_END", "sk_buff", "end"),
    ("SKB_DEVICE", "sk_buff", "dev"),
    ("SKB_MARK", "sk_buff", "mark"),
    ("SKB_CONTROL_BUFFER", "sk_buff", "cb"),
    ("CONTROL_BUFFER_WORDS", "qdisc_skb_cb", "data"),
    ("SHARED_GSO_SIZE", "skb_shared_info", "gso_size"),
    ("DEVICE_NAMESPACE", "net_device", "nd_net.net"),
    ("DEVICE_PARENT", "net_device", "dev.parent"),
    ("NAMESPACE_INODE", "net", "ns.inum"),
];

/// The same in bits: how far a packet's transport checksum is.
pub(super) const CHECKSUM_STATE: Offset = ("SKB_CHECKSUM_STATE", "sk_buff", "ip_summed");

/// The same in bytes, of what younger kernels have alone: the VLAN tag beside a packet as one word (since 6.1).
pub(super) const TAG: Offset = ("SKB_TAG", "sk_buff", "vlan_all");

/// Which argument of the tracepoint the verdict program takes for the reason.
pub(super) const REASON_ARGUMENT: u32 = 2;
