//! How old files are, by the storage's clock, and which of them say that they are of the future.

use std::cell::OnceCell;

use super::Run;
use crate::index::{Pack, pack_of};
use crate::storage::FileName;
use crate::{Result, limits};

/// A file with a time that is still to come: it is never taken for old, so what waits for it to be
/// waits until then. The clock of the storage, or of the host that wrote it, was wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ahead {
    /// The file.
    pub file: FileName,
    /// Seconds since 1970, by the storage's clock.
    pub time: i64,
}

impl Run<'_> {
    /// Whether so many seconds have passed since then.
    pub(super) fn has_passed(&self, then: i64, seconds: u64) -> bool {
        let passed = i128::from(self.now) - i128::from(then);
        passed >= i128::from(seconds)
    }

    /// Remembers a file whose age decides something, if it has none.
    pub(super) fn note_if_ahead(&self, file: &FileName, time: i64) {
        let latest = self.now.saturating_add(limits::AHEAD_SECONDS);
        let mut ahead = self.ahead.borrow_mut();
        let known = ahead.iter().any(|known| known.file == *file);
        if time > latest && !known && ahead.len() < limits::PROBLEMS_MAX {
            let file = file.clone();
            ahead.push(Ahead { file, time });
        }
    }
}

/// When packs were written: all of it by one list, and only if somebody asks.
pub(super) struct Ages<'r> {
    run: &'r Run<'r>,
    packs: &'r [Pack],
    times: OnceCell<Vec<Option<i64>>>,
}

impl<'r> Ages<'r> {
    pub(super) fn new(run: &'r Run<'r>, packs: &'r [Pack]) -> Self {
        let times = OnceCell::new();
        Self { run, packs, times }
    }

    /// Whether a pack is older than the grace period: what a running backup has put, and nothing
    /// needs yet, is not. `None` if it is not there any more.
    pub(super) fn is_old(&self, pack: u32) -> Result<Option<bool>> {
        let times = if let Some(times) = self.times.get() {
            times
        } else {
            let times = self.list()?;
            self.times.get_or_init(|| times)
        };
        let Some(time) = times.get(pack as usize).copied().flatten() else {
            return Ok(None);
        };
        let file = crate::index::pack_file(&self.packs[pack as usize].id);
        self.run.note_if_ahead(&file, time);
        Ok(Some(self.run.has_passed(time, self.run.options.grace)))
    }

    fn list(&self) -> Result<Vec<Option<i64>>> {
        let mut times = vec![None; self.packs.len()];
        let repository = self.run.repository;
        let index = repository.index();
        (repository.storage).list_dated(&"packs".parse()?, &mut |file, _, time| {
            let number = pack_of(file).and_then(|id| index.number_of(&id));
            if let Some(place) = number.and_then(|number| times.get_mut(number as usize)) {
                *place = Some(time);
            }
            Ok(())
        })?;
        Ok(times)
    }
}
