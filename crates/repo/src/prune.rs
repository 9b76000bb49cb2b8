//! Pruning without locks: what no archive needs is condemned, and deleted once a grace period has
//! passed. `docs/FORMAT.md` has the protocol, and why nothing is lost by it.

mod ages;
mod ending;
pub(crate) mod fence;
pub(crate) mod folder;
pub(crate) mod leaving;
mod locked;
mod mark;
pub(crate) mod needs;
mod plan;
mod survey;
mod sweep;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::format::prune::PruneFile;
use crate::repository::Repository;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits, random};

pub use ages::Ahead;
use folder::Folder;

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Seconds between a generation and its sweep, and that a pack is left alone after it was
    /// written. Safety does not depend on it; backups that take longer may fail.
    pub grace: u64,
    /// Seconds until lists of this storage show what was done, twice: a sweep waits for so long
    /// after its marker was put, and before its generations go.
    pub settle: u64,
    /// The most bytes that are copied out of packs of which only a part is needed.
    pub max_repack: u64,
    /// So much of what stays may be needed by nothing, in parts of 1000.
    pub max_unused: u16,
    /// Whether to go on where it is asked for: when more than half of all packs are to go, or
    /// archives or index objects are missing.
    pub confirmed: bool,
    /// Only tells what would be done.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: limits::GRACE_SECONDS,
            settle: limits::SETTLE_SECONDS,
            max_repack: u64::MAX,
            max_unused: 100,
            confirmed: false,
            dry_run: false,
        }
    }
}

/// A number of packs, or of other things, and their bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amount {
    /// How many.
    pub number: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.bytes += bytes;
    }
}

/// What a pruning did, or would do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PruneReport {
    /// What was deleted, if it was time to.
    pub swept: Option<Swept>,
    /// What was condemned, unless an earlier generation is still waiting.
    pub marked: Option<Marked>,
    /// Why nothing was condemned, where that is to be confirmed and something was deleted before.
    pub refused: Option<String>,
    /// What waits to be deleted.
    pub waiting: Option<Waiting>,
    /// Files that are dated in the future, as far as their age decides something, at most
    /// [`PROBLEMS_MAX`](limits::PROBLEMS_MAX).
    pub ahead: Vec<Ahead>,
}

/// What a sweep deleted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Swept {
    /// Archives that were forgotten.
    pub archives: u64,
    /// Packs.
    pub deleted: Amount,
    /// Chunks that were needed after all, and copied; bytes before compression.
    pub rescued: Amount,
    /// Files that a lock keeps; a later sweep tries again. Bytes are those of packs.
    pub locked: Amount,
}

/// What a mark found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Marked {
    /// Archives that go.
    pub archives: u64,
    /// Packs that go; those that were repacked are among them.
    pub condemned: Amount,
    /// Chunks that were copied out of packs that go; bytes as they were stored.
    pub repacked: Amount,
    /// Packs that nothing needs but that are younger than the grace period.
    pub young: Amount,
    /// Bytes in the packs that stay that nothing needs.
    pub unused: u64,
    /// Packs that were to be repacked and stay, because they cannot be read.
    pub unreadable: u64,
}

/// What waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// Packs that are condemned.
    pub packs: Amount,
    /// When they may be deleted: seconds since 1970, by the storage's clock.
    pub until: i64,
    /// Whether it was time to delete them, but for an earlier pruning that may still be about to
    /// delete an archive that is kept after all.
    pub held: bool,
}

/// When the files in `prune/` were put.
type Times = BTreeMap<FileName, i64>;

/// One pruning.
pub(crate) struct Run<'r> {
    pub(crate) repository: &'r Arc<Repository>,
    pub(crate) options: &'r PruneOptions,
    /// By the storage's clock, when it began.
    pub(crate) now: i64,
    ahead: RefCell<Vec<Ahead>>,
    /// Until when no sweep may begin, if that is so.
    held_until: Cell<Option<i64>>,
}

/// Sweeps what was condemned a grace period ago, and then condemns what nothing needs now. While
/// something waits to be swept, nothing more is condemned. Any number of hosts may do this at once,
/// while others write and read.
///
/// `Invalid` if it is to be confirmed. After any error nothing is lost, and the next one goes on.
pub fn prune(repository: &Arc<Repository>, options: &PruneOptions) -> Result<PruneReport> {
    repository.may_write()?;
    repository.may_read().map_err(|e| {
        let what = "nothing is pruned: what is still needed of packs that go is read and stored \
                    anew, which this key may not; prune on a host with another key";
        Error::with_source(e.kind(), what, e)
    })?;
    let run = Run {
        repository,
        options,
        now: time(repository)?,
        ahead: RefCell::default(),
        held_until: Cell::default(),
    };
    let mut report = PruneReport::default();
    run.run(&mut report)?;
    report.ahead = run.ahead.into_inner();
    Ok(report)
}

