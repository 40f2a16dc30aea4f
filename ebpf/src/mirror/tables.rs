//! All memory of the mirroring programs.
//!
//! Two generations stand side by side in every table; see `flowtap_abi::mirror`. What is fixed in size here is a bound of
//! the configuration, which the sensor refuses to exceed.

use super::{
    Copy,
    checksum::Small,
    decide::Walk,
    facts::{Facts, Walking},
};
use crate::maps::atomic_add;
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::map,
    maps::{
        Array, HashMap, LruHashMap, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use flowtap_abi::{
    Direction, FragmentKey, FragmentPorts, GENERATIONS,
    mirror::{
        Buckets, CopyCounts, CopyOutcome, DIRECT_ACCOUNTS, DirectCounts, DirectPath, INTERVALS_MAX, Interval,
        KnownAddress, LISTS_MAX, MirrorRule, MirrorSession, MirrorState, MirrorTarget, PROTOCOLS, PrefixV4, PrefixV6,
        RULES_TOTAL_MAX, RuleList, RuleSet, SESSIONS_MAX, SETS_MAX, TARGETS_OF_SESSION_MAX, Unjudged, list_key,
    },
};

const BOTH: u32 = GENERATIONS as u32;
const SLOTS: u32 = BOTH * SESSIONS_MAX;
/// Entries of a map whose size comes with the configuration.
const PLACEHOLDER_ENTRIES: u32 = 1024;

#[map]
static MIRROR_STATE: Array<MirrorState> = Array::with_max_entries(1, 0);
/// By [`list_key`].
#[map]
static MIRROR_LISTS: HashMap<u64, RuleList> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
static MIRROR_RULES: Array<MirrorRule> = Array::with_max_entries(BOTH * RULES_TOTAL_MAX, 0);
#[map]
static MIRROR_SETS: Array<RuleSet> = Array::with_max_entries(BOTH * SETS_MAX, 0);
/// Indexes of sets.
#[map]
static MIRROR_PROTOCOLS: Array<u32> = Array::with_max_entries(BOTH * LISTS_MAX * PROTOCOLS, 0);
#[map]
static MIRROR_INTERVALS: Array<Interval> = Array::with_max_entries(BOTH * INTERVALS_MAX, 0);
/// Indexes of sets.
#[map]
static MIRROR_BLOCKS_V4: LpmTrie<PrefixV4, u32> = LpmTrie::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
static MIRROR_BLOCKS_V6: LpmTrie<PrefixV6, u32> = LpmTrie::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
static MIRROR_KNOWN: HashMap<KnownAddress, u32> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
static MIRROR_SESSIONS: Array<MirrorSession> = Array::with_max_entries(SLOTS, 0);
#[map]
static MIRROR_TARGETS: Array<MirrorTarget> = Array::with_max_entries(SLOTS * TARGETS_OF_SESSION_MAX, 0);
/// As the targets.
#[map]
static MIRROR_DIRECT: Array<DirectPath> = Array::with_max_entries(SLOTS * TARGETS_OF_SESSION_MAX, 0);
#[map]
static MIRROR_DIRECT_COUNTS: PerCpuArray<DirectCounts> = PerCpuArray::with_max_entries(DIRECT_ACCOUNTS, 0);
/// A small frame whose checksum is looked at, or the beginning of a larger one.
#[map]
static MIRROR_SMALL: PerCpuArray<Small> = PerCpuArray::with_max_entries(1, 0);
#[map]
static MIRROR_BUCKETS: Array<Buckets> = Array::with_max_entries(SLOTS, 0);
/// By slot and direction.
#[map]
static MIRROR_COUNTS: PerCpuArray<CopyCounts> = PerCpuArray::with_max_entries(2 * SLOTS, 0);
#[map]
static MIRROR_UNJUDGED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Unjudged::ALL.len() as u32, 0);
/// Ports of datagrams in pieces, so that later fragments find the rule of their first one. The oldest make room: losing
/// one makes its later fragments match by addresses and protocol alone.
#[map]
static MIRROR_FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);

