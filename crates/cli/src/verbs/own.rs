//! What this program is when it was started by itself: the walker of a container's files, or the
//! guard of a backup.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use snapkeep_host::container::guard as watch;
use snapkeep_walk::run_walker;

use crate::failure::usage;

/// Walks what it is told to over its standard input.
pub(super) fn walk() -> Result<ExitCode> {
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.context("the walker has no standard input")?;
    Ok(run_walker(socket).into())
}

/// Watches a backup, and takes back what it changed once it is dead.
pub(super) fn guard(watched: &[OsString]) -> Result<()> {
    let [folder, stem] = watched else {
        return Err(usage("the guard is started by a backup alone"));
    };
    Ok(watch([folder.clone(), stem.clone()])?)
}
