//! Programs that no run attaches: what the whole one is measured against, and who takes packets meanwhile.

use crate::{
    headers::{Bytes, Frame},
    maps,
};
use aya_ebpf::{
    bindings::{TC_ACT_STOLEN, TC_ACT_UNSPEC},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::classifier,
    programs::TcContext,
};
use flowtap_abi::{Counts, FlowKeyV4, Marks};

/// The empty program: what it costs to run any.
#[classifier]
fn yardstick_empty(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Takes every packet, as somebody who waited for it: none is dropped.
#[classifier]
fn yardstick_take(_context: TcContext) -> i32 {
    TC_ACT_STOLEN as i32
}

/// The least that counts a flow: IPv4 with ports at their usual place, one map, no generation.
#[classifier]
fn yardstick_count(context: TcContext) -> i32 {
    let frame = Frame::new(&context);
    if let Ok(ip) = frame.need::<[u32; 6]>(14) {
        let key = FlowKeyV4 {
            interface: 0,
            src: ip[3].to_ne_bytes(),
            dst: ip[4].to_ne_bytes(),
            ports: ip[5].to_ne_bytes(),
            protocol: 6,
            direction: 0,
            zero: [0; 2],
        };
        // SAFETY: the helper has no arguments and no precondition.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        let new = Counts {
            packets: 1,
            bytes: u64::from(context.len()),
            first_ns: now_ns,
            last_ns: now_ns,
            marks: Marks::NONE,
        };
        // A full map is of no interest here.
        maps::count(&maps::FLOWS_V4_A, &key, &new).unwrap_or_default();
    }
    TC_ACT_UNSPEC
}
