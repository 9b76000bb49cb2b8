//! Files in a folder of this machine: each written under a temporary name, synced, given its
//! name, and its folder synced, before the next step may rely on it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FileName, Storage};
use crate::{Error, ErrorKind, Result};

/// Temporary names begin with this; a name of a repository never begins with a dot, so no listing
/// shows them.
const TEMPORARY: &str = ".put-";

/// A storage in a folder.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
    /// Tells temporary names of this process apart.
    next: AtomicU64,
}

impl LocalStorage {
    /// A storage in this folder, which must exist.
    pub fn open(root: &Path) -> Result<Self> {
        let found = fs::metadata(root)
            .map_err(|e| Error::io(format!("cannot open the folder {}", root.display()), e))?;
        if !found.is_dir() {
            let what = format!("{} is not a folder", root.display());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self {
            root: root.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    /// Makes the folder if it is not there, readable by its owner alone, and opens it.
    pub fn create(root: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| Error::io(format!("cannot make the folder {}", root.display()), e))?;
        Self::open(root)
    }

    fn path(&self, name: &FileName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Makes the folders above a file, each synced into its parent.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() || !folder.starts_with(&self.root) || folder == self.root {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(parent)?;
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => sync_folder(parent)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the storage that others go through"
    )]
    fn write(&self, path: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make_folder(folder)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let written = (|| {
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if let Err(error) = written {
            // What could not be written is useless; the first failure is the one to tell.
            drop(fs::remove_file(&temporary));
            return Err(error);
        }
        sync_folder(folder)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Storage for LocalStorage {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root);
        self.write(&path, folder, bytes)
            .map_err(|e| Error::io(format!("cannot write {}", path.display()), e))
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.path(name);
        let failed = |e: io::Error| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                let what = format!("{} ends before byte {}", path.display(), range.end);
                return Error::corrupt(what);
            }
            Error::io(format!("cannot read {}", path.display()), e)
        };
        let length = usize::try_from(range.end.saturating_sub(range.start))
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "the range is too long", e))?;
        let file = File::open(&path).map_err(failed)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(failed)?;
        Ok(bytes)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        let path = self.path(name);
        match fs::metadata(&path) {
            Ok(found) => Ok(found.len()),
            Err(e) => Err(Error::io(format!("cannot find {}", path.display()), e)),
        }
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        let mut folders = vec![prefix.as_str().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            let path = self.root.join(&folder);
            let failed = |e| Error::io(format!("cannot list {}", path.display()), e);
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(part) = entry.file_name().into_string() else {
                    continue;
                };
                let Ok(name) = format!("{folder}/{part}").parse::<FileName>() else {
                    continue;
                };
                let found = match entry.metadata() {
                    Ok(found) => found,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(failed(e)),
                };
                if found.is_dir() {
                    folders.push(name.as_str().to_owned());
                } else if found.is_file() {
                    files.push((name, found.len()));
                }
            }
        }
        files.sort();
        files
            .iter()
            .try_for_each(|(name, length)| each(name, *length))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io(format!("cannot remove {}", path.display()), e)),
        }
        let folder = path.parent().unwrap_or(&self.root);
        sync_folder(folder).map_err(|e| Error::io(format!("cannot sync {}", folder.display()), e))
    }
}
