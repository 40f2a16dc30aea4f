//! The generator of the small captures in this folder.
