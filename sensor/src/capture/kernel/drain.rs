//! Takes out what the kernel counted.
//!
//! Each map has two generations. [`Drain::drain`] tells the programs to count into the other one, waits until every
//! program that still had the old one in hand has ended, and then empties it, thousands of entries a call. So no count
//! is lost, none is read half-written, and programs never wait. What found no room in a map comes through a ring buffer,
//! which is emptied at the same time, or oftener where it fills ([`Drain::drain_overflow`]); its counts may belong to
//! either side of the flip, as their times tell.
//!
//! Kernel time is coarse: a packet may be stamped a few milliseconds early, so a count in the generation that began with
//! an interval can carry a time just before it.

use super::load::LoadError;
use crate::{
    capture::Direction,
    packet::Addresses,
    sys::{
        barrier,
        drained_map::{Cursor, DrainedMap, DrainedMapError},
    },
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use bytemuck::Pod;
use flowtap_abi::{
    Counts, FlowKeyV4, FlowKeyV6, GENERATIONS, Overflow, OverflowKind, Reason, VerdictKey, split_reason_key,
};
use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
};

/// Flow key of the kernel plane: an interface is the kernel's index here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Kernel's index of the interface; zero for a dropped packet that had none.
    pub interface: u32,
    /// Which way, as the hook tells.
    pub direction: Direction,
    /// Source and destination.
    pub addresses: Addresses,
    /// IANA number.
    pub protocol: u8,
    /// Source port, 0 where the protocol has none.
    pub src_port: u16,
    /// Destination port, likewise.
    pub dst_port: u16,
}

/// A dropped flow, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What was dropped.
    pub flow: Flow,
    /// The running kernel's number of the reason.
    pub reason: u32,
}

/// Takes what a drain brings. A flow may come more than once in a drain; counts add up.
pub trait Harvest {
    /// Counts of a flow.
    fn flow(&mut self, flow: &Flow, counts: &Counts);

    /// Counts of dropped packets.
    fn verdict(&mut self, verdict: &Verdict, counts: &Counts);

    /// So many frames or packets more since the last drain were counted under a reason. The interface is zero where it
    /// is not known.
    fn apart(&mut self, interface: u32, reason: Reason, more: u64);
}

/// What a drain took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Entries of the flow maps.
    pub flows: u64,
    /// Entries of the verdict maps.
    pub verdicts: u64,
    /// Counts that came through the ring buffer because a map did not take them.
    pub overflowed: u64,
    /// How many of these for another reason than that the map was full, which should be none.
    pub refused: u64,
}

