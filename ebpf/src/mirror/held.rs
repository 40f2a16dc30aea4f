//! The taps where there are no links of TCX: classifiers that call the programs through an array.
//!
//! A classifier stays at its interface when the process that put it there is killed, and copies would go on being made. The
//! kernel empties an array of programs with the last process that holds it, and then there is nothing to call.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::map, maps::ProgramArray, programs::TcContext};
use flowtap_abi::mirror::{HELD_PROGRAMS, Held};

#[map]
static MIRROR_HELD: ProgramArray = ProgramArray::with_max_entries(HELD_PROGRAMS, 0);

/// Goes on as that program, if somebody holds it.
#[inline(always)]
pub(crate) fn held(context: &TcContext, program: Held) -> i32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { MIRROR_HELD.tail_call(context, program as u32) };
    TC_ACT_UNSPEC
}
