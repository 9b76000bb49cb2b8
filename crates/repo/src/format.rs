//! The types that are stored, one file each. Nothing outside this module knows a byte offset.

pub(crate) mod attributes;
pub(crate) mod bytes;
pub(crate) mod config;
pub(crate) mod envelope;
pub(crate) mod features;
pub(crate) mod head;
pub(crate) mod id;
pub(crate) mod index;
pub(crate) mod node;
#[cfg(test)]
pub(crate) mod noise;
pub(crate) mod pack;
pub(crate) mod prune;
pub(crate) mod slot;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod tree;
