//! What a record repeats about its interface: account, VPC, tags and the like.

/// The values that come from configuration and not from packets, by field.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata;
