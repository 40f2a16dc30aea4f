//! VPC Flow Log records and the files that hold them.
//!
//! This crate knows the record: its fields, its text, JSON and Parquet forms, and the layout of files in a bucket. It
//! knows no packet, no interface and no thread. The contract is AWS's "Flow log records" page; fields of our own
//! carry the prefix `x-`.

pub mod field;
pub mod format;
pub mod metadata;
pub mod record;
pub mod text;
mod value;

#[cfg(test)]
mod examples;
