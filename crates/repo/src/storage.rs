//! Where a repository's files live: the only door to disks.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, ErrorKind, Result};

mod cached;
mod counted;
mod faulty;
mod files;
mod left;
mod local;
mod memory;
mod promises;
mod shelf;

pub use cached::Cached;
pub use counted::{Counted, Tally};
pub use faulty::{FaultPoint, Faulty};
pub use files::{Entry, Files, SystemFiles};
pub use left::{LeftFile, left_files, remove_left_file};
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use promises::broken_promises;

/// A place for files that are written once. All methods may be called from several threads.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Writes `name` with these bytes, durably, or leaves nothing a reader could see. A name's
    /// content never differs, so writing the same again is harmless.
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()>;
    /// The same of much, which need not be copied to be sent. Afterwards the buffer is as it was, or
    /// empty if something still uses what was in it.
    fn put_buffer(&self, name: &FileName, bytes: &mut Vec<u8>) -> Result<()> {
        self.put(name, bytes)
    }
    /// The same as [`put`](Self::put) of a name that nobody has yet: `Exists` if somebody has it, which
    /// may be this one, whose own success was not told. Of two that do so at once one may replace what
    /// the other put, unless the storage can do better: whoever must know reads what is there then.
    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        match self.length(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => self.put(name, bytes),
            Err(e) => Err(e),
            Ok(_) => Err(already_there(name)),
        }
    }
    /// Makes a file durable that is there but that another process may not have finished putting:
    /// until then nothing that is to last may rely on it. `NotFound` if there is none.
    fn settle(&self, name: &FileName) -> Result<()>;
    /// Reads a range; an error of kind `Corrupt` if the file is shorter.
    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>>;
    /// Reads a whole file that is at most `max` bytes long; an error of kind `Corrupt` if it is
    /// longer.
    fn read_whole(&self, name: &FileName, max: u64) -> Result<Vec<u8>> {
        let length = self.length(name)?;
        if length > max {
            return Err(too_long(name, length, max));
        }
        self.read(name, 0..length)
    }
    /// Whether each request is a journey, as to a bucket, which costs as much as reading a megabyte:
    /// then what does not depend on each other is asked for at once, and what lies between two things
    /// that are wanted is read with them.
    fn is_far(&self) -> bool {
        false
    }
    /// What was read of a file is not what was written: whoever kept something of it reads it anew.
    fn doubt(&self, _name: &FileName) {}
    /// The file's length in bytes; `NotFound` if there is none.
    fn length(&self, name: &FileName) -> Result<u64>;
    /// When the file was written, in seconds since 1970, by the clock of the storage: that of the
    /// machine it lies on, which need not be right nor go as anybody else's does. `NotFound` if
    /// there is none.
    fn modified(&self, name: &FileName) -> Result<i64>;
    /// Calls `each` once for each file whose name begins with `prefix` and a `/`, in name order,
    /// with its length. A prefix with no files is not an error.
    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()>;
    /// The same, and when each file was written, as [`modified`](Self::modified) says: a list may
    /// have that already. What was removed meanwhile is left out.
    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.list(prefix, &mut |name, length| match self.modified(name) {
            Ok(time) => each(name, length, time),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        })
    }
    /// Removes a file; it is not an error if there is none.
    fn remove(&self, name: &FileName) -> Result<()>;
    /// The same, but nothing is asked of the storage to that end once so much time has passed, by
    /// whichever clock says more. What kept it from being removed, if there was no more time to try it
    /// again; what is under way then may remove it all the same.
    fn remove_within(&self, name: &FileName, _most: Duration) -> Result<Option<Error>> {
        self.remove(name).map(|()| None)
    }
}

/// A relative, `/`-separated name: parts of letters, digits and `.+=_-:`, none of them empty,
/// beginning with a dot, or longer than 128 bytes; 512 bytes in all.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileName(String);

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part_is_fine = |part: &str| {
            !part.is_empty()
                && part.len() <= 128
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".+=_-:".contains(&b))
        };
        if text.len() <= 512 && text.split('/').all(part_is_fine) {
            Ok(Self(text.to_owned()))
        } else {
            let what = format!("{text:?} cannot name a file of a repository");
            Err(Error::new(ErrorKind::Invalid, what))
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error about a name that somebody has.
pub fn already_there(name: &FileName) -> Error {
    Error::new(ErrorKind::Exists, format!("{name} is there already"))
}

/// Reads a whole file that is at most `max` bytes long.
pub(crate) fn read_all(storage: &dyn Storage, name: &FileName, max: u64) -> Result<Vec<u8>> {
    storage.read_whole(name, max)
}

/// Reads something of a file. What is damaged is read once more, around whatever was kept of it, for
/// it may have been changed on its way: only what comes so twice is damage.
pub(crate) fn doubting<T>(
    storage: &dyn Storage,
    name: &FileName,
    read: impl Fn() -> Result<T>,
) -> Result<T> {
    match read() {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            storage.doubt(name);
            read()
        }
        read => read,
    }
}

/// Reads a whole file and opens it, twice if it must be.
pub(crate) fn read_and_open<T>(
    storage: &dyn Storage,
    name: &FileName,
    max: u64,
    open: impl Fn(&[u8]) -> Result<T>,
) -> Result<T> {
    doubting(storage, name, || open(&storage.read_whole(name, max)?))
}

/// The error about a file that is longer than one of its kind may be.
pub fn too_long(name: &FileName, length: u64, max: u64) -> Error {
    Error::corrupt(format!(
        "{name} has {length} bytes, more than the {max} allowed"
    ))
}
