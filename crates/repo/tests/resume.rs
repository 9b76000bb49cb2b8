//! A backup that is cut off at any point resends nothing that had arrived: what the next one stores
//! is what had not, the packs that were open included.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use snapkeep_repo::{
    Counted, Error, ErrorKind, FileName, LocalStorage, MemoryStorage, Protect, Random, Repository,
    Result, Storage, SystemRandom, TreeReader, Unlock, verify,
};

use support::hooked::{Call, Hooked};
use support::tree::{Entry, directory, file, noise, read, store};
use support::{CHUNK, backup, name, restore};

/// What lies between two runs of the same backup: headers and tables of packs, and no chunk.
const SLACK: u64 = CHUNK as u64 / 2;

/// Dies after so many files were put.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn Storage>,
    left: AtomicU64,
}

impl Dying {
    fn alive(&self) -> Result<()> {
        match self.left.load(Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Io, "the storage is gone")),
            _ => Ok(()),
        }
    }
}

impl Storage for Dying {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.alive()?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.alive()?;
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.inner.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.alive()?;
        self.inner.remove(name)
    }
}

fn open(storage: Arc<dyn Storage>) -> Arc<Repository> {
    Arc::new(Repository::open(storage, Arc::new(SystemRandom), &Unlock::Open).unwrap())
}

/// Bytes of all packs.
fn packs(storage: &dyn Storage) -> u64 {
    let mut bytes = 0;
    let mut add = |_: &FileName, length| {
        bytes += length;
        Ok(())
    };
    storage.list(&"packs".parse().unwrap(), &mut add).unwrap();
    bytes
}

/// Cuts a backup off after each file that it puts, and does it again.
fn cut_off(back_up: &dyn Fn(&Arc<Repository>) -> Result<()>, check: &dyn Fn(&Arc<Repository>)) {
    let made = MemoryStorage::new();
    let made = Arc::new(made);
    let random = Arc::new(SystemRandom);
    Repository::init(Arc::clone(&made) as _, random, &Protect::Open, CHUNK).unwrap();
    let whole = Arc::new(made.fork());
    let counted = Arc::new(Counted::new(Arc::clone(&whole) as _));
    let repository = open(Arc::clone(&counted) as _);
    counted.take();
    back_up(&repository).unwrap();
    let (puts, whole) = (counted.take().puts, packs(&*whole));
    assert!(puts >= 6, "{puts} files are too few to cut between");
    for put in 0..puts {
        let storage = Arc::new(made.fork());
        let dying = Arc::new(Dying {
            inner: Arc::clone(&storage) as _,
            left: AtomicU64::new(put),
        });
        back_up(&open(dying)).expect_err("it was cut off");
        let arrived = packs(&*storage);
        let counted = Arc::new(Counted::new(Arc::clone(&storage) as _));
        let repository = open(Arc::clone(&counted) as _);
        counted.take();
        back_up(&repository).unwrap();
        let tally = counted.take();
        let told = format!("after {put} of {puts} files: {arrived} of {whole}, then {tally:?}");
        // Each chunk is there once: none was sent twice, and none is missing.
        assert!(packs(&*storage).abs_diff(whole) < SLACK, "{told}");
        let sent = tally.data_bytes + tally.metadata_bytes;
        assert!(sent < whole.saturating_sub(arrived) + SLACK, "{told}");
        check(&repository);
        let found = verify(&repository).unwrap().damage;
        assert!(found.is_empty(), "{told}: {found:?}");
    }
}

/// A disk of random bytes, of several packs.
fn large_disk() -> Vec<u8> {
    noise(3, 40 << 20)
}

#[test]
fn the_backup_of_a_disk_that_was_cut_off_resends_nothing_that_had_arrived() {
    let bytes = large_disk();
    cut_off(
        &|repository| backup(repository, &name("1"), None, &bytes).map(drop),
        &|repository| assert!(restore(repository, &name("1")).unwrap() == bytes),
    );
}

fn large_tree() -> Entry {
    let small = (0..200u16).map(|number| {
        let content = noise(u64::from(number) + 100, 30_000);
        (format!("small{number:03}").into_bytes(), file(&content))
    });
    directory([
        (b"a".to_vec(), file(&noise(1, 20 << 20))),
        (b"b".to_vec(), directory(small)),
        (b"c".to_vec(), file(&noise(2, 20 << 20))),
    ])
}

#[test]
fn the_backup_of_a_tree_that_was_cut_off_resends_nothing_that_had_arrived() {
    let tree = large_tree();
    cut_off(
        &|repository| store(repository, "1", &tree).map(drop),
        &|repository| {
            let record = repository.snapshot(&name("1")).unwrap().tree.unwrap();
            let reader = TreeReader::open(Arc::clone(repository), &record).unwrap();
            assert!(read(&reader).unwrap() == tree);
        },
    );
}

/// Set for the process that is to be killed: after how many files, and the folder.
const FILES: &str = "SNAPKEEP_TEST_KILLED_AFTER";
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";

#[test]
fn the_backup_of_a_killed_process_is_gone_on_with_by_the_next() {
    const TEST: &str = "the_backup_of_a_killed_process_is_gone_on_with_by_the_next";
    let bytes = large_disk();
    if let (Ok(files), Ok(folder)) = (std::env::var(FILES), std::env::var(FOLDER)) {
        // It kills itself instead of writing one more.
        let left = AtomicU64::new(files.parse().unwrap());
        let files = Hooked::new(move |call, _| {
            if call == Call::Write && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                kill_process(getpid(), Signal::KILL)?;
            }
            Ok(())
        });
        let storage = LocalStorage::open_on(Arc::new(files), Path::new(&folder)).unwrap();
        backup(&open(Arc::new(storage)), &name("1"), None, &bytes).unwrap();
        return;
    }
    // One killed process after the other, each of which stores one pack.
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(folder.path()).unwrap());
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    Repository::init(Arc::clone(&storage), random, &Protect::Open, CHUNK).unwrap();
    let mut before = 0;
    for turn in 0..2 {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(FILES, "1")
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        let arrived = packs(&*storage);
        assert!(arrived > before + (15 << 20), "turn {turn}: {arrived}");
        before = arrived;
    }
    let counted = Arc::new(Counted::new(Arc::clone(&storage)));
    let repository = open(Arc::clone(&counted) as _);
    counted.take();
    backup(&repository, &name("1"), None, &bytes).unwrap();
    let sent = counted.take().data_bytes;
    let missing = bytes.len() as u64 - before;
    assert!(sent.abs_diff(missing) < 4 * SLACK, "{sent} of {missing}");
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
    assert!(verify(&repository).unwrap().damage.is_empty());
}
