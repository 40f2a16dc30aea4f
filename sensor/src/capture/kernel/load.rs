//! Brings programs and maps into the kernel.
//!
//! Everything that a kernel may lack is found out here, before anything is attached, and told apart: the caller then
//! takes the packet plane and says why.

use super::{
    attach::{Attachment, Taps},
    btf::{Btf, BtfError, KERNEL_BTF},
    drain::{Drain, DrainError},
    verdicts::{CHECKSUM_STATE, DropReasons, OFFSETS, Offset, REASON_ARGUMENT, TAG},
};
use crate::sys::barrier;
use aya::{EbpfError, EbpfLoader, maps::MapError, programs::ProgramError};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// The kernel side, as the build script built it.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowtap.bpf.o"));

/// The network namespace of whoever asks.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// How much room there is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// IPv4 flows that one generation holds; IPv6 as many.
    pub flows_max: u32,
    /// Dropped flows that one generation holds.
    pub verdicts_max: u32,
    /// Datagrams in pieces whose ports are remembered.
    pub fragments_max: u32,
    /// Interfaces times reasons that have a counter of their own.
    pub reasons_max: u32,
    /// Size of the ring buffer for what finds no room; a power of two, and a whole number of pages.
    pub overflow_bytes: u32,
    /// Size of the ring buffer for copies of dropped packets, likewise.
    pub copies_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            flows_max: 1 << 18,
            verdicts_max: 1 << 14,
            fragments_max: 1 << 13,
            reasons_max: 1 << 12,
            overflow_bytes: 1 << 20,
            copies_bytes: COPIES_BYTES_MIN,
        }
    }
}

impl Sizes {
    /// About how much kernel memory all maps take together, in bytes: entries and buckets of preallocated hash maps,
    /// two generations each.
    pub const fn memory_bytes(&self) -> u64 {
        const fn map(entries: u32, key_bytes: u64, value_bytes: u64) -> u64 {
            let entry = ENTRY_BYTES + key_bytes.next_multiple_of(8) + value_bytes;
            entries as u64 * entry + (entries.next_power_of_two() as u64) * BUCKET_BYTES
        }
        let generations = flowtap_abi::GENERATIONS as u64;
        generations * (map(self.flows_max, 20, 40) + map(self.flows_max, 44, 40) + map(self.verdicts_max, 48, 40))
            + map(self.fragments_max, 44, 8)
            + map(self.reasons_max, 8, 8)
            + self.overflow_bytes as u64
            + self.copies_bytes as u64
    }
}

/// Room for copies of dropped packets where nobody wants any: the least there can be.
pub(super) const COPIES_BYTES_MIN: u32 = 4096;
/// Where somebody does: some 14,000 small packets, or 2,000 of an Ethernet's size.
pub const COPIES_BYTES: u32 = 1 << 22;

/// The kernel's own part of a hash map's element, and its bucket.
pub(crate) const ENTRY_BYTES: u64 = 48;
pub(crate) const BUCKET_BYTES: u64 = 16;

