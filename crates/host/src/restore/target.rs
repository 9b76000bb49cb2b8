//! Where a restored disk goes: a new file, which gets its name when it is whole, or a block device.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use snapkeep_api::{Error, ErrorKind, Result};

use super::device::Device;
use super::lock::refuse_in_use;

/// What is at the path that the user named.
pub(super) enum Target {
    File(NewFile),
    Device(Device),
}

impl Target {
    /// Looks at the path. Nothing that is there is touched without `overwrite`.
    pub(super) fn open(path: &Path, overwrite: bool) -> Result<Self> {
        let refuse = |why: &str| {
            let what = format!("cannot restore to {}: {why}", path.display());
            Err(Error::new(ErrorKind::Invalid, what))
        };
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
                return refuse("it is a symbolic link to nothing");
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return NewFile::claim(path, None).map(Self::File);
            }
            Err(e) => return Err(failed("cannot look at", path, e)),
        };
        let kind = found.file_type();
        if kind.is_dir() {
            return refuse("it is a folder; name a file in it");
        }
        if !kind.is_file() && !kind.is_block_device() {
            return refuse("it is neither a file nor a block device");
        }
        if kind.is_block_device() {
            if !overwrite {
                return refuse("it is a block device; overwriting what it holds must be asked for");
            }
            return Device::open(path).map(Self::Device);
        }
        if !overwrite {
            return refuse("it exists; overwriting it must be asked for");
        }
        // A link keeps pointing to the file, which is what is replaced.
        let path = fs::canonicalize(path).map_err(|e| failed("cannot look at", path, e))?;
        let file = File::open(&path).map_err(|e| failed("cannot look into", &path, e))?;
        refuse_in_use(&file, &path)?;
        NewFile::claim(&path, Some(Rights::of(&found))).map(Self::File)
    }
}

/// A file in the making. Dropped before it is finished, it leaves nothing.
pub(super) struct NewFile {
    target: PathBuf,
    /// Holds the file until it is whole: only one restore at a time can make it.
    folder: PathBuf,
    file: PathBuf,
    replaces: Option<Rights>,
}

/// Who may do what with a file that is replaced.
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Rights {
    fn of(found: &Metadata) -> Self {
        Self {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777,
        }
    }
}

impl NewFile {
    fn claim(target: &Path, replaces: Option<Rights>) -> Result<Self> {
        let Some(name) = target.file_name() else {
            let what = format!("{} does not name a file", target.display());
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".snapkeep-partial");
        let folder = target.with_file_name(hidden);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let what = format!(
                    "cannot restore to {}: another restore to it is running, or was killed; if none is running, remove {}",
                    target.display(),
                    folder.display()
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            Err(e) => return Err(failed("cannot make a file at", target, e)),
        }
        let file = folder.join(name);
        let target = target.to_owned();
        Ok(Self {
            target,
            folder,
            file,
            replaces,
        })
    }

    /// Where the content goes until the file is finished.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// Makes the content durable, then gives it its name. A new file is its owner's alone; one
    /// that replaces another gets that one's owner and mode.
    pub(super) fn finish(self) -> Result<()> {
        let written = (|| {
            let file = File::options().write(true).open(&self.file)?;
            let mut mode = 0o600;
            if let Some(old) = &self.replaces {
                let new = file.metadata()?;
                if (new.uid(), new.gid()) != (old.uid, old.gid) {
                    fchown(&file, Some(old.uid), Some(old.gid))?;
                }
                mode = old.mode;
            }
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        })();
        written.map_err(|e| failed("cannot finish", &self.target, e))?;
        if self.replaces.is_some() {
            // Somebody may have started the guest meanwhile.
            match File::open(&self.target) {
                Ok(old) => refuse_in_use(&old, &self.target)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("cannot look into", &self.target, e)),
            }
        }
        self.name_it().map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                let what = format!("{} appeared while it was restored", self.target.display());
                return Error::new(ErrorKind::Target, what);
            }
            failed("cannot give its name to", &self.target, e)
        })?;
        let parent = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        (File::open(parent).and_then(|folder| folder.sync_all()))
            .map_err(|e| failed("cannot sync the folder of", &self.target, e))
    }

    fn name_it(&self) -> io::Result<()> {
        let (from, to) = (&self.file, &self.target);
        if self.replaces.is_some() {
            return Ok(renameat_with(CWD, from, CWD, to, RenameFlags::empty())?);
        }
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A file system that cannot: a hard link replaces nothing either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(from, to),
            done => Ok(done?),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // If this fails, the next restore to the same place names the folder.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// An error of the place that is restored to.
pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    Error::with_source(ErrorKind::Target, what, error)
}
