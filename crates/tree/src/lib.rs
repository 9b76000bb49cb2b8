//! What is done with the file tree of an archive, whoever keeps it: it is written as a tar archive
//! ([`tar`]), or extracted into a folder ([`extract()`]).

pub mod acl;
pub mod capability;
mod extract;
mod ids;
mod limits;
mod links;
mod order;
mod runs;
mod selection;
pub mod tar;
mod visit;

pub use extract::{
    Existing, ExtractOptions, ExtractReport, Problem, ProblemKind, Progress, extract,
};
pub use ids::{IdMap, IdRange, Owners};
pub use selection::Selection;
