//! One module for each verb: what it does, what it prints.

mod attributes;
mod backup;
mod cat;
mod conformance;
mod copy;
mod diff;
mod doctor;
mod extract;
mod find;
mod forget;
mod generate;
mod init;
mod key;
mod list;
mod ls;
mod mount;
mod nbd;
mod own;
mod prune;
mod repair;
mod restore;
mod show;
mod stats;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Verb};
use crate::provide;
use crate::settings::Settings;

/// Runs a verb; the exit code if it did not fail.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // What this program starts itself is told all it needs.
    let settings = || Settings::new(&args.common);
    // What is to be proven is what the storage holds, and not what this host kept of it.
    let proving = || settings().map(Settings::without_cache);
    let json = args.common.json;
    match &args.verb {
        Verb::Init(init) => init::run(&settings()?, init, json)?,
        Verb::Backup(backup) => return backup::run(&settings()?, backup, json),
        Verb::List(list) => return list::run(&settings()?, list, json),
        Verb::Stats => return stats::run(&settings()?, json),
        Verb::Show(show) => show::run(&settings()?, show, json)?,
        Verb::Restore(restore) => return restore::run(&settings()?, restore, json),
        Verb::Doctor(doctor) => return doctor::run(&settings()?, doctor, json),
        Verb::Verify(wanted) => return verify::run(&proving()?, wanted, json),
        Verb::Repair(wanted) => return repair::run(&proving()?, wanted, json),
        Verb::Copy(wanted) => return copy::run(&settings()?, wanted, json),
        Verb::Note(note) => attributes::note(&settings()?, note, json)?,
        Verb::Protect(named) => attributes::protect(&settings()?, named, true, json)?,
        Verb::Unprotect(named) => attributes::protect(&settings()?, named, false, json)?,
        Verb::Forget(wanted) => return forget::run(&settings()?, wanted, json),
        Verb::Prune(wanted) => return prune::run(&settings()?, wanted, json),
        Verb::Key(key) => key::run(&settings()?, key, json)?,
        Verb::Nbd(nbd) => nbd::run(&settings()?, nbd, json)?,
        Verb::Ls(ls) => ls::run(&settings()?, ls, json)?,
        Verb::Cat(cat) => cat::run(&settings()?, cat, json)?,
        Verb::Diff(diff) => return diff::run(&settings()?, diff, json),
        Verb::Mount(wanted) => mount::run(&settings()?, wanted, json)?,
        Verb::Conformance(wanted) => {
            return conformance::run(wanted, args.common.quiet, json);
        }
        Verb::Generate { folder } => generate::run(folder)?,
        Verb::Walk => return own::walk(),
        Verb::Provider => provide::run()?,
        Verb::Guard { watched } => own::guard(watched)?,
        Verb::Extract(wanted) => return extract::run(&settings()?, wanted, json),
        Verb::Find(find) => return find::run(&settings()?, find, json),
    }
    Ok(ExitCode::SUCCESS)
}
