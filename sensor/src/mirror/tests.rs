//! Decisions: the cases of the specification, and the tables against a plain walk.

mod cases;
mod model;
