//! What a run has proven, for the next one if this one is interrupted: a text file below the state
//! folder that may be lost, whose first line says what was wanted.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::durable;

/// What was proven longer ago than this, in seconds, is proven again.
const AGE_MAX: i64 = 7 * 86_400;
/// The longest file that is read, in bytes: one line for each of millions of packs.
const LENGTH_MAX: u64 = 1 << 30;
/// The longest line.
const LINE_MAX: usize = 1 << 20;

/// What a run is for. Only one that wants the same goes on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Wanted {
    /// The program's: another one may prove other things.
    pub(super) version: String,
    pub(super) repository: String,
    pub(super) metadata: bool,
    /// Parts of 1000.
    pub(super) sample: Option<u16>,
    pub(super) seed: Option<u64>,
    /// What chose the archives, as it was given.
    pub(super) chosen: Vec<String>,
    /// When it began, in seconds since the epoch.
    pub(super) begun: i64,
}

impl Wanted {
    /// Whether this run may go on with what that one had proven. A seed that was not given may be
    /// any.
    fn continues(&self, before: &Self) -> bool {
        let same = Self {
            seed: self.seed.or(before.seed),
            begun: before.begun,
            ..self.clone()
        };
        same == *before && (0..=AGE_MAX).contains(&(self.begun - before.begun))
    }
}

/// The file of this run, which other runs leave alone.
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    before: HashSet<String>,
}

impl Journal {
    /// Opens the file of a repository, and what it wants then: with the seed of the run that it goes
    /// on with. `ResourceBusy` if another run uses it.
    pub(super) fn open(
        folder: &Path,
        wanted: Wanted,
        anew: bool,
        seed: impl FnOnce() -> u64,
    ) -> io::Result<(Self, Wanted)> {
        durable::make_folder(folder)?;
        let path = folder.join(&wanted.repository);
        let mut options = File::options();
        let file = (options.create(true).truncate(false).read(true).append(true)).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_busy| {
            let what = "another verification of this repository runs on this host";
            io::Error::new(io::ErrorKind::ResourceBusy, what)
        })?;
        let read = if anew { None } else { read(&file)? };
        let found = read.filter(|(before, _)| wanted.continues(before));
        let (wanted, before) = if let Some((before, proven)) = found {
            // What was torn off ends here.
            (&file).write_all(b"\n")?;
            (before, proven)
        } else {
            let sampled = wanted.sample.is_some();
            let wanted = Wanted {
                seed: wanted.seed.or_else(|| sampled.then(seed)),
                ..wanted
            };
            file.set_len(0)?;
            let line = serde_json::to_string(&wanted)?;
            (&file).write_all(format!("{line}\n").as_bytes())?;
            (wanted, HashSet::new())
        };
        let file = Mutex::new(file);
        Ok((Self { path, file, before }, wanted))
    }

    /// Whether a run that was interrupted had proven it.
    pub(super) fn has(&self, object: &str) -> bool {
        self.before.contains(object)
    }

    /// It may be lost, and is then proven again.
    pub(super) fn add(&self, object: &str) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        drop((&*file).write_all(format!("{object}\n").as_bytes()));
    }

    /// Nothing is left to go on with.
    pub(super) fn end(self) {
        drop(fs::remove_file(&self.path));
        if let Some(folder) = self.path.parent() {
            // It goes if it is empty.
            drop(fs::remove_dir(folder));
        }
    }
}

/// What the file says; nothing if it is none of this program's.
fn read(file: &File) -> io::Result<Option<(Wanted, HashSet<String>)>> {
    if file.metadata()?.len() > LENGTH_MAX {
        return Ok(None);
    }
    let mut lines = BufReader::with_capacity(LINE_MAX, file).split(b'\n');
    let Some(first) = lines.next().transpose()? else {
        return Ok(None);
    };
    let Ok(wanted) = serde_json::from_slice(&first) else {
        return Ok(None);
    };
    let mut proven = HashSet::new();
    for line in lines {
        // A line that was torn is no object's name.
        proven.extend(String::from_utf8(line?));
    }
    Ok(Some((wanted, proven)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(begun: i64, seed: Option<u64>) -> Wanted {
        Wanted {
            version: "1".to_owned(),
            repository: "ab".to_owned(),
            metadata: false,
            sample: Some(10),
            seed,
            chosen: Vec::new(),
            begun,
        }
    }

    fn open(folder: &Path, wanted: Wanted) -> (Journal, Wanted) {
        Journal::open(folder, wanted, false, || 9).unwrap()
    }

    #[test]
    fn a_run_goes_on_with_what_was_wanted_before_and_with_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("verify");
        let (journal, first) = open(&folder, wanted(1000, None));
        assert_eq!(first.seed, Some(9));
        assert!(!journal.has("a"));
        journal.add("a");
        // A kill in the middle of a line.
        journal.file.lock().unwrap().write_all(b"packs/to").unwrap();
        let busy = Journal::open(&folder, wanted(1000, None), false, || 1);
        assert!(busy.is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy));
        drop(journal);
        let (journal, again) = open(&folder, wanted(2000, None));
        assert_eq!((again.seed, again.begun), (Some(9), 1000));
        assert!(journal.has("a") && !journal.has("packs/torn"));
        journal.add("b");
        drop(journal);
        assert!(open(&folder, wanted(2000, Some(9))).0.has("b"));
        assert!(!open(&folder, wanted(2000, Some(8))).0.has("b"));
        let (journal, _) = open(&folder, wanted(2000, None));
        journal.add("c");
        drop(journal);
        assert!(!open(&folder, wanted(2001 + AGE_MAX, None)).0.has("c"));
        let (journal, _) = open(&folder, wanted(1000, None));
        journal.add("d");
        drop(journal);
        let anew = Journal::open(&folder, wanted(1001, None), true, || 5).unwrap();
        assert_eq!((anew.0.has("d"), anew.1.seed), (false, Some(5)));
        anew.0.end();
        assert!(!folder.exists());
    }
}
