//! Files in a folder of this machine: each written under a temporary name, synced, given its
//! name, and its folder synced, before the next step may rely on it.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::files::{Entry, Files, SystemFiles};
use super::{FileName, Storage, already_there};
use crate::{Error, ErrorKind, Result, limits};

/// Temporary names begin with this; a name of a repository never begins with a dot, so no listing
/// shows them.
pub(super) const TEMPORARY: &str = ".put-";
/// Ends the name of a temporary file that is there to see whether archives can have their names.
pub(super) const LIKE_AN_ARCHIVE: &str = "-2001-01-01T00:00:00Z-0000000000000000";

/// A storage in a folder.
#[derive(Debug)]
pub struct LocalStorage {
    root: PathBuf,
    files: Arc<dyn Files>,
    /// The folder that was opened: its path may lead elsewhere once it is unmounted.
    identity: (u64, u64),
    /// Folders that this process has synced into their parents: those it puts files into.
    durable: Mutex<HashSet<PathBuf>>,
    /// Tells temporary names of this process apart.
    next: AtomicU64,
}

impl LocalStorage {
    /// A storage in this folder, which must exist.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_on(Arc::new(SystemFiles), root)
    }

    /// The same on other files than this machine's.
    pub fn open_on(files: Arc<dyn Files>, root: &Path) -> Result<Self> {
        let failed = |e: io::Error| {
            if e.kind() == io::ErrorKind::NotADirectory {
                let what = format!("{} is not a folder", root.display());
                return Error::new(ErrorKind::Invalid, what);
            }
            Error::io(format!("cannot open the folder {}", root.display()), e)
        };
        files.names(root).map_err(failed)?;
        Ok(Self {
            root: root.to_owned(),
            identity: files.identity(root).map_err(failed)?,
            files,
            durable: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Makes the folder if it is not there, readable by its owner alone, and opens it.
    pub fn create(root: &Path) -> Result<Self> {
        Self::create_on(Arc::new(SystemFiles), root)
    }

    /// The same on other files than this machine's.
    pub fn create_on(files: Arc<dyn Files>, root: &Path) -> Result<Self> {
        let failed =
            |folder: &Path, e| Error::io(format!("cannot make the folder {}", folder.display()), e);
        let parent = |folder: &Path| {
            let parent = folder.parent()?;
            let here = parent.as_os_str().is_empty();
            Some(if here { Path::new(".") } else { parent }.to_owned())
        };
        let missing: Vec<&Path> = (root.ancestors())
            .take_while(|folder| !folder.as_os_str().is_empty() && files.entry(folder).is_err())
            .collect();
        for folder in missing.iter().rev() {
            match files.make_folder(folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                Ok(()) | Err(_) => parent(folder).map_or(Ok(()), |p| files.sync_folder(&p)),
            }
            .map_err(|e| failed(folder, e))?;
        }
        // One that is there may be what an `init` left that died before it had synced it.
        if missing.is_empty()
            && let Some(parent) = parent(root)
        {
            match files.sync_folder(&parent) {
                // Whoever may not even open the parent has not made a folder in it.
                Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(failed(root, e)),
                Ok(()) | Err(_) => Ok(()),
            }?;
        }
        let storage = Self::open_on(files, root)?;
        storage.check_names()?;
        Ok(storage)
    }

    /// Names of archives have colons, which not every file system takes: where none does, a backup
    /// would fail at its very end. Some make another file of such a name, and list none.
    fn check_names(&self) -> Result<()> {
        let root = self.root.display();
        let written = |e| Error::io(format!("cannot write into the folder {root}"), e);
        let useless = |why: io::Error| {
            let what = format!(
                "the file system of {root} does not keep file names with a colon, which archives \
                 have (as those of FAT, exFAT and some network shares): put the repository on \
                 another, such as ext4 or XFS, or mount the share so that it keeps them (CIFS: \
                 `mapposix`)"
            );
            Error::with_source(ErrorKind::Invalid, what, why)
        };
        let probe = match self.write_temporary(&self.root, LIKE_AN_ARCHIVE, &[]) {
            Ok(probe) => probe,
            Err(why) => {
                // Where no other name is taken either, the colon is not the reason.
                let plain = self.write_temporary(&self.root, "", &[]).map_err(written)?;
                drop(self.files.remove(&plain));
                return Err(useless(why));
            }
        };
        let listed = self.files.names(&self.root);
        match self.files.remove(&probe) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(written(e)),
            Ok(()) | Err(_) => Ok(()),
        }?;
        let name = probe.file_name().and_then(|name| name.to_str());
        if listed.map_err(written)?.iter().any(|n| Some(&**n) == name) {
            return Ok(());
        }
        Err(useless(io::Error::other("it lists another name")))
    }

    fn path(&self, name: &FileName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn folder<'a>(&'a self, path: &'a Path) -> &'a Path {
        path.parent().unwrap_or(&self.root)
    }

    /// Makes the folders above a file. Each is synced into its parent once by this process, also
    /// one that is there: who made it may not have done so yet.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let known = |set: &Mutex<HashSet<PathBuf>>| {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            set.contains(folder)
        };
        if folder == self.root || !folder.starts_with(&self.root) || known(&self.durable) {
            return Ok(());
        }
        let parent = self.folder(folder);
        self.make_folder(parent)?;
        match self.files.make_folder(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            Ok(()) | Err(_) => self.files.sync_folder(parent)?,
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(folder.to_owned());
        Ok(())
    }

    /// Writes under a name that nobody has: another machine's process may have our number.
    fn write_temporary(&self, folder: &Path, end: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        for _ in 0..limits::TEMPORARY_NAMES_MAX {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let process = std::process::id();
            let path = folder.join(format!("{TEMPORARY}{process}-{number}{end}"));
            match self.files.write_new(&path, bytes) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    // What could not be written is useless; this failure is the one to tell.
                    drop(self.files.remove(&path));
                    return Err(e);
                }
            }
        }
        let what = "too many temporary files were left behind; remove them while no backup runs";
        Err(io::Error::other(what))
    }

    fn check_mounted(&self) -> io::Result<()> {
        if self.files.identity(&self.root)? != self.identity {
            let what = "the repository's folder is not the one that was opened: was it unmounted?";
            return Err(io::Error::other(what));
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8], new: bool) -> io::Result<()> {
        self.check_mounted()?;
        let folder = self.folder(path);
        self.make_folder(folder)?;
        let temporary = self.write_temporary(folder, "", bytes)?;
        let renamed = if new {
            self.files.rename_new(&temporary, path)
        } else {
            self.files.rename(&temporary, path)
        };
        if let Err(error) = renamed {
            drop(self.files.remove(&temporary));
            return Err(error);
        }
        self.files.sync_folder(folder)?;
        // What was unmounted meanwhile has not got it.
        self.check_mounted()
    }

    /// All files below a folder, at most so many, in no order.
    fn files_below(&self, prefix: &FileName, most: usize) -> Result<Vec<(FileName, u64)>> {
        let mut folders = vec![prefix.as_str().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            let path = self.root.join(&folder);
            let failed = |e| Error::io(format!("cannot list {}", path.display()), e);
            let names = match self.files.names(&path) {
                Ok(names) => names,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            for part in names {
                let Ok(name) = format!("{folder}/{part}").parse::<FileName>() else {
                    continue;
                };
                match self.files.entry(&path.join(part)) {
                    Ok(Entry::Folder) => folders.push(name.as_str().to_owned()),
                    Ok(Entry::File(length)) => files.push((name, length)),
                    Ok(Entry::Other) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed(e)),
                }
                if files.len() + folders.len() > most {
                    let path = self.path(prefix);
                    let what = format!("{} has more files than the {most} allowed", path.display());
                    return Err(Error::corrupt(what));
                }
            }
        }
        Ok(files)
    }
}

