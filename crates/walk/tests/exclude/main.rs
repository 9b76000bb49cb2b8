//! What is excluded from a tree: as documented, as other tools do it, and as properties.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod documented;
mod tree;
