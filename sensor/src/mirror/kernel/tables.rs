//! The compiled rules in the kernel's maps, in two generations.
//!
//! A generation that is not current can be written at leisure: no program looks at it. One word makes it current, and a
//! packet that is judged sees one generation throughout. What the other one held is cleared after all programs that may
//! still have looked at it have ended.

use super::programs::{self, ProgramsError, Words, failed};
use crate::{
    capture::Direction,
    mirror::{
        Mirror,
        compile::{Address, Bits, PortIntervals, Prefixes, RuleTables, TooManyRules, class_index},
        flow_hash::in_front,
    },
    sys::plain::Plain,
};
use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, MapData, MapError, PerCpuArray, PerCpuValues, lpm_trie::Key},
};
use flowlog::record::TrafficClass;
use flowtap_abi::mirror::{
    Buckets, CopyCounts, INTERVALS_MAX, Interval, Intervals, KnownAddress, LISTS_MAX, MirrorRule, MirrorSession,
    MirrorState, MirrorTarget, NOT_ALIKE, PROTOCOLS, PrefixV4, PrefixV6, RULES_TOTAL_MAX, RuleList, RuleSet,
    SESSIONS_MAX, SETS_MAX, TARGETS_OF_SESSION_MAX, TUNNEL_PORTS_MAX, Unjudged, known, list_key,
};
use std::net::IpAddr;

/// All maps that the programs read, and what they count.
pub(super) struct Tables {
    state: Words<MirrorState>,
    lists: HashMap<MapData, u64, Plain<RuleList>>,
    rules: Words<MirrorRule>,
    sets: Words<RuleSet>,
    protocols: aya::maps::Array<MapData, u32>,
    intervals: Words<Interval>,
    blocks_v4: LpmTrie<MapData, Plain<PrefixV4>, u32>,
    blocks_v6: LpmTrie<MapData, Plain<PrefixV6>, u32>,
    known: HashMap<MapData, Plain<KnownAddress>, u32>,
    sessions: Words<MirrorSession>,
    targets: Words<MirrorTarget>,
    buckets: Words<Buckets>,
    counts: PerCpuArray<MapData, Plain<CopyCounts>>,
    unjudged: PerCpuArray<MapData, u64>,
}

/// Why rules do not get into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// A map refuses.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// More than the tables hold.
    #[error("the mirror rules of all interfaces together need more than {max} {what}; use fewer rules or sessions")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: u32,
    },
    /// More rules at one interface than one list holds.
    #[error("interface {interface}: {cause}")]
    TooManyRules {
        /// Its name.
        interface: String,
        /// How many.
        cause: TooManyRules,
    },
}

/// What was written of one generation.
#[derive(Default)]
pub(super) struct Generation {
    /// 0 or 1.
    pub(super) number: u32,
    tunnel_ports: [u16; TUNNEL_PORTS_MAX],
    /// The lists of each different sequence of sessions: interfaces that have the same share them.
    lists: std::collections::HashMap<Vec<u16>, [RuleList; 2]>,
    sets: std::collections::HashMap<RuleSet, u32>,
    lists_used: u32,
    rules_used: u32,
    intervals_used: u32,
    // What must be taken out again.
    list_keys: Vec<u64>,
    blocks_v4: Vec<Key<Plain<PrefixV4>>>,
    blocks_v6: Vec<Key<Plain<PrefixV6>>>,
    known: std::collections::HashMap<KnownAddress, u32>,
    /// The sets of addresses that interfaces know services by: those that know the same share one.
    known_sets: std::collections::HashMap<Vec<(IpAddr, u32)>, u32>,
}

impl Generation {
    pub(super) fn new(number: u32, tunnel_ports: [u16; TUNNEL_PORTS_MAX]) -> Self {
        Self { number, tunnel_ports, ..Self::default() }
    }

    /// The slot of the session at `index` of [`Mirror::sessions`].
    pub(super) fn slot(&self, index: u16) -> u32 {
        self.number * SESSIONS_MAX + u32::from(index)
    }
}