/// Why there is no kernel plane.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel does not describe its types, or lacks one that is needed.
    #[error("the kernel does not describe its own types as needed ({KERNEL_BTF})")]
    Btf(#[from] BtfError),
    /// The kernel does not say why it drops a packet.
    #[error("this kernel gives no reasons for what it drops, as Linux 5.17 and later do")]
    NoReasons,
    /// The kernel's drop tracepoint has no reason where it should be.
    #[error("the drop tracepoint of this kernel has its reason as argument {argument}")]
    ReasonArgument {
        /// Where it is.
        argument: u32,
    },
    /// The kernel cannot wait for running programs (`nohz_full`), so a generation is never known to be quiet.
    #[error("the kernel offers no membarrier that waits for its programs")]
    NoBarrier,
    /// The caller may not load programs.
    #[error("loading needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Permission,
    /// The caller's network namespace cannot be told.
    #[error("the network namespace cannot be told")]
    Namespace(#[source] io::Error),
    /// A map has no room to be made, or the object is not for this kernel.
    #[error("the kernel refuses the maps")]
    Object(#[source] Box<EbpfError>),
    /// The object is not the one this program was built with.
    #[error("the kernel side has no map {name}")]
    NoMap {
        /// Its name.
        name: &'static str,
    },
    /// The maps are not what the drain takes them for.
    #[error("the kernel side does not fit")]
    Drain(#[from] DrainError),
    /// A map cannot be written.
    #[error("a map cannot be written")]
    Map(#[from] MapError),
}

/// Creates all maps and prepares the programs, for the network namespace of the calling thread. Nothing is attached yet;
/// programs are verified when they are first attached, and the drain, which holds the maps, must be alive then.
///
/// # Errors
/// What the kernel lacks, or the caller.
pub fn load(sizes: &Sizes) -> Result<(Taps, Drain), LoadError> {
    if !barrier::is_offered().unwrap_or(false) {
        return Err(LoadError::NoBarrier);
    }
    let btf = Btf::from_file(Path::new(KERNEL_BTF))?;
    let argument = match btf.tracepoint_argument("kfree_skb", "skb_drop_reason") {
        Err(BtfError::Missing { .. }) => return Err(LoadError::NoReasons),
        other => other?,
    };
    if argument != REASON_ARGUMENT {
        return Err(LoadError::ReasonArgument { argument });
    }
    let reasons = DropReasons::read(&btf)?;
    let namespace = own_namespace().map_err(LoadError::Namespace)?;
    let mut offsets = offsets(&btf, &OFFSETS)?;
    let (global, structure, member) = CHECKSUM_STATE;
    offsets.push((global, btf.bit_offset(structure, member)?));
    let (global, structure, member) = TAG;
    offsets.extend(btf.offset(structure, member).ok().map(|offset| (global, offset)));

    let mut loader = EbpfLoader::new();
    loader.override_global("WATCHED_NAMESPACE", &namespace, true);
    let [tc_ingress, socket_filter] =
        ["TC_INGRESS", "SOCKET_FILTER"].map(|name| reasons.number(name).unwrap_or(u32::MAX));
    loader.override_global("TC_INGRESS", &tc_ingress, true);
    loader.override_global("SOCKET_FILTER", &socket_filter, true);
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    let flow_maps = ["FLOWS_V4_A", "FLOWS_V4_B", "FLOWS_V6_A", "FLOWS_V6_B"].map(|name| (name, sizes.flows_max));
    let verdict_maps = ["VERDICTS_A", "VERDICTS_B"].map(|name| (name, sizes.verdicts_max));
    let others = [
        ("FRAGMENTS", sizes.fragments_max),
        ("REASONS", sizes.reasons_max),
        ("OVERFLOW", sizes.overflow_bytes),
        ("DROP_COPIES", sizes.copies_bytes),
    ];
    for (name, entries_max) in flow_maps.into_iter().chain(verdict_maps).chain(others) {
        loader.map_max_entries(name, entries_max);
    }
    let mut object = loader.load(OBJECT).map_err(refused)?;
    let drain = Drain::new(&mut object)?;
    Ok((Taps::new(object, reasons, Attachment::best()), drain))
}

/// What globals are to be set to, so that programs find their way in the kernel's structures.
///
/// # Errors
/// The kernel has no such member.
pub(crate) fn offsets(btf: &Btf, wanted: &[Offset]) -> Result<Vec<(&'static str, u32)>, BtfError> {
    wanted.iter().map(|(global, structure, member)| Ok((*global, btf.offset(structure, member)?))).collect()
}

/// Inode number of the calling thread's network namespace.
///
/// # Errors
/// What the system says.
pub(crate) fn own_namespace() -> io::Result<u32> {
    // Those of the namespace file system are 32 bits wide.
    u32::try_from(fs::metadata(OWN_NAMESPACE)?.ino()).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn refused(error: EbpfError) -> LoadError {
    let cause = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
        | EbpfError::ProgramError(ProgramError::LoadError { io_error, .. }) => Some(io_error),
        EbpfError::MapError(MapError::SyscallError(error)) => Some(&error.io_error),
        _ => None,
    };
    if cause.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        return LoadError::Permission;
    }
    LoadError::Object(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_before_it_is_taken() {
        // A kernel entry of 48 bytes, key and value rounded up to eight, and a bucket of 16 for each of a power of two.
        let sizes = Sizes {
            flows_max: 1000,
            verdicts_max: 1,
            fragments_max: 1,
            reasons_max: 1,
            overflow_bytes: 4096,
            copies_bytes: 8192,
        };
        let flows = 2 * (1000 * (48 + 24 + 40) + 1024 * 16 + 1000 * (48 + 48 + 40) + 1024 * 16);
        let verdicts = 2 * (48 + 48 + 40 + 16);
        let others = (48 + 48 + 8 + 16) + (48 + 8 + 8 + 16) + 4096 + 8192;
        assert_eq!(sizes.memory_bytes(), flows + verdicts + others);
    }
}
