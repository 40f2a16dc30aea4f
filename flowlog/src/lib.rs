//! VPC Flow Log records and the files that hold them.
//!
//! This crate knows the record: its fields, its text, JSON and Parquet forms, and the layout of files in a bucket. It
//! knows no packet, no interface and no thread. The contract is AWS's "Flow log records" page; fields of our own
//! carry the prefix `x-`.

pub mod community_id;
pub mod field;
pub mod format;
pub mod json;
pub mod layout;
pub mod metadata;
pub mod parquet;
pub mod reader;
pub mod record;
pub mod segment;
pub mod sink;
pub mod text;
mod value;
pub mod writer;

#[cfg(test)]
mod examples;