impl Tables {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, ProgramsError> {
        Ok(Self {
            state: programs::map(object, "MIRROR_STATE")?,
            lists: programs::map(object, "MIRROR_LISTS")?,
            rules: programs::map(object, "MIRROR_RULES")?,
            sets: programs::map(object, "MIRROR_SETS")?,
            protocols: programs::map(object, "MIRROR_PROTOCOLS")?,
            intervals: programs::map(object, "MIRROR_INTERVALS")?,
            blocks_v4: programs::map(object, "MIRROR_BLOCKS_V4")?,
            blocks_v6: programs::map(object, "MIRROR_BLOCKS_V6")?,
            known: programs::map(object, "MIRROR_KNOWN")?,
            sessions: programs::map(object, "MIRROR_SESSIONS")?,
            targets: programs::map(object, "MIRROR_TARGETS")?,
            buckets: programs::map(object, "MIRROR_BUCKETS")?,
            counts: programs::map(object, "MIRROR_COUNTS")?,
            unjudged: programs::map(object, "MIRROR_UNJUDGED")?,
        })
    }

    /// Makes a generation current for every packet that is judged from now on.
    pub(super) fn switch(&mut self, generation: &Generation) -> Result<(), ProgramsError> {
        self.change_state(|state| state.generation = generation.number)
    }

    /// Says which device gives copies a link layer.
    pub(super) fn set_link_device(&mut self, index: u32) -> Result<(), ProgramsError> {
        self.change_state(|state| state.link_device = index)
    }

    fn change_state(&mut self, change: impl FnOnce(&mut MirrorState)) -> Result<(), ProgramsError> {
        let Plain(mut state) = self.state.get(&0, 0).map_err(failed("MIRROR_STATE"))?;
        change(&mut state);
        self.state.set(0, Plain(state), 0).map_err(failed("MIRROR_STATE"))
    }

    /// Writes the lists of an interface, both directions. `services` are the addresses that it knows services by, each with
    /// its [`known`] role.
    pub(super) fn write_interface(
        &mut self,
        generation: &mut Generation,
        mirror: &Mirror,
        name: &str,
        index: u32,
        services: Vec<(IpAddr, u32)>,
    ) -> Result<(), TablesError> {
        let sessions: Vec<u16> = mirror.sessions_of(name).into_iter().map(|(session, _)| session).collect();
        let lists = match generation.lists.get(&sessions) {
            Some(lists) => *lists,
            None => {
                let mut lists = [RuleList::default(); 2];
                for (list, (direction, _)) in lists.iter_mut().zip(DIRECTIONS) {
                    let compiled = RuleTables::compile(mirror, name, direction)
                        .map_err(|cause| TablesError::TooManyRules { interface: name.to_owned(), cause })?;
                    *list = self.write_list(generation, &compiled)?;
                }
                generation.lists.insert(sessions, lists);
                lists
            }
        };
        let asks = lists.iter().any(|list| list.has_services != 0);
        let known_set = if asks { self.write_known_set(generation, services)? } else { 0 };
        for (list, (_, direction)) in lists.into_iter().zip(DIRECTIONS) {
            let list = RuleList { known_set, ..list };
            let key = list_key(index, generation.number, direction);
            self.lists.insert(key, Plain(list), 0).map_err(failed("MIRROR_LISTS"))?;
            generation.list_keys.push(key);
        }
        Ok(())
    }

    /// Takes the lists of an interface out; from then on none of its packets is copied.
    pub(super) fn forget_interface(&mut self, generation: &Generation, index: u32) -> Result<(), ProgramsError> {
        for (_, direction) in DIRECTIONS {
            absent_is_fine(self.lists.remove(&list_key(index, generation.number, direction)), "MIRROR_LISTS")?;
        }
        Ok(())
    }

