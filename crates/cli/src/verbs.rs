//! One module for each verb: what it does, what it prints.

mod backup;
mod init;
mod key;
mod list;
mod nbd;
mod restore;
mod show;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Verb};
use crate::settings::Settings;

/// Runs a verb; the exit code if it did not fail.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let settings = Settings::new(&args.common)?;
    let json = args.common.json;
    match &args.verb {
        Verb::Init(init) => init::run(&settings, init, json)?,
        Verb::Backup(backup) => return backup::run(&settings, backup, json),
        Verb::List(list) => return list::run(&settings, list, json),
        Verb::Show(show) => show::run(&settings, show, json)?,
        Verb::Restore(restore) => restore::run(&settings, restore, json)?,
        Verb::Verify => return verify::run(&settings, json),
        Verb::Key(key) => key::run(&settings, key, json)?,
        Verb::Nbd(nbd) => nbd::run(&settings, nbd, json)?,
    }
    Ok(ExitCode::SUCCESS)
}
