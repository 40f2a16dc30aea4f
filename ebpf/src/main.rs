//! The kernel side of flowtap: attach points, a few lines each.
//!
//! [`flows`] counts what passes an interface, [`verdict`] what the kernel drops, and why, and [`mirror`] makes copies of
//! what its rules choose; they are attached by TCX or, before it, as classifiers of clsact. A packet always goes on as it
//! came. [`headers`] reads a frame, [`skb`] the kernel's own packet, [`wire`] turns super-packets into what is sent on the
//! wire, [`maps`] is all memory there is. What crosses to the sensor is defined in `flowtap_abi`.
//!
//! The programs are built for one verifier and one instruction set; where ordinary Rust would be unsound or is missing
//! there, a comment says so: packet bytes are read in place and unaligned, as the kernel permits on every machine this
//! is built for, and counters are added to with the instruction itself, as the target has no atomic types.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the target has no atomic types; the intrinsic is the one way to its instruction"
)]

mod flows;
mod fragments;
mod headers;
mod maps;
mod mirror;
mod skb;
mod verdict;
mod wire;
mod yardstick;

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    macros::{btf_tracepoint, classifier, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, TcContext},
};
use flowtap_abi::{Direction, mirror::Held};
use headers::Layer;

/// Ingress of an interface with Ethernet headers.
#[classifier]
fn flow_ingress(context: TcContext) -> i32 {
    flows::observe(&context, Direction::Ingress, Layer::Ethernet)
}

/// Egress of an interface with Ethernet headers.
#[classifier]
fn flow_egress(context: TcContext) -> i32 {
    flows::observe(&context, Direction::Egress, Layer::Ethernet)
}

/// Ingress of an interface without a link layer: tun, WireGuard.
#[classifier]
fn flow_ingress_l3(context: TcContext) -> i32 {
    flows::observe(&context, Direction::Ingress, Layer::Ip)
}

/// Egress of an interface without a link layer.
#[classifier]
fn flow_egress_l3(context: TcContext) -> i32 {
    flows::observe(&context, Direction::Egress, Layer::Ip)
}

/// Ingress of a mirrored interface with Ethernet headers.
#[classifier]
fn mirror_ingress(context: TcContext) -> i32 {
    mirror::observe(&context, Direction::Ingress, Layer::Ethernet)
}

/// Egress of a mirrored interface with Ethernet headers.
#[classifier]
fn mirror_egress(context: TcContext) -> i32 {
    mirror::observe(&context, Direction::Egress, Layer::Ethernet)
}

/// Ingress of a mirrored interface without a link layer.
#[classifier]
fn mirror_ingress_l3(context: TcContext) -> i32 {
    mirror::observe(&context, Direction::Ingress, Layer::Ip)
}

/// Egress of a mirrored interface without a link layer.
#[classifier]
fn mirror_egress_l3(context: TcContext) -> i32 {
    mirror::observe(&context, Direction::Egress, Layer::Ip)
}

/// The same where there are no links of TCX: it calls the program, as long as somebody holds that.
#[classifier]
fn mirror_ingress_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::Ingress)
}

/// Likewise.
#[classifier]
fn mirror_egress_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::Egress)
}

/// Likewise.
#[classifier]
fn mirror_ingress_l3_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::IngressBare)
}

/// Likewise.
#[classifier]
fn mirror_egress_l3_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::EgressBare)
}

/// Likewise, of the programs that cut.
#[classifier]
fn mirror_cut_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::Cut)
}

/// Likewise.
#[classifier]
fn mirror_cut_l3_held(context: TcContext) -> i32 {
    mirror::held(&context, Held::CutBare)
}

/// Egress of our device without a link layer.
#[classifier]
fn mirror_link(context: TcContext) -> i32 {
    mirror::link(&context)
}

/// Egress of our tunnel device.
#[classifier]
fn mirror_encapsulate(context: TcContext) -> i32 {
    mirror::encapsulate(&context)
}

/// Egress of the port of our segmenter.
#[classifier]
fn mirror_leave(context: TcContext) -> i32 {
    mirror::leave(&context)
}

/// Ingress of our tunnel device: nothing comes in by it, whoever sends to its port.
#[classifier]
fn mirror_refuse(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Egress of the device that copies leave the host by, where a session cuts its packets.
#[classifier]
fn mirror_cut(context: TcContext) -> i32 {
    mirror::cut(&context, Layer::Ethernet)
}

/// The same where that device has no link layer.
#[classifier]
fn mirror_cut_l3(context: TcContext) -> i32 {
    mirror::cut(&context, Layer::Ip)
}

/// The kernel frees a packet that did not reach its end.
#[btf_tracepoint(function = "kfree_skb")]
fn verdict_btf(context: BtfTracePointContext) -> i32 {
    verdict::observe(&context)
}

/// The same for kernels whose BTF does not describe the tracepoint well enough for the program above.
#[raw_tracepoint(tracepoint = "kfree_skb")]
fn verdict_raw(context: RawTracePointContext) -> i32 {
    verdict::observe(&context)
}

/// The kernel frees a packet: it may be a copy on its way out.
#[btf_tracepoint(function = "kfree_skb")]
fn mirror_lost(context: BtfTracePointContext) -> i32 {
    mirror::lost(&context)
}

/// The helpers that read kernel memory are for programs under a licence compatible with the kernel's.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses a program from which it could be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
