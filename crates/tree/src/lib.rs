//! What is done with the file tree of an archive, whoever keeps it: it is written as a tar archive
//! ([`tar`]), extracted into a folder ([`extract()`]), compared with another ([`compare()`]).

pub mod acl;
pub mod capability;
mod compare;
mod extract;
mod limits;
mod links;
mod order;
mod owners;
mod runs;
mod selection;
pub mod tar;
mod visit;

pub use compare::{Changes, Difference, compare};
pub use extract::{
    Existing, ExtractOptions, ExtractReport, Problem, ProblemKind, Progress, extract,
};
pub use owners::Owners;
pub use selection::Selection;
