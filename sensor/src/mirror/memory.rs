//! How much memory mirroring takes when its queues, buffers and tables are full, told before it begins.

#[cfg(feature = "ebpf")]
pub use kernel::map_bytes;

pub use super::live::{TAP_BUFFER_BYTES, TAPS_MAX};
pub use super::sender::QUEUE_BYTES_MAX;

/// What frames wait in at a tapped interface: the kernel doubles what is asked for, for its own part of each (socket(7)).
pub const fn tap_bytes() -> u64 {
    2 * TAP_BUFFER_BYTES as u64
}

/// What copies wait in that user space makes for so many targets.
pub const fn queue_bytes(targets: usize) -> u64 {
    (targets * QUEUE_BYTES_MAX) as u64
}

#[cfg(feature = "ebpf")]
mod kernel {
    use crate::capture::kernel::{BUCKET_BYTES, ENTRY_BYTES, OBJECT};
    use crate::mirror::kernel::MirrorSizes;
    use aya_obj::{Map, Object, ParseError, generated::bpf_map_type};

    /// What the maps of the kernel's mirror take on a host with so many processors, as their programs declare them, once
    /// every entry is in use.
    ///
    /// # Errors
    /// The programs are not what they were built to be.
    pub fn map_bytes(sizes: &MirrorSizes, processors: u64) -> Result<u64, ParseError> {
        let object = Object::parse(OBJECT)?;
        let sized = sizes.map_entries();
        let ours = object.maps.iter().filter(|(name, _)| name.starts_with(PREFIX));
        Ok(ours
            .map(|(name, map)| {
                let given = sized.iter().find(|(known, _)| known == name).map(|(_, entries)| *entries);
                bytes_of(map, given.unwrap_or(map.max_entries()), processors)
            })
            .sum())
    }

    fn bytes_of(map: &Map, entries: u32, processors: u64) -> u64 {
        let (key, value) = (padded(map.key_size()), padded(map.value_size()));
        let each = match map.map_type() {
            kind if kind == bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 => value,
            kind if kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32 => value * processors,
            // What else there is has elements with a head, and most have a place to be found by.
            _ => ENTRY_BYTES + key + value + BUCKET_BYTES,
        };
        u64::from(entries) * each
    }

    /// The kernel keeps keys and values at multiples of eight bytes.
    fn padded(bytes: u32) -> u64 {
        u64::from(bytes).next_multiple_of(8)
    }

    /// Begins the names of the mirror's maps.
    const PREFIX: &str = "MIRROR_";

    #[cfg(test)]
    mod tests {
        use super::*;
        use flowtap_abi::mirror::{
            INTERVALS_MAX, Interval, LISTS_MAX, MirrorRule, PROTOCOLS, RULES_TOTAL_MAX, RuleSet, SETS_MAX,
        };

        /// The largest of the maps, by hand, and no more than a few others beside them.
        #[test]
        fn maps_take_what_their_entries_take() {
            let sizes = MirrorSizes::default();
            let all = map_bytes(&sizes, 1).unwrap();
            let of = |entries: u32, bytes: usize| 2 * u64::from(entries) * bytes as u64;
            let arrays = of(RULES_TOTAL_MAX, size_of::<MirrorRule>())
                + of(SETS_MAX, size_of::<RuleSet>())
                // Every value has a place of eight bytes.
                + of(LISTS_MAX * PROTOCOLS, 8)
                + of(INTERVALS_MAX, size_of::<Interval>());
            // A head of 48 bytes, a key of 12 or 24 bytes, a value of 4 and a place of 16, in both generations.
            let blocks = of(sizes.blocks_max, 48 + 16 + 8 + 16) + of(sizes.blocks_max, 48 + 24 + 8 + 16);
            assert!(all > arrays + blocks, "{all}");
            assert!(all < (arrays + blocks) * 3 / 2, "{all}");
            let more = map_bytes(&MirrorSizes { blocks_max: sizes.blocks_max + 1, ..sizes }, 1).unwrap();
            assert_eq!(more - all, of(1, 48 + 16 + 8 + 16) + of(1, 48 + 24 + 8 + 16));
            assert!(map_bytes(&sizes, 2).unwrap() > all, "every processor has its own counters");
        }
    }
}
