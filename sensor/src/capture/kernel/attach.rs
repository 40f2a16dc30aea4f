//! Attaches the programs, and takes them off again.
//!
//! Programs are attached as TCX links (Linux 6.6): several programs live at one hook side by side, ours is the last of
//! those present, and the kernel takes a link away with the process that holds it, however that ends.
//!
//! Older kernels have the classifiers of tc alone, on a clsact queueing discipline. Ours stands behind all others, and
//! the discipline, which others may use, is never taken away. A classifier outlives a process that is killed: the next
//! attaching replaces what is there under our program's name.

use super::{
    copies::DropCopies,
    refused::Refused,
    verdicts::{DropReasons, VerdictSource},
};
use crate::sys::interface;
use aya::{
    BtfError, Ebpf,
    maps::{Array, MapError},
    programs::{
        BtfTracePoint, LinkOrder, MultiProgram, ProgramError, ProgramFd, RawTracePoint, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError},
    },
};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

/// An interface that programs can be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The kernel's index, which stands in flow keys.
    pub index: u32,
    /// Whether frames begin with an Ethernet header.
    pub ethernet: bool,
    /// Whether it is the loopback, which shows every packet in both directions.
    pub loopback: bool,
}

/// Why something could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such interface.
    #[error("interface {name}: {cause}")]
    Device {
        /// Its name.
        name: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Frames of this interface begin with a header that is not known.
    #[error("interface {name} has frames of hardware type {hardware_type}, which are not known")]
    LinkLayer {
        /// Its name.
        name: String,
        /// The number in `linux/if_arp.h`.
        hardware_type: u16,
    },
    /// The kernel refuses a program, or to attach it.
    #[error("program {program}: {cause}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        cause: Refused,
    },
    /// An interface has no place for classifiers, and the kernel makes none.
    #[error("interface {name}: no clsact queueing discipline")]
    Clsact {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        cause: TcError,
    },
    /// The kernel's type information is not to the loader's liking.
    #[error("the kernel's type information")]
    Btf(#[from] BtfError),
    /// A map about drops is not to be used.
    #[error("a map about drops can't be used")]
    Drops(#[from] MapError),
    /// The object was built from something else.
    #[error("the kernel side has no {name}")]
    Missing {
        /// Program or map.
        name: &'static str,
    },
}

impl Device {
    /// The interface of that name in the caller's network namespace.
    ///
    /// # Errors
    /// There is none, or its link layer is not known.
    pub fn find(name: &str) -> Result<Self, TapError> {
        let device = |cause| TapError::Device { name: name.to_owned(), cause };
        let index = interface::index(name).map_err(device)?;
        let hardware_type = interface::hardware_type(name).map_err(device)?;
        let ethernet = match hardware_type {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => true,
            // Tunnels whose frames are IP packets.
            ARPHRD_NONE | ARPHRD_RAWIP | ARPHRD_TUNNEL | ARPHRD_TUNNEL6 | ARPHRD_SIT | ARPHRD_IPGRE => false,
            _ => return Err(TapError::LinkLayer { name: name.to_owned(), hardware_type }),
        };
        Ok(Self { name: name.to_owned(), index, ethernet, loopback: hardware_type == ARPHRD_LOOPBACK })
    }
}

// Hardware types of linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_NONE: u16 = 0xfffe;

/// How programs are attached to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// By links of TCX, since Linux 6.6.
    Tcx,
    /// As the last classifiers of a clsact queueing discipline.
    Clsact,
}

impl Attachment {
    /// The best way that the running kernel has. It is asked at the loopback, which every network namespace has.
    pub fn best() -> Self {
        let is_offered = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
        if is_offered { Self::Tcx } else { Self::Clsact }
    }

    /// A place for a program at an interface, behind all others. What a killed run has left there is taken away first.
    pub(crate) fn behind_others(
        self,
        program: &str,
        device: &str,
        at: TcAttachType,
        purpose: Purpose,
    ) -> Result<TcAttachOptions, TapError> {
        match self {
            Self::Tcx => Ok(TcAttachOptions::TcxOrder(LinkOrder::last())),
            Self::Clsact => behind_all(program, device, at, purpose),
        }
    }
}

/// What a classifier is for. They are asked in the order of these numbers, and nobody can come between ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Purpose {
    /// To make copies, or to finish them.
    Mirror = u16::MAX - 1,
    /// To count.
    Count = u16::MAX,
}

/// The programs, and where they are attached. Dropping it detaches everything.
#[derive(Debug)]
pub struct Taps {
    object: Ebpf,
    reasons: DropReasons,
    attachment: Attachment,
    links: HashMap<u32, Vec<SchedClassifierLink>>,
}

impl Taps {
    pub(super) fn new(object: Ebpf, reasons: DropReasons, attachment: Attachment) -> Self {
        Self { object, reasons, attachment, links: HashMap::new() }
    }

    /// How programs are attached: the best way that the kernel has.
    pub fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Takes the old way where there is a better one.
    #[cfg(test)]
    pub(super) fn attach_by(&mut self, attachment: Attachment) {
        self.attachment = attachment;
    }

    /// Counts what passes `device` from now on, in both directions; once, however often it is called. What goes out by the
    /// loopback comes in by it, and is counted there.
    ///
    /// # Errors
    /// The kernel refuses. Then nothing stays attached.
    pub fn attach(&mut self, device: &Device) -> Result<(), TapError> {
        if self.links.contains_key(&device.index) {
            return Ok(());
        }
        let (ingress, egress) =
            if device.ethernet { ("flow_ingress", "flow_egress") } else { ("flow_ingress_l3", "flow_egress_l3") };
        let mut links = vec![self.tap(ingress, device, TcAttachType::Ingress)?];
        if !device.loopback {
            links.push(self.tap(egress, device, TcAttachType::Egress)?);
        }
        self.links.insert(device.index, links);
        Ok(())
    }