    fn write_list(&mut self, generation: &mut Generation, tables: &RuleTables) -> Result<RuleList, TablesError> {
        let list = take(&mut generation.lists_used, 1, LISTS_MAX, "lists of rules")?;
        let count = u32::try_from(tables.rules.len()).unwrap_or(u32::MAX);
        let rules = take(&mut generation.rules_used, count, RULES_TOTAL_MAX, "rules")?;
        let rules = generation.number * RULES_TOTAL_MAX + rules;
        for (at, rule) in (rules..).zip(&tables.rules) {
            let rule = MirrorRule {
                // A slot is below twice the bound of sessions.
                session: generation.slot(rule.session) as u16,
                session_end: rule.session_end,
                accept: rule.accept.into(),
                zero: 0,
            };
            self.rules.set(at, Plain(rule), 0).map_err(failed("MIRROR_RULES"))?;
        }
        // Only rules for the tap: they are met with every packet's protocol, so no other dimension needs to know.
        let [at_tap, _] = &tables.points;
        let protocols = (generation.number * LISTS_MAX + list) * PROTOCOLS;
        for (at, bits) in (protocols..).zip(tables.protocols.iter()) {
            let set = self.write_set(generation, &bits.and(at_tap))?;
            self.protocols.set(at, set, 0).map_err(failed("MIRROR_PROTOCOLS"))?;
        }
        let prefixes = 2 * (generation.number * LISTS_MAX + list);
        let anywhere = [
            self.write_blocks(generation, prefixes, &tables.sources_v4, v4)?,
            self.write_blocks(generation, prefixes + 1, &tables.destinations_v4, v4)?,
            self.write_blocks(generation, prefixes, &tables.sources_v6, v6)?,
            self.write_blocks(generation, prefixes + 1, &tables.destinations_v6, v6)?,
        ];
        let of_class = |class| tables.classes.get(class_index(class)).copied().unwrap_or_default();
        let mut services = [0; SERVICES.len()];
        for (set, class) in services.iter_mut().zip(SERVICES) {
            *set = self.write_set(generation, &of_class(class))?;
        }
        Ok(RuleList {
            words: count.div_ceil(u64::BITS),
            rules,
            protocols,
            prefixes,
            anywhere,
            source_ports: self.write_intervals(generation, &tables.source_ports)?,
            destination_ports: self.write_intervals(generation, &tables.destination_ports)?,
            portless: self.write_set(generation, &tables.without_ports)?,
            services,
            has_services: u32::from(services.iter().any(|set| Some(set) != services.first())),
            known_set: 0,
            tunnel_ports: generation.tunnel_ports,
        })
    }

    /// The index of a set, which is written only once.
    fn write_set(&mut self, generation: &mut Generation, bits: &Bits) -> Result<u32, TablesError> {
        let set = RuleSet(bits.0);
        if let Some(index) = generation.sets.get(&set) {
            return Ok(*index);
        }
        let mut used = u32::try_from(generation.sets.len()).unwrap_or(u32::MAX);
        let index = generation.number * SETS_MAX + take(&mut used, 1, SETS_MAX, "sets of rules")?;
        self.sets.set(index, Plain(set), 0).map_err(failed("MIRROR_SETS"))?;
        generation.sets.insert(set, index);
        Ok(index)
    }

    fn write_intervals(
        &mut self,
        generation: &mut Generation,
        ports: &PortIntervals,
    ) -> Result<Intervals, TablesError> {
        let count = u32::try_from(ports.entries().len()).unwrap_or(u32::MAX);
        let first = take(&mut generation.intervals_used, count, INTERVALS_MAX, "intervals of ports")?;
        let first = generation.number * INTERVALS_MAX + first;
        for (at, interval) in (first..).zip(ports.entries()) {
            let set = self.write_set(generation, &interval.bits)?;
            let interval = Interval { start: interval.first.into(), set };
            self.intervals.set(at, Plain(interval), 0).map_err(failed("MIRROR_INTERVALS"))?;
        }
        Ok(Intervals { first, count })
    }

