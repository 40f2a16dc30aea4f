//! What its tests need to judge mirrored copies: a receiver as strict as an IDS, and a reader of capture files.

mod pcap;
mod receiver;
mod stream;

pub use pcap::{Record, read_pcap};
pub use receiver::{Complaint, Copy, Receiver};
pub use stream::{Stream, StreamKey};