    /// Stops counting at the interface of that index; whether it was counted.
    pub fn detach(&mut self, index: u32) -> bool {
        self.links.remove(&index).is_some()
    }

    /// Has the kernel verify all programs for interfaces, so that attaching one later needs no right to load.
    ///
    /// # Errors
    /// The kernel refuses a program.
    pub fn load_programs(&mut self) -> Result<FlowPrograms, TapError> {
        let mut programs = Vec::new();
        for name in ["flow_ingress", "flow_egress", "flow_ingress_l3", "flow_egress_l3"] {
            let program = self.classifier(name)?.fd().and_then(|program| Ok(program.try_clone()?));
            programs.push((name, FlowProgram(program.map_err(failed(name))?)));
        }
        Ok(FlowPrograms(programs.into()))
    }

    /// Indexes of the interfaces that are counted.
    pub fn attached(&self) -> impl Iterator<Item = u32> {
        self.links.keys().copied()
    }

    /// The running kernel's drop reasons.
    pub fn reasons(&self) -> &DropReasons {
        &self.reasons
    }

    /// Asks for drops of these reasons, by number, and for no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn want(&mut self, numbers: &[u32]) -> Result<(), TapError> {
        let map = self.object.map_mut("DROP_REASONS").ok_or(TapError::Missing { name: "DROP_REASONS" })?;
        let mut wanted: Array<_, u32> = Array::try_from(map)?;
        for number in 0..wanted.len() {
            wanted.set(number, u32::from(numbers.contains(&number)), 0)?;
        }
        Ok(())
    }

    /// Counts drops from now on. Where the kernel does not take the typed tracepoint, the raw one serves.
    ///
    /// # Errors
    /// The kernel refuses both.
    pub fn attach_verdicts(&mut self) -> Result<VerdictSource, TapError> {
        if self.attach_typed().is_ok() {
            return Ok(VerdictSource::TypedTracepoint);
        }
        self.attach_raw()?;
        Ok(VerdictSource::RawTracepoint)
    }

    pub(super) fn attach_typed(&mut self) -> Result<(), TapError> {
        let btf = aya::Btf::from_sys_fs()?;
        let program: &mut BtfTracePoint = program(&mut self.object, TYPED)?;
        patiently(|| program.load("kfree_skb", &btf)).map_err(failed(TYPED))?;
        program.attach().map(drop).map_err(failed(TYPED))
    }

    pub(super) fn attach_raw(&mut self) -> Result<(), TapError> {
        let program: &mut RawTracePoint = program(&mut self.object, RAW)?;
        patiently(|| program.load()).map_err(failed(RAW))?;
        program.attach("kfree_skb").map(drop).map_err(failed(RAW))
    }

    /// Copies of drops, once. Programs hold the maps of it from when they are attached on.
    ///
    /// # Errors
    /// They were taken before.
    pub fn take_copies(&mut self) -> Result<DropCopies, TapError> {
        DropCopies::new(&mut self.object, &self.reasons)
    }

    fn tap(&mut self, name: &'static str, device: &Device, at: TcAttachType) -> Result<SchedClassifierLink, TapError> {
        let options = self.attachment.behind_others(name, &device.name, at, Purpose::Count)?;
        let program = self.classifier(name)?;
        let link = program.attach_with_options(&device.name, at, options).map_err(failed(name))?;
        program.take_link(link).map_err(failed(name))
    }

    /// A program for a network hook, verified and loaded if it was not yet.
    pub(super) fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, TapError> {
        let program: &mut SchedClassifier = program(&mut self.object, name)?;
        if program.fd().is_err() {
            patiently(|| program.load()).map_err(failed(name))?;
        }
        Ok(program)
    }
}

/// The programs that count, for who attaches others behind them.
#[derive(Debug, Clone, Default)]
pub struct FlowPrograms(Arc<[(&'static str, FlowProgram)]>);

#[derive(Debug)]
struct FlowProgram(ProgramFd);

impl FlowPrograms {
    /// The place directly behind the program of that name, at an interface that it is attached to.
    pub fn behind(&self, name: &str) -> Option<LinkOrder> {
        let (_, program) = self.0.iter().find(|(known, _)| *known == name)?;
        LinkOrder::after_program(program).ok()
    }
}

impl MultiProgram for FlowProgram {
    fn fd(&self) -> Result<BorrowedFd<'_>, ProgramError> {
        Ok(self.0.as_fd())
    }
}

fn behind_all(program: &str, device: &str, at: TcAttachType, purpose: Purpose) -> Result<TcAttachOptions, TapError> {
    if let Err(cause) = tc::qdisc_add_clsact(device)
        && !is_there_already(&cause)
    {
        return Err(TapError::Clsact { name: device.to_owned(), cause });
    }
    // Nothing of ours may be there, which is no error.
    tc::qdisc_detach_program(device, at, program).ok();
    Ok(TcAttachOptions::Netlink(NlOptions { priority: purpose as u16, ..NlOptions::default() }))
}

/// Whether the discipline was there before us.
fn is_there_already(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}

/// Loads a program. The kernel gives up verifying one when the thread has something else to attend to, and says so:
/// then it is asked again.
pub(crate) fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..LOAD_TRIES {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
    load()
}

/// As often as libbpf asks.
const LOAD_TRIES: u32 = 5;

const TYPED: &str = "verdict_btf";
const RAW: &str = "verdict_raw";

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, TapError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    object.program_mut(name).ok_or(TapError::Missing { name })?.try_into().map_err(failed(name))
}

fn failed(program: &'static str) -> impl Fn(ProgramError) -> TapError {
    move |cause| TapError::Program { program, cause: cause.into() }
}
