//! A new repository: its folder is durable before anything in it is, and of two that are made at once
//! there is one.

mod support;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{
    Entry, ErrorKind, FileName, Files, LocalStorage, MemoryStorage, Result, Storage, SystemFiles,
    already_there,
};

use support::between::{Between, Moment};
use support::{init, key, open};

/// Notes which folders are synced.
#[derive(Debug, Default)]
struct Noting(Mutex<Vec<PathBuf>>);

impl Files for Noting {
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)> {
        SystemFiles.identity(folder)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        SystemFiles.make_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut synced = self.0.lock().expect("no thread panicked");
        synced.push(folder.to_owned());
        SystemFiles.sync_folder(folder)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        SystemFiles.write_new(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        SystemFiles.sync_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemFiles.remove(path)
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        SystemFiles.read(path, offset, length)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        SystemFiles.entry(path)
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        SystemFiles.modified(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        SystemFiles.names(folder)
    }
}

#[test]
fn the_parent_is_synced_also_if_the_folder_is_there_already() {
    let folder = tempfile::tempdir().expect("a folder");
    let (middle, root) = (folder.path().join("a"), folder.path().join("a/b"));
    let create = || {
        let files = Arc::new(Noting::default());
        LocalStorage::create_on(Arc::clone(&files) as _, &root).expect("a storage");
        files.0.lock().expect("no thread panicked").clone()
    };
    assert_eq!(create(), [folder.path(), middle.as_path()]);
    assert_eq!(create(), [middle.as_path()]);
}

fn keys_of(storage: &dyn Storage) -> usize {
    let mut keys = 0;
    let listed = storage.list(&"keys".parse().expect("a name"), &mut |_, _| {
        keys += 1;
        Ok(())
    });
    listed.expect("there");
    keys
}

/// Another one is made at a moment of the first one's making.
fn made_between(storage: &Arc<dyn Storage>, moment: Moment, operation: &str, file: &str) {
    let (own, other) = (key(), key());
    let between = Between::new(Arc::clone(storage), |_| {});
    let mut place = Some((Arc::clone(storage), other.clone()));
    let (operation, file) = (operation.to_owned(), file.to_owned());
    between.hook(move |(when, what, name)| {
        if (when, what) == (moment, &*operation)
            && name.starts_with(&file)
            && let Some((storage, other)) = place.take()
        {
            init(&storage, &other).expect("nothing is there yet");
        }
    });
    let between: Arc<dyn Storage> = Arc::new(between);
    let refused = init(&between, &own).expect_err("another was faster");
    assert_eq!(refused.kind(), ErrorKind::Exists, "{refused}");
    assert!(
        refused.to_string().contains("at the same time"),
        "{refused}"
    );
    open(storage, &other).expect("the other one is whole");
    assert_eq!(keys_of(&**storage), 1);
}

#[test]
fn of_two_that_are_made_at_once_one_is_refused() {
    for moment in [Moment::Before, Moment::After] {
        let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        made_between(&memory, moment, "put", "keys/");
        let folder = tempfile::tempdir().expect("a folder");
        let local = LocalStorage::create(&folder.path().join("r")).expect("a storage");
        made_between(&(Arc::new(local) as _), moment, "put", "keys/");
    }
    // One that replaces what another has put all the same is found when that is read.
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let first = Arc::clone(&memory);
    let between = Between::new(Arc::clone(&memory), move |(when, what, name)| {
        if (when, what, name) == (Moment::After, "put", "config") {
            first
                .put(&"config".parse().expect("a name"), b"another's")
                .expect("room");
        }
    });
    let refused = init(&(Arc::new(between) as _), &key()).expect_err("it is not its own");
    assert_eq!(refused.kind(), ErrorKind::Exists, "{refused}");
}

#[test]
fn a_file_that_is_new_is_never_put_over_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let local = LocalStorage::create(&folder.path().join("r")).expect("a storage");
    let threads = 8u8;
    let name: FileName = "config".parse().expect("a name");
    let put: Vec<bool> = std::thread::scope(|scope| {
        let putting = |number: u8| {
            let (local, name) = (&local, &name);
            scope.spawn(move || local.put_new(name, &[number]).is_ok())
        };
        let handles: Vec<_> = (0..threads).map(putting).collect();
        handles
            .into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect()
    });
    assert_eq!(put.iter().filter(|put| **put).count(), 1, "{put:?}");
    let winner = put.iter().position(|put| *put).expect("one");
    let there = local.read_whole(&name, 10).expect("there");
    assert_eq!(usize::from(there[0]), winner);
    let entries = std::fs::read_dir(folder.path().join("r")).expect("there");
    assert_eq!(entries.count(), 1, "nothing temporary is left");
}

/// A storage that puts what is new, and then tells that somebody has.
#[derive(Debug)]
struct Forgetful {
    inner: MemoryStorage,
    settled: AtomicBool,
}

impl Storage for Forgetful {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put_new(name, bytes)?;
        Err(already_there(name))
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        if name.as_str() == "config" {
            self.settled.store(true, Ordering::SeqCst);
        }
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
        self.inner.remove(name)
    }
}

#[test]
fn a_config_of_its_own_that_it_finds_is_made_durable_before_it_is_believed() {
    let storage = Arc::new(Forgetful {
        inner: MemoryStorage::new(),
        settled: AtomicBool::new(false),
    });
    init(&(Arc::clone(&storage) as _), &key()).expect("the config is its own");
    assert!(storage.settled.load(Ordering::SeqCst));
}