impl Storage for LocalStorage {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        self.write(&path, bytes, false)
            .map_err(|e| Error::io(format!("cannot write {}", path.display()), e))
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        self.write(&path, bytes, true).map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                return already_there(name);
            }
            Error::io(format!("cannot write {}", path.display()), e)
        })
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        let path = self.path(name);
        (|| {
            let folder = self.folder(&path);
            self.make_folder(folder)?;
            self.files.sync_file(&path)?;
            self.files.sync_folder(folder)
        })()
        .map_err(|e| Error::io(format!("cannot sync {}", path.display()), e))
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.path(name);
        let length = usize::try_from(range.end.saturating_sub(range.start))
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "the range is too long", e))?;
        self.files.read(&path, range.start, length).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                let what = format!("{} ends before byte {}", path.display(), range.end);
                return Error::corrupt(what);
            }
            Error::io(format!("cannot read {}", path.display()), e)
        })
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        let path = self.path(name);
        match self.files.entry(&path) {
            Ok(Entry::File(length)) => Ok(length),
            Ok(Entry::Folder | Entry::Other) => {
                let what = format!("{} is not a file", path.display());
                Err(Error::new(ErrorKind::Invalid, what))
            }
            Err(e) => Err(Error::io(format!("cannot find {}", path.display()), e)),
        }
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        let path = self.path(name);
        (self.files.modified(&path))
            .map_err(|e| Error::io(format!("cannot find {}", path.display()), e))
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        let mut files = self.files_below(prefix, limits::FILES_MAX)?;
        files.sort();
        files
            .iter()
            .try_for_each(|(name, length)| each(name, *length))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        let path = self.path(name);
        match self.files.remove(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io(format!("cannot remove {}", path.display()), e)),
        }
        let folder = self.folder(&path);
        (self.files.sync_folder(folder))
            .map_err(|e| Error::io(format!("cannot sync {}", folder.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_was_written_when_its_file_system_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = LocalStorage::open(folder.path()).expect("a storage");
        let name: FileName = "keys/1".parse().expect("a name");
        let missing = storage.modified(&name).expect_err("none");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        storage.put(&name, b"").expect("room");
        let file = std::fs::File::open(folder.path().join("keys/1")).expect("there");
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_234_567_890_987);
        file.set_modified(then).expect("mine");
        assert_eq!(storage.modified(&name).expect("there"), 1_234_567_890);
    }

    #[test]
    fn a_folder_with_too_many_files_is_named_and_not_listed() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = LocalStorage::open(folder.path()).expect("a storage");
        for name in ["packs/a/1", "packs/a/2", "packs/b/3", "keys/4"] {
            let name = name.parse().expect("a name");
            storage.put(&name, b"").expect("room");
        }
        let packs = "packs".parse().expect("a name");
        assert_eq!(storage.files_below(&packs, 3).expect("few").len(), 3);
        let error = storage.files_below(&packs, 2).expect_err("too many");
        assert!(
            error.to_string().contains("packs has more files"),
            "{error}"
        );
    }
}
