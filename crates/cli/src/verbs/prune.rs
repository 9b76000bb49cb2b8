//! `prune`: frees the space of what no archive needs.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use snapkeep_repo::{Amount, Marked, PruneOptions, Swept, prune};

use crate::args::prune::Prune;
use crate::failure::{Code, fault, usage};
use crate::locks::{self, Locks};
use crate::report::{self, Report};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::{counted, human};

#[derive(Serialize)]
struct Pruned {
    dry_run: bool,
    deleted: Option<Deleted>,
    condemned: Option<Condemned>,
    /// Why nothing was condemned after something was deleted.
    refused: Option<String>,
    waiting: Option<Waiting>,
    /// Files that are dated in the future.
    ahead: Vec<Ahead>,
    /// Null where nothing is locked.
    locks: Option<Locks>,
    /// Whether a bucket without locks keeps what was deleted, as old versions; null if nothing was
    /// deleted, or it does not tell.
    keeps_versions: Option<bool>,
}

#[derive(Serialize)]
struct Ahead {
    file: String,
    /// Seconds since the epoch, by the storage's clock.
    time: i64,
    /// The same in RFC 3339, UTC.
    time_utc: String,
}

#[derive(Serialize)]
struct Deleted {
    archives: u64,
    packs: u64,
    packs_bytes: u64,
    rescued_chunks: u64,
    rescued_bytes: u64,
    locked_files: u64,
    locked_bytes: u64,
}

#[derive(Serialize)]
struct Condemned {
    archives: u64,
    packs: u64,
    packs_bytes: u64,
    repacked_chunks: u64,
    repacked_bytes: u64,
    young_packs: u64,
    young_bytes: u64,
    unused_bytes: u64,
    unreadable_packs: u64,
}

#[derive(Serialize)]
struct Waiting {
    packs: u64,
    packs_bytes: u64,
    /// Seconds since the epoch, by the storage's clock.
    until: i64,
    /// The same in RFC 3339, UTC.
    until_utc: String,
    /// Whether only an earlier pruning keeps them, that may still be deleting.
    held: bool,
}

impl From<Swept> for Deleted {
    fn from(swept: Swept) -> Self {
        Self {
            archives: swept.archives,
            packs: swept.deleted.number,
            packs_bytes: swept.deleted.bytes,
            rescued_chunks: swept.rescued.number,
            rescued_bytes: swept.rescued.bytes,
            locked_files: swept.locked.number,
            locked_bytes: swept.locked.bytes,
        }
    }
}

impl From<Marked> for Condemned {
    fn from(marked: Marked) -> Self {
        Self {
            archives: marked.archives,
            packs: marked.condemned.number,
            packs_bytes: marked.condemned.bytes,
            repacked_chunks: marked.repacked.number,
            repacked_bytes: marked.repacked.bytes,
            young_packs: marked.young.number,
            young_bytes: marked.young.bytes,
            unused_bytes: marked.unused,
            unreadable_packs: marked.unreadable,
        }
    }
}

impl From<snapkeep_repo::Waiting> for Waiting {
    fn from(waiting: snapkeep_repo::Waiting) -> Self {
        let snapkeep_repo::Waiting {
            packs: Amount { number, bytes },
            until,
            held,
        } = waiting;
        Self {
            packs: number,
            packs_bytes: bytes,
            until,
            until_utc: utc(until),
            held,
        }
    }
}

