//! The only module with `unsafe`: small safe wrappers over what the machine offers and the standard library does not.
//!
//! Each function is safe for every argument. One unsafe operation stands in a block, with its proof.

#[cfg(feature = "ebpf")]
pub mod barrier;
#[cfg(feature = "ebpf")]
pub mod clock;
#[cfg(feature = "ebpf")]
pub mod drained_map;
pub mod fanout;
pub mod interface;
pub mod memory;
pub mod packet_socket;
#[cfg(feature = "ebpf")]
pub mod plain;
pub mod prefetch;
pub mod socket_option;
#[cfg(feature = "ebpf")]
pub mod tun;
