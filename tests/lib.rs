//! The built program, seen from outside.
