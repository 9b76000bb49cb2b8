//! A container's tree, as a backup reads it: what is excluded of it.

pub mod exclude;
mod limits;
