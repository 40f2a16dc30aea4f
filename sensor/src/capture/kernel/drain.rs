//! Takes out what the kernel counted.
//!
//! Each map has two generations. [`Drain::turn_at`] tells the programs from when on they shall count into the other one;
//! each packet is put where its own time says. When that moment has passed, [`Drain::settle`] waits until every program
//! that still had the old one in hand has ended, and [`Drain::take_some`] empties it, thousands of entries a call. So no
//! count is lost, none is read half-written, none spans a turn, and programs never wait. What found no room in a map
//! comes through a ring buffer, which is emptied at the same time, or oftener where it fills
//! ([`Drain::drain_overflow`]); its counts may belong to either side of the turn, as their times tell.
//!
//! All times are those of the kernel's coarse monotonic clock ([`clock::coarse_ns`]), which programs stamp packets with.

use super::load::LoadError;
use crate::{
    capture::Direction,
    packet::Addresses,
    sys::{
        barrier, clock,
        drained_map::{Cursor, DrainedMap, DrainedMapError},
    },
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use bytemuck::Pod;
use flowtap_abi::{
    Counts, FlowKeyV4, FlowKeyV6, GENERATIONS, Overflow, OverflowKind, Reason, Turn, VerdictKey, split_reason_key,
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
    /// Whether the packets had been counted as a flow of the same interface and direction before they were dropped.
    pub counted: bool,
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

impl Drained {
    /// Adds what another step took out.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.verdicts += other.verdicts;
        self.overflowed += other.overflowed;
        self.refused += other.refused;
    }
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
    /// The kernel refused its clock.
    #[error("the kernel refuses its clock")]
    Clock(#[source] io::Error),
    /// A map could not be read or written.
    #[error("a map could not be read or written")]
    Map(#[from] MapError),
    /// A map is not what it was taken for.
    #[error(transparent)]
    Layout(#[from] DrainedMapError),
}

/// The maps, seen from the side that empties them.
pub struct Drain {
    turn: Array<MapData, u64>,
    /// The generation that is counted into until the turn that was announced last.
    current: usize,
    /// What is being emptied.
    quiet: Option<Quiet>,
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
            turn: take(object, "TURN")?.try_into()?,
            current: 0,
            quiet: None,
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

    /// Tells the programs to go over to the other generation at `at_ns`, which must be empty: everything was taken since
    /// the last turn. Until that moment another call may choose another one.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn turn_at(&mut self, at_ns: u64) -> Result<(), DrainError> {
        let to_second = (self.current + 1) % GENERATIONS == 1;
        Ok(self.turn.set(0, Turn::new(at_ns, to_second).0, 0)?)
    }

    /// To be called when the turn has passed: waits for the programs that were running then, some milliseconds. What was
    /// counted before the turn is quiet afterwards, and can be taken.
    ///
    /// # Errors
    /// The kernel offers no such wait.
    pub fn settle(&mut self) -> Result<(), DrainError> {
        barrier::wait().map_err(DrainError::Barrier)?;
        self.quiet = Some(Quiet { generation: self.current, map: QuietMap::FlowsV4, cursor: Cursor::Start });
        self.current = (self.current + 1) % GENERATIONS;
        Ok(())
    }

    /// Hands over a batch of what is quiet, flows before verdicts; `None` when nothing is left of it, and with that the
    /// last answer everything that found no room, and the counters.
    ///
    /// # Errors
    /// The kernel refused a batch; another call goes on behind it.
    pub fn take_some(&mut self, harvest: &mut impl Harvest) -> Result<Option<Drained>, DrainError> {
        let Some(mut quiet) = self.quiet.take() else { return Ok(None) };
        let mut drained = Drained::default();
        let taken = match quiet.map {
            QuietMap::FlowsV4 => {
                let each = |key: &FlowKeyV4, counts: &Counts| harvest.flow(&Flow::from(key), counts);
                take_batch(&mut self.flows_v4, &mut quiet, each).map(|count| drained.flows = count)
            }
            QuietMap::FlowsV6 => {
                let each = |key: &FlowKeyV6, counts: &Counts| harvest.flow(&Flow::from(key), counts);
                take_batch(&mut self.flows_v6, &mut quiet, each).map(|count| drained.flows = count)
            }
            QuietMap::Verdicts => {
                let each = |key: &VerdictKey, counts: &Counts| harvest.verdict(&Verdict::from(key), counts);
                take_batch(&mut self.verdicts, &mut quiet, each).map(|count| drained.verdicts = count)
            }
            QuietMap::Rest => {
                let Drained { overflowed, refused, .. } = self.drain_overflow(harvest);
                self.reasons(harvest)?;
                return Ok(Some(Drained { overflowed, refused, ..drained }));
            }
        };
        // Also after an error: the rest of that map is given up, and shows as what was never drained.
        if taken.is_err() || quiet.cursor == Cursor::End {
            (quiet.map, quiet.cursor) = (quiet.map.next(), Cursor::Start);
        }
        self.quiet = Some(quiet);
        taken.map_err(|cause| DrainError::Batch { map: quiet.map.name(), cause })?;
        Ok(Some(drained))
    }

    /// Turns now, and hands over everything that was counted until then.
    ///
    /// # Errors
    /// As for the steps it is made of.
    pub fn drain(&mut self, harvest: &mut impl Harvest) -> Result<Drained, DrainError> {
        self.turn_at(clock::coarse_ns().map_err(DrainError::Clock)?)?;
        self.settle()?;
        let mut sum = Drained::default();
        while let Some(drained) = self.take_some(harvest)? {
            sum.add(&drained);
        }
        Ok(sum)
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

/// A generation that nobody counts into, and how far it is emptied.
#[derive(Debug, Clone, Copy)]
struct Quiet {
    generation: usize,
    map: QuietMap,
    cursor: Cursor,
}

/// What is emptied, in this order.
#[derive(Debug, Clone, Copy)]
enum QuietMap {
    FlowsV4,
    FlowsV6,
    Verdicts,
    /// The ring buffer and the counters, which have no generations.
    Rest,
}

impl QuietMap {
    fn next(self) -> Self {
        match self {
            Self::FlowsV4 => Self::FlowsV6,
            Self::FlowsV6 => Self::Verdicts,
            Self::Verdicts | Self::Rest => Self::Rest,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::FlowsV4 => "IPv4 flows",
            Self::FlowsV6 => "IPv6 flows",
            Self::Verdicts => "verdicts",
            Self::Rest => "the rest",
        }
    }
}

/// Takes a batch out of the quiet one of these maps.
fn take_batch<K: Pod, V: Pod>(
    maps: &mut [DrainedMap<K, V>; GENERATIONS],
    quiet: &mut Quiet,
    mut each: impl FnMut(&K, &V),
) -> io::Result<u64> {
    let Some(map) = maps.get_mut(quiet.generation) else { return Ok(0) };
    let mut entries = 0;
    for (key, value) in map.take_batch(&mut quiet.cursor)? {
        each(key, value);
        entries += 1;
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
        Self { flow, reason: key.reason, counted: key.counted != 0 }
    }
}

fn ports([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

pub(super) fn direction(number: u8) -> Direction {
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
