//! A repository in a bucket of S3: the [`Storage`](snapkeep_repo::Storage) that is one.
//!
//! Each file of the repository is one object, put by one request and never changed. Nothing depends
//! on what an endpoint may lack: no conditional put, no multipart upload, no order of lists. What
//! comes is checked to be what was asked for; what cannot be had is an error about the request, and
//! never one about the repository's bytes.

mod account;
mod asking;
mod attempt;
mod build;
mod client;
mod clock;
mod credentials;
mod environment;
mod fault;
mod lent;
pub mod limits;
mod listing;
mod location;
mod lock;
mod pace;
mod probe;
mod reading;
mod sending;
mod service;
mod side;
mod signed;
mod storage;
mod tries;
mod versions;
mod xml;

pub use account::{Account, Budget, Usage};
pub use location::Location;
pub use lock::{Extended, LockMode, Retention};
pub use probe::Abilities;
pub use storage::{Cancelled, Options, S3Storage};
pub use versions::Purged;
