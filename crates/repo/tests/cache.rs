//! A storage with a cache before it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use snapkeep_repo::{
    Cached, Counted, FileName, KeyFile, MemoryStorage, Merge, Repository, Storage, SystemRandom,
    Unlock, broken_promises, verify,
};
use support::{backup, disk, init, key, name, open};
use tempfile::TempDir;

struct Lab {
    memory: Arc<MemoryStorage>,
    counted: Arc<Counted>,
    key: KeyFile,
    folder: TempDir,
}

impl Lab {
    /// With a repository that has an archive.
    fn new() -> Self {
        let memory = Arc::new(MemoryStorage::default());
        let lab = Self {
            counted: Arc::new(Counted::new(Arc::clone(&memory) as _)),
            memory,
            key: key(),
            folder: tempfile::tempdir().unwrap(),
        };
        let storage: Arc<dyn Storage> = Arc::clone(&lab.memory) as _;
        let repository = init(&storage, &lab.key).unwrap();
        let name = name("20261130T120000Z-0123456789abcdef");
        backup(&repository, &name, None, &disk(1, 8)).unwrap();
        lab
    }

    fn open(&self) -> Arc<Repository> {
        let cached = Cached::new(Arc::clone(&self.counted) as _, self.folder.path(), 64 << 20);
        let storage: Arc<dyn Storage> = Arc::new(cached);
        open(&storage, &self.key).unwrap()
    }

    /// Lists and reads all archives; how many files and ranges that read.
    fn list(&self) -> u64 {
        self.counted.take();
        let repository = self.open();
        let names = repository.snapshots().unwrap();
        assert!(!names.is_empty());
        for name in names {
            let snapshot = repository.snapshot(&name).unwrap();
            repository.check_whole(&snapshot.disks[0]).unwrap();
        }
        self.counted.take().reads
    }

    fn cached_files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.folder.path()).unwrap();
        (folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap()))
            .map(|file| file.unwrap().path())
            .collect()
    }
}

#[test]
fn a_cache_keeps_the_promises_of_a_storage() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryStorage::default());
    memory.set_time(1_700_000_000);
    memory.put(&"config".parse().unwrap(), b"any").unwrap();
    let cached = Cached::new(memory, folder.path(), 1 << 20);
    cached.read_whole(&"config".parse().unwrap(), 10).unwrap();
    let none: Vec<String> = Vec::new();
    assert_eq!(broken_promises(&cached), none);
}

#[test]
fn what_is_known_is_not_read_again() {
    let lab = Lab::new();
    let cold = lab.list();
    let warm = lab.list();
    // The configuration and the key slot are always read.
    assert!(warm < cold && warm <= 2, "{cold} {warm}");
}

#[test]
fn a_damaged_cache_is_read_around() {
    let lab = Lab::new();
    let cold = lab.list();
    for file in lab.cached_files() {
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(lab.list(), cold, "all of it is read anew");
    assert!(lab.list() < cold);
}

#[test]
fn a_file_that_was_removed_is_not_found_in_the_cache() {
    let lab = Lab::new();
    lab.list();
    let repository = lab.open();
    let name = repository.snapshots().unwrap().pop().unwrap();
    let mut files = Vec::new();
    let mut each = |name: &FileName, _| {
        files.push(name.clone());
        Ok(())
    };
    lab.memory
        .list(&"snapshots".parse().unwrap(), &mut each)
        .unwrap();
    for file in files {
        lab.memory.remove(&file).unwrap();
    }
    assert!(lab.open().snapshot(&name).is_err());
}

#[test]
fn another_repository_gets_nothing_of_this_ones_cache() {
    let (one, mut other) = (Lab::new(), Lab::new());
    one.list();
    let cold = other.list();
    other.folder = one.folder;
    assert_eq!(other.list(), cold);
}

#[test]
fn a_table_that_came_wrong_once_is_right_the_next_time() {
    let lab = Lab::new();
    let unlock = Unlock::KeyFile(lab.key.clone());
    let storage: Arc<dyn Storage> = Arc::clone(&lab.memory) as _;
    Repository::open_merged(storage, Arc::new(SystemRandom), &unlock, Merge::Always).unwrap();
    let mut tables = Vec::new();
    let mut each = |name: &FileName, _| {
        tables.extend(name.as_str().contains("/entries-").then(|| name.clone()));
        Ok(())
    };
    let folder = "tables".parse().unwrap();
    lab.memory.list(&folder, &mut each).unwrap();
    assert_eq!(tables.len(), 1, "{tables:?}");
    let flip = || {
        for table in &tables {
            let last = usize::try_from(lab.memory.length(table).unwrap()).unwrap() - 1;
            (0..=last).step_by(7).for_each(|at| {
                lab.memory.damage(table, |bytes| bytes[at] ^= 1);
            });
        }
    };
    let damage = || verify(&lab.open()).unwrap().damage;
    flip();
    assert!(!damage().is_empty(), "and the cache has what came");
    flip();
    let damage = damage();
    assert!(damage.is_empty(), "{damage:?}");
}

#[test]
fn what_was_wrong_when_it_was_kept_is_read_anew() {
    let lab = Lab::new();
    let mut names = Vec::new();
    for folder in ["index", "snapshots"] {
        let mut each = |name: &FileName, _| {
            names.push(name.clone());
            Ok(())
        };
        lab.memory
            .list(&folder.parse().unwrap(), &mut each)
            .unwrap();
    }
    assert!(names.len() >= 2);
    let flip = || {
        for name in &names {
            lab.memory.damage(name, |bytes| bytes[50] ^= 1);
        }
    };
    flip();
    let repository = lab.open();
    let name = repository.snapshots().unwrap().pop().unwrap();
    assert!(repository.snapshot(&name).is_err(), "it came changed");
    flip();
    lab.list();
    assert!(lab.list() <= 2, "and is kept as it is now");
}
