//! The mirroring programs and their maps, brought into the kernel, and programs attached.

use super::losses;
use crate::{
    capture::kernel::{Attachment, BtfError, OBJECT, Purpose, Refused, TapError, patiently},
    sys::plain::Plain,
};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapError, ProgramArray},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use flowtap_abi::mirror::Held;
use std::io::{self, ErrorKind};

/// How much room there is in the kernel for what grows with traffic and configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorSizes {
    /// Interfaces that can be mirrored.
    pub interfaces_max: u32,
    /// Blocks of all rules, IPv4; IPv6 as many.
    pub blocks_max: u32,
    /// Addresses of services and targets.
    pub known_max: u32,
    /// Datagrams in pieces whose ports are remembered.
    pub fragments_max: u32,
}

impl Default for MirrorSizes {
    fn default() -> Self {
        Self { interfaces_max: 1 << 10, blocks_max: 1 << 15, known_max: 1 << 10, fragments_max: 1 << 13 }
    }
}

impl MirrorSizes {
    /// How many entries those maps have whose size comes with the configuration.
    pub(in crate::mirror) fn map_entries(&self) -> [(&'static str, u32); 5] {
        let generations = flowtap_abi::GENERATIONS as u32;
        [
            // An ingress and an egress list in each generation.
            ("MIRROR_LISTS", 2 * generations * self.interfaces_max),
            ("MIRROR_BLOCKS_V4", generations * self.blocks_max),
            ("MIRROR_BLOCKS_V6", generations * self.blocks_max),
            ("MIRROR_KNOWN", generations * self.known_max),
            ("MIRROR_FRAGMENTS", self.fragments_max),
        ]
    }
}

/// Why programs or maps are not there.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The kernel refuses maps or programs as they are.
    #[error("the kernel refuses the mirroring programs")]
    Object(#[from] Box<EbpfError>),
    /// The kernel does not describe its types as the loader wants it.
    #[error("the kernel's type information")]
    Types(#[from] aya::BtfError),
    /// The kernel has no type that is needed.
    #[error("the kernel's types")]
    Structures(#[from] BtfError),
    /// The caller's network namespace cannot be told.
    #[error("the network namespace cannot be told")]
    Namespace(#[source] io::Error),
    /// The kernel refuses a program, or to attach it.
    #[error("program {program}{}", at(device))]
    Program {
        /// Its name.
        program: &'static str,
        /// Where it was to be attached; empty if it was not loaded.
        device: String,
        /// What the kernel said.
        #[source]
        cause: Refused,
    },
    /// A device has no place for programs.
    #[error(transparent)]
    Place(#[from] TapError),
    /// Nobody thought that it would be needed.
    #[error("{program} can't be loaded any more: the run has given up the rights for it; start again")]
    TooLate {
        /// Its name.
        program: &'static str,
    },
    /// The object was built from something else.
    #[error("the kernel side has no {name}")]
    Missing {
        /// Program or map.
        name: &'static str,
    },
    /// A map is not what it was taken for, or cannot be written.
    #[error("map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        cause: Box<MapError>,
    },
}

fn at(device: &str) -> String {
    if device.is_empty() { String::new() } else { format!(" at {device}") }
}

/// Creates the maps and loads the programs. The same object has the flow programs, whose maps stay as small as they can
/// be here. Also answers whether what is lost behind [`direct`](super::direct) is counted, or why not.
pub(super) fn load(sizes: &MirrorSizes, bare: Bare) -> Result<(Ebpf, Result<(), ProgramsError>), ProgramsError> {
    let globals = losses::globals();
    let mut loader = EbpfLoader::new();
    for (global, value) in globals.iter().flatten() {
        loader.override_global(global, value, true);
    }
    for (name, entries_max) in sizes.map_entries() {
        loader.map_max_entries(name, entries_max);
    }
    for name in FLOW_MAPS {
        loader.map_max_entries(name, 1);
    }
    let mut object = loader.load(OBJECT).map_err(Box::new)?;
    // Now, not when they are needed: the verifier asks more of programs that come when rights have been given up.
    let wanted = PROGRAMS.iter().chain(BARE_PROGRAMS.iter().filter(|_| bare == Bare::Possible));
    let attachment = Attachment::best();
    for name in wanted {
        classifier(&mut object, name)?;
        if attachment == Attachment::Clsact
            && let Some((_, _, entry)) = HELD.iter().find(|(program, ..)| program == name)
        {
            classifier(&mut object, entry)?;
        }
    }
    let counts_losses = globals.map(drop).and_then(|()| losses::attach(&mut object));
    Ok((object, counts_losses))
}

/// Whether interfaces without link layer may be mirrored. The verifier takes a second or more for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// They may come, or are there.
    Possible,
    /// Every session names one that is there and has a link layer.
    Never,
}

const PROGRAMS: [&str; 8] = [
    "mirror_ingress",
    "mirror_egress",
    "mirror_link",
    "mirror_encapsulate",
    "mirror_leave",
    "mirror_refuse",
    "mirror_cut",
    "mirror_cut_l3",
];
const BARE_PROGRAMS: [&str; 2] = ["mirror_ingress_l3", "mirror_egress_l3"];

/// Programs that a killed run must not leave at work, their places in the array that goes with the process, and what is
/// attached in their stead where there are no links of TCX.
const HELD: [(&str, Held, &str); 6] = [
    ("mirror_ingress", Held::Ingress, "mirror_ingress_held"),
    ("mirror_egress", Held::Egress, "mirror_egress_held"),
    ("mirror_ingress_l3", Held::IngressBare, "mirror_ingress_l3_held"),
    ("mirror_egress_l3", Held::EgressBare, "mirror_egress_l3_held"),
    ("mirror_cut", Held::Cut, "mirror_cut_held"),
    ("mirror_cut_l3", Held::CutBare, "mirror_cut_l3_held"),
];

const FLOW_MAPS: [&str; 8] =
    ["FLOWS_V4_A", "FLOWS_V4_B", "FLOWS_V6_A", "FLOWS_V6_B", "VERDICTS_A", "VERDICTS_B", "FRAGMENTS", "REASONS"];

/// Takes a map out of the object.
pub(super) fn map<M>(object: &mut Ebpf, name: &'static str) -> Result<M, ProgramsError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(ProgramsError::Missing { name })?;
    M::try_from(map).map_err(failed(name))
}

pub(super) fn failed(name: &'static str) -> impl Fn(MapError) -> ProgramsError {
    move |cause| ProgramsError::Map { name, cause: Box::new(cause) }
}

/// Attaches a program behind those that are there.
pub(super) fn attach(
    object: &mut Ebpf,
    program: &'static str,
    device: &str,
    at: TcAttachType,
) -> Result<SchedClassifierLink, ProgramsError> {
    attach_behind(None, object, program, device, at)
}

/// The same directly behind one of them, if that one is there.
pub(super) fn attach_behind(
    other: Option<LinkOrder>,
    object: &mut Ebpf,
    program: &'static str,
    device: &str,
    at: TcAttachType,
) -> Result<SchedClassifierLink, ProgramsError> {
    let failed = |cause| ProgramsError::Program { program, device: device.to_owned(), cause: Refused::from(cause) };
    let attachment = Attachment::best();
    let entry = if attachment == Attachment::Clsact { hold(object, program)? } else { program };
    let classifier = classifier(object, entry).map_err(|error| match error {
        ProgramsError::Program { cause, .. } if is_denied(&cause.0) => ProgramsError::TooLate { program },
        error => error,
    })?;
    let place = attachment.behind_others(entry, device, at, Purpose::Mirror)?;
    let mut link = |place| classifier.attach_with_options(device, at, place);
    // Classifiers of tc are asked in the order of their purposes.
    let other = other.filter(|_| attachment == Attachment::Tcx);
    let link = match other.map(|order| link(TcAttachOptions::TcxOrder(order))) {
        Some(Ok(link)) => link,
        // Another error than that the other one isn't there shows again.
        Some(Err(_)) | None => link(place).map_err(failed)?,
    };
    classifier.take_link(link).map_err(failed)
}

/// Puts a program into the array that goes with this process, if it is one of those; what to attach in its stead.
fn hold(object: &mut Ebpf, program: &'static str) -> Result<&'static str, ProgramsError> {
    let Some((_, place, entry)) = HELD.iter().find(|(held, ..)| *held == program) else { return Ok(program) };
    let failed_program = |cause| ProgramsError::Program { program, device: String::new(), cause: Refused::from(cause) };
    let loaded = classifier(object, program)?.fd().map_err(failed_program)?.try_clone();
    let loaded = loaded.map_err(|error| failed_program(error.into()))?;
    let map = object.map_mut(HELD_MAP).ok_or(ProgramsError::Missing { name: HELD_MAP })?;
    let mut array = ProgramArray::try_from(map).map_err(failed(HELD_MAP))?;
    array.set(*place as u32, &loaded, 0).map_err(failed(HELD_MAP))?;
    Ok(entry)
}

const HELD_MAP: &str = "MIRROR_HELD";

/// Whether the verifier wants more rights: the kernel takes the same program from who has them.
fn is_denied(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::PermissionDenied)
}

/// A program, verified and loaded if it was not yet.
pub(super) fn classifier<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, ProgramsError> {
    let failed = |cause| ProgramsError::Program { program: name, device: String::new(), cause: Refused::from(cause) };
    let program = object.program_mut(name).ok_or(ProgramsError::Missing { name })?;
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    if program.fd().is_err() {
        patiently(|| program.load()).map_err(failed)?;
    }
    Ok(program)
}

/// An array of plain values.
pub(super) type Words<T> = aya::maps::Array<aya::maps::MapData, Plain<T>>;
