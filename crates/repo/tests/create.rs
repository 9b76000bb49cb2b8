//! The folder of a new repository is durable before anything in it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{Entry, Files, LocalStorage, SystemFiles};

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