    /// Writes the blocks of one end; the set itself where there is but one for all addresses.
    fn write_blocks<A: Address>(
        &mut self,
        generation: &mut Generation,
        list: u32,
        prefixes: &Prefixes<A>,
        block: fn(u32, A, u8) -> Block,
    ) -> Result<u32, TablesError> {
        if let [everything] = prefixes.entries()
            && everything.length == 0
        {
            return self.write_set(generation, &everything.bits);
        }
        for prefix in prefixes.entries() {
            let set = self.write_set(generation, &prefix.bits)?;
            match block(list, prefix.network, prefix.length) {
                Block::V4(key) => {
                    self.blocks_v4.insert(&key, set, 0).map_err(full("MIRROR_BLOCKS_V4"))?;
                    generation.blocks_v4.push(key);
                }
                Block::V6(key) => {
                    self.blocks_v6.insert(&key, set, 0).map_err(full("MIRROR_BLOCKS_V6"))?;
                    generation.blocks_v6.push(key);
                }
            }
        }
        Ok(NOT_ALIKE)
    }

    /// Writes a target, which is no target of anybody else's traffic.
    pub(super) fn write_known_target(
        &mut self,
        generation: &mut Generation,
        address: IpAddr,
    ) -> Result<(), TablesError> {
        let set = generation.number;
        self.write_known(generation, set, address, known::TARGET)
    }

    /// The number of a set of addresses of services, which is written only once.
    fn write_known_set(
        &mut self,
        generation: &mut Generation,
        services: Vec<(IpAddr, u32)>,
    ) -> Result<u32, TablesError> {
        if let Some(set) = generation.known_sets.get(&services) {
            return Ok(*set);
        }
        // Behind those of the targets, the two generations' by turns.
        let set = 2 * u32::try_from(1 + generation.known_sets.len()).unwrap_or(u32::MAX) + generation.number;
        for (address, role) in &services {
            self.write_known(generation, set, *address, *role)?;
        }
        generation.known_sets.insert(services, set);
        Ok(set)
    }

    /// Writes what an address is known for, beside what it is known for already.
    fn write_known(
        &mut self,
        generation: &mut Generation,
        set: u32,
        address: IpAddr,
        role: u32,
    ) -> Result<(), TablesError> {
        let (address, version) = widened(address);
        let key = KnownAddress { address, version, set };
        let roles = generation.known.entry(key).or_default();
        *roles |= role;
        self.known.insert(Plain(key), *roles, 0).map_err(full("MIRROR_KNOWN"))?;
        Ok(())
    }

    /// Writes a session. Its buckets go on from `buckets`, those of the same session in the other generation.
    pub(super) fn write_session(
        &mut self,
        slot: u32,
        session: &MirrorSession,
        buckets: Buckets,
    ) -> Result<(), ProgramsError> {
        self.sessions.set(slot, Plain(*session), 0).map_err(failed("MIRROR_SESSIONS"))?;
        self.buckets.set(slot, Plain(buckets), 0).map_err(failed("MIRROR_BUCKETS"))
    }

    pub(super) fn buckets(&self, slot: u32) -> Result<Buckets, ProgramsError> {
        self.buckets.get(&slot, 0).map(|Plain(buckets)| buckets).map_err(failed("MIRROR_BUCKETS"))
    }

    pub(super) fn write_target(&mut self, slot: u32, number: u32, target: &MirrorTarget) -> Result<(), ProgramsError> {
        let index = slot * TARGETS_OF_SESSION_MAX + number;
        self.targets.set(index, Plain(*target), 0).map_err(failed("MIRROR_TARGETS"))
    }

    /// What a session did since its generation was made current: ingress, egress.
    pub(super) fn counts(&self, slot: u32) -> Result<[CopyCounts; 2], ProgramsError> {
        let mut sums = [CopyCounts::default(); 2];
        for (sum, index) in sums.iter_mut().zip(2 * slot..) {
            let of_each = self.counts.get(&index, 0).map_err(failed("MIRROR_COUNTS"))?;
            of_each.iter().for_each(|Plain(counts)| add(sum, counts));
        }
        Ok(sums)
    }

    pub(super) fn unjudged(&self, why: Unjudged) -> Result<u64, ProgramsError> {
        let of_each = self.unjudged.get(&(why as u32), 0).map_err(failed("MIRROR_UNJUDGED"))?;
        Ok(of_each.iter().sum())
    }

