//! Walks over real trees.

mod depth;
mod kinds;
mod known;
mod races;
