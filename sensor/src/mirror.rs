//! Traffic mirroring: chosen packets, encapsulated, to those who inspect them.

pub mod balance;
pub mod flow_hash;
pub mod checksum;
pub mod segment;
pub mod inner;
