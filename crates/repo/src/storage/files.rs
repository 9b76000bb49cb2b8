//! The calls that a local storage makes of the operating system, so that a test can fail any of
//! them, or cut the power between any two.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::limits;

use snapkeep_direct::BulkFile;

/// What a folder holds of one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A file of this length in bytes.
    File(u64),
    /// Neither.
    Other,
}

/// Files and folders of one machine.
pub trait Files: Send + Sync + fmt::Debug {
    /// Tells one folder from another that has the same path at another time.
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)>;
    /// Makes a folder that only its owner reads; `AlreadyExists` if something has the name.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the entries of a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes a file with these bytes and syncs it, but not its name; `AlreadyExists` if something
    /// has the name.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name in its folder, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// The same if nothing has that name; `AlreadyExists` if something has.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.entry(to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(e) => Err(e),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Reads so many bytes; `UnexpectedEof` if the file is shorter.
    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// What has this path; a symbolic link is not followed.
    fn entry(&self, path: &Path) -> io::Result<Entry>;
    /// When a file was last written to, in seconds since 1970; a symbolic link is not followed.
    fn modified(&self, path: &Path) -> io::Result<i64>;
    /// The names in a folder, in no order; without those that are no text. Of more than
    /// [`FILES_MAX`](crate::limits::FILES_MAX) one more is told.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
}

/// This machine's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)> {
        let found = fs::metadata(folder)?;
        Ok((found.dev(), found.ino()))
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let file = BulkFile::new(file);
        file.write_all_at(bytes, 0)?;
        file.file().sync_all()
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the storage that others go through"
    )]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match fs::hard_link(from, to) {
            // It has both names; without the old one it is left as it should be.
            Ok(()) => self.remove(from),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
            // Not every file system has hard links. What else is wrong is told by this.
            Err(_) => match self.entry(to) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.rename(from, to),
                Err(e) => Err(e),
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            },
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let found = fs::symlink_metadata(path)?;
        Ok(if found.is_dir() {
            Entry::Folder
        } else if found.is_file() {
            Entry::File(found.len())
        } else {
            Entry::Other
        })
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        Ok(fs::symlink_metadata(path)?.mtime())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let most = limits::FILES_MAX + 1;
        (fs::read_dir(folder)?.take(most))
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }
}
