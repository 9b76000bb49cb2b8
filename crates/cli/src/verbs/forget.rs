//! `forget`: takes archives out of all lists, by name or by a retention policy.

mod policy;

use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use serde::Serialize;
use snapkeep_repo::SnapshotName;

use crate::args::forget::Forget;
use crate::failure::Code;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::counted;

#[derive(Serialize)]
struct Forgotten {
    archives: Vec<String>,
    forgotten: bool,
}

impl Report for Forgotten {
    fn lines(&self) -> Vec<String> {
        let done = if self.forgotten {
            "is forgotten (`snapkeep prune` frees its space)"
        } else {
            "is there again"
        };
        (self.archives.iter())
            .map(|archive| format!("{archive} {done}"))
            .collect()
    }
}

pub(super) fn run(settings: &Settings, wanted: &Forget, json: bool) -> Result<ExitCode> {
    if wanted.archives.is_empty() {
        return policy::run(settings, wanted, json);
    }
    by_name(settings, wanted, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Only whole names: the newest archive of a guest is the one that nobody wants to lose.
fn by_name(settings: &Settings, wanted: &Forget, json: bool) -> Result<()> {
    let session = Session::open(settings)?;
    let names = (wanted.archives.iter())
        .map(|archive| {
            if wanted.damaged {
                session.name(settings, archive)
            } else {
                session
                    .named(settings, archive)
                    .map_err(|e| hint(archive, e))
            }
        })
        .collect::<Result<Vec<_>>>()?;
    for (done, name) in (0u64..).zip(&names) {
        let changed = if wanted.damaged {
            (session.repository).forget_damaged(name, !wanted.undo, wanted.unprotect)
        } else if wanted.undo {
            session.repository.take_back(name)
        } else {
            session.repository.forget(name)
        };
        changed.with_context(|| {
            let verb = if wanted.undo { "take back" } else { "forget" };
            let before = match done {
                0 => String::new(),
                number => format!(
                    " (that was done to {} before it)",
                    counted(number, "archive")
                ),
            };
            format!("cannot {verb} archive {name}{before}")
        })?;
    }
    session.remember_without(&names)?;
    if let (Some(retention), false) = (session.retention(), wanted.undo || settings.quiet) {
        remark(&format!(
            "its record and data stay in the bucket until their locks end ({retention}), also when it is pruned"
        ));
    }
    let done = Forgotten {
        archives: names.iter().map(SnapshotName::to_string).collect(),
        forgotten: !wanted.undo,
    };
    report::result(&done, json)
}

/// Says what forgets an archive whose record cannot be read.
fn hint(archive: &str, error: Error) -> Error {
    if Code::of(&error) != Code::Damaged {
        return error;
    }
    error.context(format!(
        "the record of archive {archive} is damaged, and nothing was forgotten: `snapkeep forget \
         --damaged` forgets such a one"
    ))
}
