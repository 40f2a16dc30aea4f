//! What only the kernel plane asks for: the room it has in the kernel, and which drops are REJECT.

use std::str::FromStr;

use serde::Deserialize;

use super::flow_log::whole_number;
use super::value::{ValueError, read_as_text};

/// The settings of the kernel plane, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSettings {
    /// Flows of each address family that the kernel holds between two turns.
    pub flow_map_max: MapMax,
    /// Dropped flows that it holds between two turns.
    pub verdict_map_max: MapMax,
    /// Datagrams in pieces whose ports it remembers.
    pub fragment_map_max: MapMax,
    /// Where flows go that find no room in a map.
    pub overflow_buffer: OverflowBuffer,
    /// The drop reasons that make REJECT rows; `None` for [`POLICY_REASONS`].
    pub drop_reasons: Option<Vec<ReasonName>>,
}

/// The `[kernel]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct RawKernel {
    flow_map_max: Option<MapMax>,
    verdict_map_max: Option<MapMax>,
    fragment_map_max: Option<MapMax>,
    overflow_buffer: Option<OverflowBuffer>,
    drop_reasons: Option<Vec<ReasonName>>,
}

impl RawKernel {
    pub(super) fn complete(self) -> KernelSettings {
        KernelSettings {
            flow_map_max: self.flow_map_max.unwrap_or(MapMax(FLOW_MAP_DEFAULT)),
            verdict_map_max: self.verdict_map_max.unwrap_or(MapMax(VERDICT_MAP_DEFAULT)),
            fragment_map_max: self.fragment_map_max.unwrap_or(MapMax(FRAGMENT_MAP_DEFAULT)),
            overflow_buffer: self.overflow_buffer.unwrap_or(OverflowBuffer(OVERFLOW_DEFAULT_BYTES)),
            drop_reasons: self.drop_reasons,
        }
    }
}

impl KernelSettings {
    /// The names of the drop reasons that make REJECT rows.
    pub fn drop_reasons(&self) -> Vec<&str> {
        match &self.drop_reasons {
            Some(names) => names.iter().map(ReasonName::as_str).collect(),
            None => POLICY_REASONS.to_vec(),
        }
    }

    /// Whether the configuration names them: then the running kernel must know each.
    pub fn names_drop_reasons(&self) -> bool {
        self.drop_reasons.is_some()
    }

    /// The same for the loader, with room for copies of what is dropped if there shall be any.
    #[cfg(feature = "ebpf")]
    pub fn sizes(&self, copies_drops: bool) -> crate::capture::kernel::Sizes {
        let default = crate::capture::kernel::Sizes::default();
        crate::capture::kernel::Sizes {
            flows_max: self.flow_map_max.0,
            verdicts_max: self.verdict_map_max.0,
            fragments_max: self.fragment_map_max.0,
            overflow_bytes: self.overflow_buffer.0,
            copies_bytes: if copies_drops { crate::capture::kernel::COPIES_BYTES } else { default.copies_bytes },
            ..default
        }
    }
}

impl Default for KernelSettings {
    fn default() -> Self {
        RawKernel::default().complete()
    }
}

/// Reasons of the kernel's drops that are somebody's policy (`include/net/dropreason-core.h`, without the common
/// beginning). Kernels differ in which of them they have.
pub const POLICY_REASONS: [&str; 9] = [
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    "XDP",
    "IP_RPFILTER",
    "BPF_CGROUP_EGRESS",
    "SOCKET_FILTER",
    "XFRM_POLICY",
    "SECURITY_HOOK",
];

/// A sixth of a second of a million new flows a second; the ring buffer takes what comes while a full map is turned.
const FLOW_MAP_DEFAULT: u32 = 1 << 17;
const VERDICT_MAP_DEFAULT: u32 = 1 << 14;
const FRAGMENT_MAP_DEFAULT: u32 = 1 << 13;
const OVERFLOW_DEFAULT_BYTES: u32 = 4 << 20;

/// How many entries a map of the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapMax(u32);

impl MapMax {
    /// Entries.
    pub fn entries(self) -> u32 {
        self.0
    }
}

impl FromStr for MapMax {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let count = whole_number(text).and_then(|count| u32::try_from(count).ok());
        let entries = count.filter(|count| (MAP_ENTRIES_MIN..=MAP_ENTRIES_MAX).contains(count));
        entries.map(Self).ok_or_else(|| ValueError::new(text, "a number of entries", "write 64 to 16777216"))
    }
}

const MAP_ENTRIES_MIN: u32 = 64;
const MAP_ENTRIES_MAX: u32 = 1 << 24;

/// The size of the ring buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverflowBuffer(u32);

impl OverflowBuffer {
    /// Bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl FromStr for OverflowBuffer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mebibytes = text.strip_suffix("MiB").and_then(whole_number).and_then(|count| u32::try_from(count).ok());
        let size = mebibytes.filter(|count| count.is_power_of_two() && *count <= OVERFLOW_MEBIBYTES_MAX);
        let words = "write `1MiB` to `1024MiB`, a power of two";
        size.map(|count| Self(count << 20)).ok_or_else(|| ValueError::new(text, "a size of a ring buffer", words))
    }
}

const OVERFLOW_MEBIBYTES_MAX: u32 = 1024;

/// What the kernel calls a drop reason, without `SKB_DROP_REASON_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonName(String);

impl ReasonName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReasonName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if !text.is_empty() && text.bytes().all(is_name) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(text, "a drop reason", "write it as the kernel does, like `NETFILTER_DROP`"))
    }
}

read_as_text!(MapMax, OverflowBuffer, ReasonName);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, RawConfig, Settings};

    fn settings(text: &str) -> KernelSettings {
        Settings::new(Some(RawConfig::parse(text).unwrap()), Flags::default()).unwrap().live.kernel
    }

    #[test]
    fn the_table_is_read_and_checked() {
        let given =
            settings("[kernel]\nflow-map-max = 1000\noverflow-buffer = '8MiB'\ndrop-reasons = ['NETFILTER_DROP']");
        assert_eq!((given.flow_map_max.entries(), given.overflow_buffer.bytes()), (1000, 8 << 20));
        assert_eq!((given.drop_reasons(), given.names_drop_reasons()), (vec!["NETFILTER_DROP"], true));
        let default = settings("");
        assert_eq!(default, KernelSettings::default());
        assert_eq!((default.drop_reasons().len(), default.names_drop_reasons()), (9, false));
        for (text, refusal) in [
            ("flow-map-max = 10", "line 2: `10` is not a number of entries: write 64 to 16777216"),
            (
                "overflow-buffer = '3MiB'",
                "line 2: `3MiB` is not a size of a ring buffer: write `1MiB` to `1024MiB`, a power of two",
            ),
            (
                "drop-reasons = ['nft']",
                "line 2: `nft` is not a drop reason: write it as the kernel does, like `NETFILTER_DROP`",
            ),
            ("flow-map = 10", "line 2: unknown key `flow-map`, did you mean `flow-map-max`?"),
        ] {
            assert_eq!(RawConfig::parse(&format!("[kernel]\n{text}")).unwrap_err().to_string(), refusal);
        }
    }
}
