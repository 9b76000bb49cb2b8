//! A container's file tree: what is in it, how a backup pulls it, how a restore reads it.

mod entry;
pub mod limits;
mod name;
mod reader;
mod source;

pub use entry::{Attributes, DeviceNumber, Entry, EntryKind, Timestamp, Xattr};
pub use name::{Name, TreePath};
pub use reader::{Place, TreeNode, TreeReader, TreeTotals, find};
pub use source::{
    Content, Found, FoundKind, Judgement, KnownTree, Problem, ProblemKind, Step, Told, TreeSource,
    Witness,
};
