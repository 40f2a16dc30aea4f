//! Traffic mirroring: chosen packets, encapsulated, to those who inspect them.

pub mod balance;
pub mod flow_hash;
