//! Records <-> Parquet columns.
//!
//! Authority: the AWS pages "Flow log files" (Parquet with gzip inside), "Flow log records" (INT_32, INT_64, STRING)
//! and Athena's "Query Amazon VPC flow logs" (columns are named with `_` for `-` and matched by name). Every column is
//! OPTIONAL; an absent string is `-` as in text, an absent integer is null.

mod pages;
mod reader;
mod writer;

pub use reader::{ParquetReadError, ParquetReader, fuzz};
pub use writer::{ParquetCodec, ParquetEncoder, ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX};

#[cfg(test)]
mod tests;
