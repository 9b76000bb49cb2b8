//! A container's file tree: from its walk into the repository, and from there to a restore.

mod audit;
mod base;
pub(crate) mod convert;
mod problems;
mod progress;
mod pull;
mod reader;

pub(crate) use base::Base;
pub(crate) use pull::{Failed, Pull};
pub(crate) use reader::StoredTree;