fn utc(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

fn packs(number: u64, bytes: u64) -> String {
    format!("{} ({})", counted(number, "pack"), human(bytes))
}

fn archives(number: u64) -> String {
    match number {
        1 => "1 archive".to_owned(),
        number => format!("{number} archives"),
    }
}

impl Pruned {
    fn of_deleted(&self, deleted: &Deleted) -> Vec<String> {
        let (delete, copy) = if self.dry_run {
            ("would delete", "would copy")
        } else {
            ("deleted", "copied")
        };
        let hidden = match (&self.locks, self.keeps_versions) {
            (Some(_), _) => ", which hides them until their locks have ended",
            (None, Some(true)) => {
                ", which the bucket keeps as old versions, and they take room, until a lifecycle rule \
                 of the bucket removes noncurrent versions"
            }
            (None, Some(false) | None) => "",
        };
        let mut lines = vec![format!(
            "{delete} {} and {}{hidden}",
            archives(deleted.archives),
            packs(deleted.packs, deleted.packs_bytes)
        )];
        if deleted.rescued_chunks > 0 {
            lines.push(format!(
                "{copy} {} first that are needed after all",
                counted(deleted.rescued_chunks, "chunk")
            ));
        }
        if deleted.locked_files > 0 {
            lines.push(format!(
                "locks keep {} ({} of packs): prune again once they have ended",
                counted(deleted.locked_files, "file"),
                human(deleted.locked_bytes)
            ));
        }
        lines
    }
}

impl Report for Pruned {
    fn lines(&self) -> Vec<String> {
        let (condemn, copy) = if self.dry_run {
            ("would condemn", "would copy")
        } else {
            ("condemned", "copied")
        };
        let mut lines = Vec::new();
        lines.extend(
            self.deleted
                .iter()
                .flat_map(|deleted| self.of_deleted(deleted)),
        );
        if let Some(condemned) = &self.condemned {
            lines.push(format!(
                "{condemn} {} and {}; {} of what stays is needed by nothing",
                archives(condemned.archives),
                packs(condemned.packs, condemned.packs_bytes),
                human(condemned.unused_bytes)
            ));
            if condemned.repacked_chunks > 0 {
                lines.push(format!(
                    "{copy} {} ({}) out of packs that go",
                    counted(condemned.repacked_chunks, "chunk"),
                    human(condemned.repacked_bytes)
                ));
            }
            if condemned.young_packs > 0 {
                lines.push(format!(
                    "{} that nothing needs may be of a backup at work, and are left alone",
                    packs(condemned.young_packs, condemned.young_bytes)
                ));
            }
            if condemned.unreadable_packs > 0 {
                lines.push(format!(
                    "not read whole, and left alone: {} (`snapkeep verify` tells what is wrong)",
                    counted(condemned.unreadable_packs, "pack")
                ));
            }
        }
        if let Some(why) = &self.refused {
            lines.push(format!("then nothing was condemned: {why}"));
        }
        if let Some(waiting) = &self.waiting {
            if waiting.held {
                lines.push(
                    "nothing was deleted: a pruning that began before may still be deleting an \
                     archive that is kept after all"
                        .to_owned(),
                );
            }
            let with = match waiting.packs {
                0 => String::new(),
                number => format!(", {} with it", packs(number, waiting.packs_bytes)),
            };
            lines.push(format!(
                "what is condemned waits{with}: prune again after {}, and it is deleted",
                waiting.until_utc
            ));
        }
        for ahead in &self.ahead {
            lines.push(format!(
                "{} is dated {}, which is still to come, and is not taken for old before: was the \
                 clock wrong that dated it?",
                ahead.file, ahead.time_utc
            ));
        }
        let locks = self.locks.iter();
        lines.extend(locks.flat_map(|locks| locks.lines(self.dry_run)));
        lines
    }
}

pub(super) fn run(settings: &Settings, wanted: &Prune, json: bool) -> Result<ExitCode> {
    let options = PruneOptions {
        grace: wanted.grace_seconds().map_err(usage)?,
        settle: wanted.settle_seconds(),
        max_repack: wanted.max_repack.map_or(u64::MAX, u64::from),
        max_unused: wanted.max_unused,
        confirmed: wanted.confirm,
        dry_run: wanted.dry_run,
    };
    let session = Session::open(settings)?;
    if let (Some(doubt), false) = (session.doubts.first(), wanted.confirm || wanted.dry_run) {
        let what = format!(
            "nothing is pruned, for what the archives need that are gone would go too: {}; put them back, or take it as it is with `snapkeep doctor --accept-rollback` or --confirm",
            doubt.what
        );
        return Err(fault(Code::Failed, what));
    }
    let renewed = locks::renew(&session, wanted.dry_run)?;
    let found = prune(&session.repository, &options);
    session.stop.cancel.check()?;
    let found = found?;
    let locks = locks::free(&session, renewed, found.marked.is_some(), wanted.dry_run);
    session.stop.cancel.check()?;
    let deletes = (found.swept).is_some_and(|swept| swept.archives + swept.deleted.number > 0);
    let keeps_versions = (locks.is_none() && deletes)
        .then(|| locks::keeps_versions(&session))
        .flatten();
    let pruned = Pruned {
        dry_run: wanted.dry_run,
        deleted: found.swept.map(Deleted::from),
        condemned: found.marked.map(Condemned::from),
        refused: found.refused,
        waiting: found.waiting.map(Waiting::from),
        ahead: (found.ahead.into_iter())
            .map(|ahead| Ahead {
                file: ahead.file.to_string(),
                time: ahead.time,
                time_utc: utc(ahead.time),
            })
            .collect(),
        locks,
        keeps_versions,
    };
    let failed = pruned.refused.is_some() || pruned.locks.as_ref().is_some_and(Locks::failed);
    let code = failed.then_some(Code::Failed);
    report::result(&pruned, json)?;
    Ok(session.code(code.map_or(ExitCode::SUCCESS, ExitCode::from)))
}
