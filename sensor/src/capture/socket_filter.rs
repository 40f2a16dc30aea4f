//! What the kernel hands to a packet socket: classic BPF that looks at marks and types.
//!
//! Authority: linux/filter.h and packet(7). Copies that our own mirror sends bear a mark; they are none of the host's
//! traffic, and no socket of ours takes them.

use flowtap_abi::mirror::{COPY_MARK, COPY_MARK_MASK};
use socket2::SockFilter;

/// What goes in one direction, `snap_bytes` of each frame.
pub(crate) fn one_direction(is_outgoing: bool, snap_bytes: u32) -> [SockFilter; 7] {
    let (if_outgoing, else_) = if is_outgoing { (0, 1) } else { (1, 0) };
    [
        SockFilter::new(LOAD_WORD, 0, 0, PACKET_MARK),
        SockFilter::new(AND, 0, 0, COPY_MARK_MASK),
        SockFilter::new(JUMP_IF_EQUAL, 3, 0, COPY_MARK),
        SockFilter::new(LOAD_WORD, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, if_outgoing, else_, PACKET_OUTGOING),
        SockFilter::new(RETURN, 0, 0, snap_bytes),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Everything but our copies, whole.
pub(crate) fn without_copies() -> [SockFilter; 5] {
    [
        SockFilter::new(LOAD_WORD, 0, 0, PACKET_MARK),
        SockFilter::new(AND, 0, 0, COPY_MARK_MASK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, COPY_MARK),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_ALU | BPF_AND | BPF_K`, `BPF_JMP | BPF_JEQ | BPF_K` and `BPF_RET | BPF_K`.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE` and `SKF_AD_OFF + SKF_AD_MARK`, where the kernel's filters find type and mark.
const PACKET_TYPE: u32 = 0xffff_f004;
const PACKET_MARK: u32 = 0xffff_f014;
const PACKET_OUTGOING: u32 = 4;

// A mark is compared after the mask.
const _: () = assert!(COPY_MARK & COPY_MARK_MASK == COPY_MARK);