/// What the storage's clock says: a file is written beside the generations, which are judged by
/// it, and removed again.
pub(crate) fn time(repository: &Repository) -> Result<i64> {
    let storage = &repository.storage;
    let random: [u8; 8] = random::fresh(&*repository.random)?;
    let file = PruneFile::Probe.name(random);
    storage.put(&file, &random)?;
    let time = storage.modified(&file)?;
    storage.remove(&file)?;
    Ok(time)
}

impl Run<'_> {
    fn run(&self, report: &mut PruneReport) -> Result<()> {
        let (folder, times) = self.folder()?;
        self.remove_old_probes(&folder, &times)?;
        if let Some(until) = self.last_due(&folder, &times) {
            if until > self.now {
                report.waiting = Some(self.waiting(until)?);
                return Ok(());
            }
            report.swept = self.sweep(&folder, &times)?;
            let (folder, times) = self.folder()?;
            let due = self.last_due(&folder, &times);
            if let Some(until) = due.filter(|_| !self.options.dry_run) {
                report.waiting = Some(self.waiting(until)?);
                return Ok(());
            }
        }
        match self.mark() {
            Ok(marked) => report.marked = Some(marked),
            // What was deleted before is told all the same.
            Err(e) if e.kind() == ErrorKind::Invalid && report.swept.is_some() => {
                report.refused = Some(e.chain());
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        let (folder, times) = self.folder()?;
        let due = self.last_due(&folder, &times);
        if let Some(until) = due.filter(|_| !self.options.dry_run) {
            report.waiting = Some(self.waiting(until)?);
        }
        Ok(())
    }

    /// What is in `prune/`, and when it was put.
    fn folder(&self) -> Result<(Folder, Times)> {
        let (folder, times) = Folder::list_dated(&*self.repository.storage)?;
        for (file, time) in &times {
            self.note_if_ahead(file, *time);
        }
        Ok((folder, times))
    }

    /// When the last of these generations may be swept; `None` if there is none.
    fn last_due(&self, folder: &Folder, times: &Times) -> Option<i64> {
        let grace = i64::try_from(self.options.grace).unwrap_or(i64::MAX);
        let times = folder
            .generations
            .iter()
            .filter_map(|(file, _)| times.get(file));
        times.map(|time| time.saturating_add(grace)).max()
    }

    /// Waits until whoever lists anything is shown what was done.
    fn settle(&self) -> Result<()> {
        if self.options.settle == 0 {
            return Ok(());
        }
        let clock = &self.repository.clock;
        let (began, duration) = (clock.monotonic(), Duration::from_secs(self.options.settle));
        clock.sleep(duration);
        if clock.monotonic().saturating_sub(began) < duration {
            let what = "it was to end while it waited for lists to be up to date";
            return Err(Error::new(ErrorKind::Cancelled, what));
        }
        Ok(())
    }

    fn waiting(&self, until: i64) -> Result<Waiting> {
        let packs = self.condemned()?;
        let held = self.held_until.get();
        Ok(Waiting {
            packs,
            until: held.unwrap_or(until),
            held: held.is_some(),
        })
    }

    /// Condemned packs that are there.
    fn condemned(&self) -> Result<Amount> {
        self.repository.refresh_condemned()?;
        let index = self.repository.index();
        let mut amount = Amount::default();
        for pack in index
            .packs()
            .iter()
            .filter(|p| p.condemned.is_some() && !p.gone)
        {
            amount.add(u64::from(pack.length));
        }
        Ok(amount)
    }

    /// Those of prunings that were killed.
    fn remove_old_probes(&self, folder: &Folder, times: &Times) -> Result<()> {
        for file in &folder.probes {
            let time = times.get(file).copied();
            if time.is_some_and(|time| self.has_passed(time, limits::SWEEP_SECONDS_MAX)) {
                self.repository.storage.remove(file)?;
            }
        }
        Ok(())
    }

    /// Fails unless it was confirmed. `why` is told with what is to be done.
    pub(crate) fn ask(&self, why: &str) -> Result<()> {
        if self.options.confirmed || self.options.dry_run {
            return Ok(());
        }
        let what = format!("nothing is pruned: {why}. If that is right, confirm it with --confirm");
        Err(Error::new(ErrorKind::Invalid, what))
    }
}
