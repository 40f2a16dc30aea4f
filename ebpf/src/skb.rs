//! The kernel's own packet, `struct sk_buff`, as a tracepoint shows it.
//!
//! Structures differ between kernels, so offsets are no part of the programs: the loader finds them in the running
//! kernel's type information and sets the globals below before a program is verified, for which they are constants.

use crate::headers::Plain;
use aya_ebpf::{
    helpers::bpf_probe_read_kernel,
    programs::{BtfTracePointContext, RawTracePointContext},
};

/// Inode number of the network namespace that is watched: the tracepoint sees all of them.
#[unsafe(no_mangle)]
pub(crate) static WATCHED_NAMESPACE: u32 = 0;

// Offsets in bytes: `struct sk_buff`.
#[unsafe(no_mangle)]
pub(crate) static SKB_HEAD: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_DATA: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_TAIL: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_END: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_LEN: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_NETWORK_HEADER: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_MAC_HEADER: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_PROTOCOL: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_DEVICE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_IN_INTERFACE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_SOCKET: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_MARK: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SKB_CONTROL_BUFFER: u32 = 0;
// `struct qdisc_skb_cb`: where the words that programs share begin in the control buffer.
#[unsafe(no_mangle)]
pub(crate) static CONTROL_BUFFER_WORDS: u32 = 0;
// `struct skb_shared_info`.
#[unsafe(no_mangle)]
pub(crate) static SHARED_GSO_SIZE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SHARED_GSO_SEGMENTS: u32 = 0;
// `struct net_device`, `struct sock` and `struct net`.
#[unsafe(no_mangle)]
pub(crate) static DEVICE_INDEX: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static DEVICE_TYPE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static DEVICE_NAMESPACE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static DEVICE_PARENT: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static SOCKET_NAMESPACE: u32 = 0;
#[unsafe(no_mangle)]
pub(crate) static NAMESPACE_INODE: u32 = 0;

/// The arguments of a tracepoint, however the program is attached to it.
pub(crate) trait Arguments {
    fn argument(&self, index: usize) -> u64;
}

impl Arguments for BtfTracePointContext {
    #[inline(always)]
    fn argument(&self, index: usize) -> u64 {
        self.arg(index)
    }
}

impl Arguments for RawTracePointContext {
    #[inline(always)]
    fn argument(&self, index: usize) -> u64 {
        self.arg(index)
    }
}

/// Inode of the network namespace of a device.
#[inline(always)]
pub(crate) fn namespace_of(device: u64) -> Option<u32> {
    let namespace: u64 = field(device, &DEVICE_NAMESPACE)?;
    field(namespace, &NAMESPACE_INODE)
}

/// The member of a structure at `structure`, whose offset is a global.
#[inline(always)]
pub(crate) fn field<T: Plain>(structure: u64, offset: &'static u32) -> Option<T> {
    read(structure + u64::from(global(offset)))
}

/// A plain value in the kernel's memory.
#[inline(always)]
pub(crate) fn read<T: Plain>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address, and any bytes are a `T`.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// A global as the loader set it, which the compiler must not take for what is written here.
#[inline(always)]
pub(crate) fn global(word: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::from_ref(word).read_volatile() }
}
