//! A machine's files, with something that happens before chosen calls.

use std::fmt;
use std::io;
use std::path::Path;

use snapkeep_repo::{Entry, Files, SystemFiles};

/// A call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Call {
    Identity,
    MakeFolder,
    SyncFolder,
    Write,
    SyncFile,
    Rename,
    Remove,
    Read,
    Entry,
    Modified,
    Names,
}

type Hook = dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync;

/// Asks before each call what becomes of it.
pub(crate) struct Hooked(Box<Hook>);

impl Hooked {
    pub(crate) fn new(
        hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(hook))
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Files for Hooked {
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)> {
        (self.0)(Call::Identity, folder)?;
        SystemFiles.identity(folder)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        (self.0)(Call::MakeFolder, folder)?;
        SystemFiles.make_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        (self.0)(Call::SyncFolder, folder)?;
        SystemFiles.sync_folder(folder)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        (self.0)(Call::Write, path)?;
        SystemFiles.write_new(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        (self.0)(Call::SyncFile, path)?;
        SystemFiles.sync_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Call::Rename, to)?;
        SystemFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.0)(Call::Remove, path)?;
        SystemFiles.remove(path)
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        (self.0)(Call::Read, path)?;
        SystemFiles.read(path, offset, length)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        (self.0)(Call::Entry, path)?;
        SystemFiles.entry(path)
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        (self.0)(Call::Modified, path)?;
        SystemFiles.modified(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        (self.0)(Call::Names, folder)?;
        SystemFiles.names(folder)
    }
}
