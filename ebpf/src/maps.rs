//! All memory of the kernel side, and how a reason is counted.
//!
//! Sizes written here are the least that makes sense; the loader replaces them by those of the configuration. The two
//! maps of a pair are the generations: [`second_generation`] says which one is counted into.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd};
use flowtap_abi::{
    Counts, DROP_REASONS_MAX, FlowKeyV4, FlowKeyV6, FragmentKey, FragmentPorts, Reason, Turn, VerdictKey, reason_key,
};

/// Entries of a map whose size comes with the configuration.
const PLACEHOLDER_ENTRIES: u32 = 1024;
const OVERFLOW_BYTES: u32 = 64 * 1024;
const DROP_COPIES_BYTES: u32 = 4096;

#[map]
pub(crate) static FLOWS_V4_A: HashMap<FlowKeyV4, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
pub(crate) static FLOWS_V4_B: HashMap<FlowKeyV4, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
pub(crate) static FLOWS_V6_A: HashMap<FlowKeyV6, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
pub(crate) static FLOWS_V6_B: HashMap<FlowKeyV6, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
pub(crate) static VERDICTS_A: HashMap<VerdictKey, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);
#[map]
pub(crate) static VERDICTS_B: HashMap<VerdictKey, Counts> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);

/// Ports of datagrams in pieces. The oldest make room: losing one costs a fragment its ports, not its count.
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);

/// Counts that found no room in their map.
#[map]
pub(crate) static OVERFLOW: RingBuf = RingBuf::with_byte_size(OVERFLOW_BYTES, 0);

/// What was counted apart, by interface and reason. Only ever grows; the sensor takes differences.
#[map]
static REASONS: HashMap<u64, u64> = HashMap::with_max_entries(PLACEHOLDER_ENTRIES, 0);

/// The same by reason alone, for when the map above has no room.
#[map]
static REASONS_APART: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);

/// One word, a [`Turn`]: when to go over to which generation.
#[map]
static TURN: Array<u64> = Array::with_max_entries(1, 0);

/// One word: when this processor counted a packet last, by the coarse clock.
#[map]
static COUNTED_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// By number of a drop reason: whether the sensor wants to know.
#[map]
static DROP_REASONS: Array<u32> = Array::with_max_entries(DROP_REASONS_MAX, 0);

/// Copies of dropped packets: see `verdict::copy`.
#[map]
pub(crate) static DROP_COPIES: RingBuf = RingBuf::with_byte_size(DROP_COPIES_BYTES, 0);

/// One word: whether the sensor wants them.
#[map]
static DROPS_ARE_COPIED: Array<u32> = Array::with_max_entries(1, 0);

/// By number of a drop reason: packets of which no copy could be made. Only ever grows.
#[map]
static DROP_COPIES_MISSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(DROP_REASONS_MAX, 0);

/// The error of an insertion that found the key present.
const EEXIST: i32 = 17;
/// The error of a lookup that found nothing.
const ENOENT: i32 = 2;

/// Whether what happens now is counted into the second map of each pair.
#[inline(always)]
pub(crate) fn second_generation(now_ns: u64) -> bool {
    Turn(word(&TURN, 0)).is_second(now_ns)
}

/// Notes when this processor counted a packet.
#[inline(always)]
pub(crate) fn note_counted_at(now_ns: u64) {
    if let Some(noted) = COUNTED_AT.get_ptr_mut(0) {
        // SAFETY: the element exists for as long as the program is loaded, and no other processor stores to it.
        unsafe { noted.write_volatile(now_ns) };
    }
}

/// When a packet that is dropped now was counted. The processor that drops it counted it just before, and its clock may
/// stand where it stood then for up to [`COARSE_NANOS_MAX`]; if it counted nothing for longer, it was another that did.
#[inline(always)]
pub(crate) fn counted_at(now_ns: u64) -> u64 {
    match COUNTED_AT.get_ptr(0) {
        // SAFETY: the element exists for as long as the program is loaded, and is one aligned word.
        Some(noted) => match unsafe { noted.read_volatile() } {
            noted_ns if now_ns.wrapping_sub(noted_ns) <= COARSE_NANOS_MAX => noted_ns,
            _ => now_ns,
        },
        None => now_ns,
    }
}

