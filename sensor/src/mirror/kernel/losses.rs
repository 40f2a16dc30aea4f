//! The program that counts copies which the kernel drops behind [`direct`](super::direct), at its tracepoint
//! `skb:kfree_skb`.

use super::programs::ProgramsError;
use crate::capture::kernel::{Btf, DropReasons, KERNEL_BTF, LOSS_OFFSETS, Refused, offsets, own_namespace, patiently};
use aya::{Ebpf, programs::BtfTracePoint};
use std::path::Path;

/// Its globals: where the running kernel has what it reads, which network namespace is ours, and which drops are none.
///
/// # Errors
/// The kernel does not say.
pub(super) fn globals() -> Result<Vec<(&'static str, u32)>, ProgramsError> {
    let btf = Btf::from_file(Path::new(KERNEL_BTF))?;
    let mut globals = offsets(&btf, &LOSS_OFFSETS)?;
    let reasons = DropReasons::read(&btf)?;
    globals.push(("WATCHED_NAMESPACE", own_namespace().map_err(ProgramsError::Namespace)?));
    globals.push(("PACKET_SOCKET", reasons.number(PACKET_SOCKET_FULL).unwrap_or(u32::MAX)));
    globals.push(("NO_REASON", reasons.number(NOT_SPECIFIED).unwrap_or(u32::MAX)));
    Ok(globals)
}

/// Loads and attaches it; it stays for as long as the object.
pub(super) fn attach(object: &mut Ebpf) -> Result<(), ProgramsError> {
    let failed =
        |cause| ProgramsError::Program { program: PROGRAM, device: String::new(), cause: Refused::from(cause) };
    let program = object.program_mut(PROGRAM).ok_or(ProgramsError::Missing { name: PROGRAM })?;
    let program: &mut BtfTracePoint = program.try_into().map_err(failed)?;
    let types = aya::Btf::from_sys_fs()?;
    patiently(|| program.load("kfree_skb", &types)).map_err(failed)?;
    program.attach().map(drop).map_err(failed)
}

const PROGRAM: &str = "mirror_lost";
/// The kernel's name for a packet that is freed without a word.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";
/// The kernel's name. An older one has none for such drops, and they are taken for losses.
const PACKET_SOCKET_FULL: &str = "PACKET_SOCK_ERROR";