/// Why a drain stopped. What was handed over stays handed over; the next drain takes the rest.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The kernel refused a batch.
    #[error("the kernel refuses a batch of {map}")]
    Batch {
        /// Of which map.
        map: &'static str,
        /// What it said.
        #[source]
        cause: io::Error,
    },
    /// The kernel refused to wait for its programs.
    #[error("the kernel refuses to wait for its programs")]
    Barrier(#[source] io::Error),
    /// A map could not be read or written.
    #[error("a map could not be read or written")]
    Map(#[from] MapError),
    /// A map is not what it was taken for.
    #[error(transparent)]
    Layout(#[from] DrainedMapError),
}

/// The maps, seen from the side that empties them.
pub struct Drain {
    generation: Array<MapData, u32>,
    current: usize,
    flows_v4: [DrainedMap<FlowKeyV4, Counts>; GENERATIONS],
    flows_v6: [DrainedMap<FlowKeyV6, Counts>; GENERATIONS],
    verdicts: [DrainedMap<VerdictKey, Counts>; GENERATIONS],
    overflow: RingBuf<MapData>,
    reasons: HashMap<MapData, u64, u64>,
    reasons_apart: PerCpuArray<MapData, u64>,
    reasons_before: std::collections::HashMap<u64, u64>,
    apart_before: [u64; Reason::ALL.len()],
}

impl Drain {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, LoadError> {
        let flows_v4 = [drained(object, "FLOWS_V4_A")?, drained(object, "FLOWS_V4_B")?];
        let flows_v6 = [drained(object, "FLOWS_V6_A")?, drained(object, "FLOWS_V6_B")?];
        let verdicts = [drained(object, "VERDICTS_A")?, drained(object, "VERDICTS_B")?];
        Ok(Self {
            generation: take(object, "GENERATION")?.try_into()?,
            current: 0,
            flows_v4,
            flows_v6,
            verdicts,
            overflow: take(object, "OVERFLOW")?.try_into()?,
            reasons: take(object, "REASONS")?.try_into()?,
            reasons_apart: take(object, "REASONS_APART")?.try_into()?,
            reasons_before: std::collections::HashMap::new(),
            apart_before: [0; Reason::ALL.len()],
        })
    }

    /// Hands over everything counted until now. Waits for running programs, some milliseconds.
    ///
    /// # Errors
    /// The kernel refused something; see [`DrainError`].
    pub fn drain(&mut self, harvest: &mut impl Harvest) -> Result<Drained, DrainError> {
        let quiet = self.current;
        let next = (quiet + 1) % GENERATIONS;
        self.generation.set(0, u32::from(next == 1), 0)?;
        self.current = next;
        barrier::wait().map_err(DrainError::Barrier)?;

        let mut drained = Drained::default();
        if let Some(map) = self.flows_v4.get_mut(quiet) {
            drained.flows += empty(map, "IPv4 flows", |key, counts| harvest.flow(&Flow::from(key), counts))?;
        }
        if let Some(map) = self.flows_v6.get_mut(quiet) {
            drained.flows += empty(map, "IPv6 flows", |key, counts| harvest.flow(&Flow::from(key), counts))?;
        }
        if let Some(map) = self.verdicts.get_mut(quiet) {
            drained.verdicts += empty(map, "verdicts", |key, counts| harvest.verdict(&Verdict::from(key), counts))?;
        }
        let Drained { overflowed, refused, .. } = self.drain_overflow(harvest);
        self.reasons(harvest)?;
        Ok(Drained { overflowed, refused, ..drained })
    }

    /// Hands over what found no room in a map; [`Self::overflow_fd`] tells when there is something.
    pub fn drain_overflow(&mut self, harvest: &mut impl Harvest) -> Drained {
        let mut drained = Drained::default();
        while let Some(item) = self.overflow.next() {
            // Programs reserve whole records only.
            let Ok(record) = bytemuck::try_pod_read_unaligned::<Overflow>(&item) else { continue };
            drained.overflowed += 1;
            drained.refused += u64::from(record.error != libc::E2BIG.cast_unsigned());
            if record.kind == OverflowKind::FlowV4 as u32 {
                harvest.flow(&Flow::from(&key_of::<FlowKeyV4>(&record)), &record.counts);
            } else if record.kind == OverflowKind::FlowV6 as u32 {
                harvest.flow(&Flow::from(&key_of::<FlowKeyV6>(&record)), &record.counts);
            } else {
                harvest.verdict(&Verdict::from(&key_of::<VerdictKey>(&record)), &record.counts);
            }
        }
        drained
    }

    /// Readable when [`Self::drain_overflow`] has something to do.
    pub fn overflow_fd(&self) -> BorrowedFd<'_> {
        self.overflow.as_fd()
    }

    /// Forgets the counters of an interface that is gone, so that those of others find room.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn forget(&mut self, interface: u32) -> Result<(), DrainError> {
        for reason in Reason::ALL {
            let key = flowtap_abi::reason_key(interface, reason);
            if self.reasons_before.remove(&key).is_some() {
                self.reasons.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Hands over how far each counter has moved.
    fn reasons(&mut self, harvest: &mut impl Harvest) -> Result<(), DrainError> {
        for entry in &self.reasons {
            let (key, count) = entry?;
            let more = count.saturating_sub(self.reasons_before.insert(key, count).unwrap_or(0));
            if let (interface, Some(reason)) = split_reason_key(key)
                && more > 0
            {
                harvest.apart(interface, reason, more);
            }
        }
        for (reason, before) in Reason::ALL.into_iter().zip(&mut self.apart_before) {
            let count: u64 = self.reasons_apart.get(&(reason as u32), 0)?.iter().sum();
            let more = count.saturating_sub(std::mem::replace(before, count));
            if more > 0 {
                harvest.apart(0, reason, more);
            }
        }
        Ok(())
    }
}

/// Takes every entry out of a map nobody writes to.
fn empty<K: Pod, V: Pod>(
    map: &mut DrainedMap<K, V>,
    name: &'static str,
    mut each: impl FnMut(&K, &V),
) -> Result<u64, DrainError> {
    let mut entries = 0;
    let mut cursor = Cursor::Start;
    while cursor != Cursor::End {
        let batch = map.take_batch(&mut cursor).map_err(|cause| DrainError::Batch { map: name, cause })?;
        for (key, value) in batch {
            each(key, value);
            entries += 1;
        }
    }
    Ok(entries)
}

/// The key in the first words of an overflow record.
fn key_of<K: Pod>(record: &Overflow) -> K {
    const { assert!(size_of::<K>() <= size_of::<[u32; 12]>()) };
    let words: &[u8] = bytemuck::bytes_of(&record.key);
    bytemuck::pod_read_unaligned(words.get(..size_of::<K>()).unwrap_or_default())
}

fn drained<K: Pod, V: Pod>(object: &mut Ebpf, name: &'static str) -> Result<DrainedMap<K, V>, LoadError> {
    match take(object, name)? {
        Map::HashMap(map) => Ok(DrainedMap::new(map).map_err(DrainError::from)?),
        _ => Err(LoadError::NoMap { name }),
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    object.take_map(name).ok_or(LoadError::NoMap { name })
}

impl From<&FlowKeyV4> for Flow {
    fn from(key: &FlowKeyV4) -> Self {
        let (src, dst) = (u32::from_be_bytes(key.src), u32::from_be_bytes(key.dst));
        let (src_port, dst_port) = ports(key.ports);
        Self {
            interface: key.interface,
            direction: direction(key.direction),
            addresses: Addresses::V4 { src, dst },
            protocol: key.protocol,
            src_port,
            dst_port,
        }
    }
}

impl From<&FlowKeyV6> for Flow {
    fn from(key: &FlowKeyV6) -> Self {
        let (src, dst) = (u128::from_be_bytes(key.src), u128::from_be_bytes(key.dst));
        let (src_port, dst_port) = ports(key.ports);
        Self {
            interface: key.interface,
            direction: direction(key.direction),
            addresses: Addresses::V6 { src, dst },
            protocol: key.protocol,
            src_port,
            dst_port,
        }
    }
}

impl From<&VerdictKey> for Verdict {
    fn from(key: &VerdictKey) -> Self {
        let addresses = if key.version == 4 {
            Addresses::V4 { src: leading_v4(key.src), dst: leading_v4(key.dst) }
        } else {
            Addresses::V6 { src: u128::from_be_bytes(key.src), dst: u128::from_be_bytes(key.dst) }
        };
        let (src_port, dst_port) = ports(key.ports);
        let flow = Flow {
            interface: key.interface,
            direction: direction(key.direction),
            addresses,
            protocol: key.protocol,
            src_port,
            dst_port,
        };
        Self { flow, reason: key.reason }
    }
}

fn ports([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn direction(number: u8) -> Direction {
    if number == flowtap_abi::Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress }
}

fn leading_v4([a, b, c, d, ..]: [u8; 16]) -> u32 {
    Ipv4Addr::new(a, b, c, d).to_bits()
}

// The numbers that cross the line are those of the sensor's own type.
const _: () = {
    assert!(flowtap_abi::Direction::Ingress as u8 == Direction::Ingress as u8);
    assert!(flowtap_abi::Direction::Egress as u8 == Direction::Egress as u8);
};