/// The coarse clock moves with the kernel's tick, of which there are at least a hundred a second.
const COARSE_NANOS_MAX: u64 = 10_000_000;

/// Whether the sensor wants drops of this reason.
#[inline(always)]
pub(crate) fn drop_reason_wanted(reason: u32) -> bool {
    word(&DROP_REASONS, reason) != 0
}

/// Whether the sensor wants copies of what is dropped.
#[inline(always)]
pub(crate) fn drops_are_copied() -> bool {
    word(&DROPS_ARE_COPIED, 0) != 0
}

/// Counts a dropped packet of which no copy could be made.
#[inline(always)]
pub(crate) fn count_missed_copy(reason: u32) {
    if let Some(counter) = DROP_COPIES_MISSED.get_ptr_mut(reason) {
        atomic_add(counter, 1);
    }
}

/// A word that user space stores and programs only load; zero beyond the end.
#[inline(always)]
fn word<W: Copy + Default>(words: &Array<W>, index: u32) -> W {
    match words.get_ptr(index) {
        // SAFETY: the element exists for as long as the program is loaded, and is one aligned word.
        Some(word) => unsafe { word.read_volatile() },
        None => W::default(),
    }
}

/// Adds `new` to what `map` holds for `key`. Two processors may bring a new key at once: one inserts, the other finds it
/// present and adds to it, so nothing is lost. The error is the kernel's number, positive.
#[inline(always)]
pub(crate) fn count<K>(map: &HashMap<K, Counts>, key: &K, new: &Counts) -> Result<(), u32> {
    if let Some(counts) = map.get_ptr_mut(key) {
        add(counts, new);
        return Ok(());
    }
    match map.insert(key, new, u64::from(BPF_NOEXIST)) {
        Ok(()) => Ok(()),
        Err(error) if error == -EEXIST => match map.get_ptr_mut(key) {
            Some(counts) => {
                add(counts, new);
                Ok(())
            }
            None => Err(ENOENT as u32),
        },
        Err(error) => Err(error.unsigned_abs()),
    }
}

/// Counts `packets` of an interface under a reason. Not for the common packet, so it stays out of its way.
#[inline(never)]
pub(crate) fn count_reason(interface: u32, reason: Reason, packets: u64) {
    let key = reason_key(interface, reason);
    if let Some(counter) = REASONS.get_ptr_mut(key) {
        atomic_add(counter, packets);
        return;
    }
    if REASONS.insert(key, packets, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    if let Some(counter) = REASONS.get_ptr_mut(key) {
        atomic_add(counter, packets);
    } else if let Some(counter) = REASONS_APART.get_ptr_mut(reason as u32) {
        atomic_add(counter, packets);
    }
}

/// Adds to counts that other processors add to as well. `counts` points to an element of a map.
#[inline(always)]
fn add(counts: *mut Counts, new: &Counts) {
    // SAFETY: a member of the element.
    atomic_add(unsafe { &raw mut (*counts).packets }, new.packets);
    // SAFETY: as above.
    atomic_add(unsafe { &raw mut (*counts).bytes }, new.bytes);
    // SAFETY: as above.
    let last = unsafe { &raw mut (*counts).last_ns };
    // SAFETY: a store of one aligned word. Of two processors at the same time either may win: their clocks differ by no
    // more than the clock's own step.
    unsafe { last.write_volatile(new.last_ns) };
    // SAFETY: as above.
    let marks = unsafe { &raw mut (*counts).marks.0 };
    // SAFETY: a load of one aligned word.
    let present = unsafe { marks.read_volatile() };
    if present | new.marks.0 != present {
        // SAFETY: `marks` points to an aligned word of a map's element. The result is not used, so this is one
        // instruction.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(marks, new.marks.0) };
    }
}

#[inline(always)]
pub(crate) fn atomic_add(counter: *mut u64, value: u64) {
    // SAFETY: callers pass a pointer to an aligned word of a map's element. The result is not used, so this is one
    // instruction.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, value) };
}
