//! flowtap: VPC Flow Logs for any Linux host, and for capture files.
//!
//! Read [`worker`] first: it is the loop that every packet goes through. The stages it calls are modules of the same
//! names, and a stage knows the types of the stage before it, never the one after:
//! [`capture`] hands over frames, [`packet`] reads one, [`flow`] counts it, [`classify`] and [`policy`] say what a
//! finished flow is.

pub mod capture;
pub mod classify;
pub mod config;
pub mod daemon;
pub mod ec2;
pub mod feed;
pub mod flow;
pub mod ledger;
pub mod mirror;
mod netlink;
pub mod packet;
pub mod policy;
pub mod recorder;
pub mod replay;
#[expect(unsafe_code, reason = "the one place for it: each block has its proof, each function is safe")]
pub mod sys;
pub mod time;
pub mod worker;