/// What a program works out about one packet. It stands in a map, not on the stack, because the verifier follows each
/// value on the stack through all that comes behind, and here forgets how it was come by.
#[map]
static MIRROR_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Likewise.
#[map]
static MIRROR_WALKING: PerCpuArray<Walking> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
pub(crate) struct Scratch {
    /// How the pass over the packet went.
    pub(crate) answer: u32,
    pub(crate) facts: Facts,
    pub(crate) walk: Walk,
    pub(crate) copy: Copy,
}

/// The processor's own. A program that runs inside another here, as the tap does for a copy that leaves by a tapped device,
/// has ended before it comes to ask for it.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = MIRROR_SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the element exists for as long as the program is loaded, any bytes are one, and no other program uses it
    // before this one ends.
    Some(unsafe { &mut *scratch })
}

/// The processor's own walk over extension headers.
#[inline(always)]
pub(crate) fn walking() -> Option<&'static mut Walking> {
    let walking = MIRROR_WALKING.get_ptr_mut(0)?;
    // SAFETY: the element exists for as long as the program is loaded, any bytes that a walk leaves are one, and so are the
    // zeros that it begins with; who asked for it before has no more use for what he got.
    Some(unsafe { &mut *walking })
}

/// Which generation a packet is judged by: one load, at its beginning.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    let Some(state) = MIRROR_STATE.get_ptr(0) else { return 0 };
    // SAFETY: a member of the element, which exists for as long as the program is loaded.
    let generation = unsafe { &raw const (*state).generation };
    // SAFETY: it is one aligned word.
    unsafe { generation.read_volatile() & 1 }
}

/// The device that gives copies a link layer; `None` while there is none.
#[inline(always)]
pub(crate) fn link_device() -> Option<u32> {
    let state = MIRROR_STATE.get_ptr(0)?;
    // SAFETY: a member of the element, which exists for as long as the program is loaded.
    let device = unsafe { &raw const (*state).link_device };
    // SAFETY: it is one aligned word.
    Some(unsafe { device.read_volatile() }).filter(|device| *device != 0)
}

/// The list of an interface and direction; a pointer into the map, whose entry is not changed while it is current.
#[inline(always)]
pub(crate) fn list(interface: u32, generation: u32, direction: Direction) -> Option<&'static RuleList> {
    let list = MIRROR_LISTS.get_ptr(list_key(interface, generation, direction))?;
    // SAFETY: an element of the map. It is replaced only in the other generation, after running programs have ended.
    Some(unsafe { &*list })
}

#[inline(always)]
pub(crate) fn rule(index: u32) -> Option<&'static MirrorRule> {
    MIRROR_RULES.get(index)
}

#[inline(always)]
pub(crate) fn set(index: u32) -> Option<&'static RuleSet> {
    MIRROR_SETS.get(index)
}

#[inline(always)]
pub(crate) fn protocol(index: u32) -> Option<u32> {
    MIRROR_PROTOCOLS.get(index).copied()
}

#[inline(always)]
pub(crate) fn interval(index: u32) -> Option<&'static Interval> {
    MIRROR_INTERVALS.get(index)
}

#[inline(always)]
pub(crate) fn block_v4(list: u32, address: [u8; 4]) -> Option<u32> {
    MIRROR_BLOCKS_V4.get(Key::new(LIST_BITS + 32, PrefixV4 { list, address })).copied()
}

#[inline(always)]
pub(crate) fn block_v6(list: u32, address: [u8; 16]) -> Option<u32> {
    MIRROR_BLOCKS_V6.get(Key::new(LIST_BITS + 128, PrefixV6 { list, address })).copied()
}

/// What an address is known for; zero for most.
#[inline(always)]
pub(crate) fn known(address: [u8; 16], version: u32, set: u32) -> u32 {
    match MIRROR_KNOWN.get_ptr(KnownAddress { address, version, set }) {
        // SAFETY: an aligned word of the map's element.
        Some(roles) => unsafe { roles.read_volatile() },
        None => 0,
    }
}

