//! The conformance kit as a program runs it: one verdict for each property, and a [`Provider`]
//! that is a backup provider class in Perl.
//!
//! The class runs in a process of its own, `perl -T` with a small driver, which makes the calls
//! that Proxmox VE makes, in its order and with its kinds of values. What the Perl interface has no
//! words for is not applicable to a class, and is told so; it never counts as held.
//!
//! [`Provider`]: snapkeep_api::Provider

mod kit;
mod limits;
mod perl;

pub use kit::{Kind, Property, Verdict, check, properties};
pub use perl::{Dialect, PerlClass};
