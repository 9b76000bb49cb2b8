//! Fuzzing: a loop that looks for bytes with which a function panics.
//!
//! A target takes any bytes as what a peer sent and returns a number that tells how they were treated
//! (see [`Trace`]): the messages understood, in their order, and the error in the end. The loop keeps
//! what was treated as nothing before it was, which leads it deeper than chance, without
//! instrumented code.
//!
//! `snapkeep_nbd::fuzz` and `snapkeep_walk::fuzz` have the targets, each crate its corpus in
//! `fuzz/corpus/NAME/`. The test `corpus` here replays them with some thousand mutations, `cargo xtask
//! fuzz`, which is the example here, goes on for as long as it is told.

mod campaign;
mod corpus;
mod limits;
mod trace;

pub use campaign::{Campaign, Finding};
pub use corpus::{Kept, corpus};
pub use trace::Trace;

/// A function to fuzz.
pub type Target = fn(&[u8]) -> u64;
