//! The only module with `unsafe`: small safe wrappers over what the machine offers and the standard library does not.
//!
//! Each function is safe for every argument. One unsafe operation stands in a block, with its proof.

pub mod barrier;
pub mod clock;
pub mod drained_map;
pub mod interface;