#[inline(always)]
pub(crate) fn session(slot: u32) -> Option<&'static MirrorSession> {
    MIRROR_SESSIONS.get(slot)
}

#[inline(always)]
pub(crate) fn target(slot: u32, number: u32) -> Option<&'static MirrorTarget> {
    MIRROR_TARGETS.get(slot * TARGETS_OF_SESSION_MAX + number)
}

/// The way of a target's copies past the IP stack. User space changes it only while it leads nowhere.
#[inline(always)]
pub(crate) fn direct(slot: u32, number: u32) -> Option<*mut DirectPath> {
    MIRROR_DIRECT.get_ptr_mut(slot * TARGETS_OF_SESSION_MAX + number)
}

#[inline(always)]
pub(crate) fn direct_counts(account: u32) -> Option<*mut DirectCounts> {
    MIRROR_DIRECT_COUNTS.get_ptr_mut(account)
}

/// The processor's own room for one small frame, or the beginning of a larger one; it is done with before the copy goes on.
#[inline(always)]
pub(crate) fn small() -> Option<&'static mut Small> {
    let small = MIRROR_SMALL.get_ptr_mut(0)?;
    // SAFETY: the element exists for as long as the program is loaded, any bytes are one, and programs that run inside this
    // one are no more copies on their way out.
    Some(unsafe { &mut *small })
}

#[inline(always)]
pub(crate) fn buckets(slot: u32) -> Option<*mut Buckets> {
    MIRROR_BUCKETS.get_ptr_mut(slot)
}

/// Counts copies of a session. The counters are each processor's own, so this waits for nobody.
#[inline(always)]
pub(crate) fn count(slot: u32, direction: u32, outcome: CopyOutcome, frames: u64, bytes: u64) {
    let Some(counts) = MIRROR_COUNTS.get_ptr_mut(2 * slot + direction - Direction::Ingress as u32) else {
        return;
    };
    // SAFETY: a member of the element.
    let of_frames = unsafe { &raw mut (*counts).frames };
    // SAFETY: as above.
    let of_bytes = unsafe { &raw mut (*counts).bytes };
    // SAFETY: the outcome is below the length of the array.
    atomic_add(unsafe { of_frames.cast::<u64>().add(outcome as usize) }, frames);
    // SAFETY: as above.
    atomic_add(unsafe { of_bytes.cast::<u64>().add(outcome as usize) }, bytes);
}

#[inline(always)]
pub(crate) fn count_unjudged(why: Unjudged) {
    if let Some(counter) = MIRROR_UNJUDGED.get_ptr_mut(why as u32) {
        atomic_add(counter, 1);
    }
}

/// Leaves the ports of a first fragment.
#[inline(always)]
pub(crate) fn remember(key: &FragmentKey, ports: &FragmentPorts) {
    MIRROR_FRAGMENTS.insert(key, ports, u64::from(BPF_ANY)).unwrap_or_default();
}

/// Finds the ports that a first fragment left.
#[inline(always)]
pub(crate) fn recall(key: &FragmentKey) -> Option<FragmentPorts> {
    let ports = MIRROR_FRAGMENTS.get_ptr(key)?;
    // SAFETY: an element of the map. Should it make room for another datagram just now, the ports may be that one's.
    Some(unsafe { *ports })
}

/// Says that the pieces of a datagram are of a mirrored copy. Where its ports found no room, this finds none either.
#[inline(always)]
pub(crate) fn hold_back(key: &FragmentKey) {
    if let Some(ports) = MIRROR_FRAGMENTS.get_ptr_mut(key) {
        // SAFETY: a member of the map's element. Should it make room for another datagram just now, that one is held back:
        // the bound of the map is the bound of this error.
        unsafe { (*ports).is_of_a_copy = 1 };
    }
}

/// The number of the list is the first part of every prefix.
const LIST_BITS: u32 = 32;
