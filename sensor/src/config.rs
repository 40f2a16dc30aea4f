//! Checked configuration.

pub mod document;
pub mod glob;
pub mod value;
