//! A container's tree, as a backup reads it.
//!
//! A [`walker`] runs as a process of its own, as the container's root user and without a privilege,
//! a key or a repository. It reads the tree and tells it over one Unix socket ([`stream`]). The
//! privileged process pulls it ([`Pull`]): it is a [`TreeSource`](snapkeep_api::tree::TreeSource)
//! that believes nothing the walker says before it has checked it. Both take [`exclude`]d entries
//! out in the walker, where they cost least.

pub mod exclude;
pub mod fuzz;
mod limits;
pub mod pull;
pub mod stream;
pub mod userns;
pub mod walker;

#[cfg(test)]
mod testing;

pub use pull::{Options, Pull};
pub use stream::Request;
pub use walker::run_walker;