    /// Clears a generation that no program looks at any more, so that the next can be written there.
    pub(super) fn clear(&mut self, generation: &Generation) -> Result<(), ProgramsError> {
        for key in &generation.list_keys {
            absent_is_fine(self.lists.remove(key), "MIRROR_LISTS")?;
        }
        for key in &generation.blocks_v4 {
            absent_is_fine(self.blocks_v4.remove(key), "MIRROR_BLOCKS_V4")?;
        }
        for key in &generation.blocks_v6 {
            absent_is_fine(self.blocks_v6.remove(key), "MIRROR_BLOCKS_V6")?;
        }
        for key in generation.known.keys() {
            absent_is_fine(self.known.remove(&Plain(*key)), "MIRROR_KNOWN")?;
        }
        let processors = self.unjudged.get(&0, 0).map_err(failed("MIRROR_UNJUDGED"))?.len();
        let first = 2 * generation.number * SESSIONS_MAX;
        for index in first..first + 2 * SESSIONS_MAX {
            let zeros = vec![Plain(CopyCounts::default()); processors];
            let zeros =
                PerCpuValues::try_from(zeros).map_err(|cause| failed("MIRROR_COUNTS")(MapError::IoError(cause)))?;
            self.counts.set(index, zeros, 0).map_err(failed("MIRROR_COUNTS"))?;
        }
        Ok(())
    }
}

/// Adds counts up.
pub(super) fn add(sum: &mut CopyCounts, counts: &CopyCounts) {
    sum.frames.iter_mut().zip(counts.frames).for_each(|(sum, more)| *sum += more);
    sum.bytes.iter_mut().zip(counts.bytes).for_each(|(sum, more)| *sum += more);
}

/// An address as sixteen bytes, and its version.
pub(super) fn widened(address: IpAddr) -> ([u8; 16], u32) {
    match address {
        IpAddr::V4(address) => (in_front(address.into()), 4),
        IpAddr::V6(address) => (address.octets(), 6),
    }
}

enum Block {
    V4(Key<Plain<PrefixV4>>),
    V6(Key<Plain<PrefixV6>>),
}

fn v4(list: u32, network: u32, length: u8) -> Block {
    Block::V4(Key::new(LIST_BITS + u32::from(length), Plain(PrefixV4 { list, address: network.to_be_bytes() })))
}

fn v6(list: u32, network: u128, length: u8) -> Block {
    Block::V6(Key::new(LIST_BITS + u32::from(length), Plain(PrefixV6 { list, address: network.to_be_bytes() })))
}

/// Takes `count` places of `max`; the first one's number.
fn take(used: &mut u32, count: u32, max: u32, what: &'static str) -> Result<u32, TablesError> {
    let first = *used;
    *used = first.checked_add(count).filter(|used| *used <= max).ok_or(TablesError::Full { what, max })?;
    Ok(first)
}

/// A map whose size comes with the configuration may have no room.
fn full(name: &'static str) -> impl Fn(MapError) -> TablesError {
    move |cause| failed(name)(cause).into()
}

fn absent_is_fine(removed: Result<(), MapError>, name: &'static str) -> Result<(), ProgramsError> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(cause) => Err(failed(name)(cause)),
    }
}

/// The number of the list is the first part of every prefix.
const LIST_BITS: u32 = 32;

const DIRECTIONS: [(Direction, flowtap_abi::Direction); 2] =
    [(Direction::Ingress, flowtap_abi::Direction::Ingress), (Direction::Egress, flowtap_abi::Direction::Egress)];

/// In the order of [`RuleList::services`]. Other classes are taken like none.
const SERVICES: [Option<TrafficClass>; 6] = [
    None,
    Some(TrafficClass::Dns),
    Some(TrafficClass::Dhcp),
    Some(TrafficClass::Metadata),
    Some(TrafficClass::Time),
    Some(TrafficClass::Activation),
];

// The kernel's lists hold what the compiler makes.
const _: () = {
    assert!(flowtap_abi::mirror::RULES_MAX == crate::mirror::RULES_MAX);
    assert!(SESSIONS_MAX as usize == crate::mirror::SESSIONS_MAX);
};
