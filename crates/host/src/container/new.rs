//! The folder of a new container of LXC. It is one only when its configuration is there, which is
//! written last.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use snapkeep_api::{Error, ErrorKind, IdMap, Result};

use super::limits::FOLDERS_MAX;
use super::lines::shown_path;
use super::lxc::check_name;

/// A container that is being made. When it is dropped without [`finish`](Self::finish), it is
/// removed with all that is in its root file system.
#[derive(Debug)]
pub struct NewContainer {
    folder: PathBuf,
    /// It is finished, or removed.
    over: bool,
}

/// Makes the folder of a container, with a folder `rootfs` that is its root's.
///
/// `Invalid` if the name cannot be one or is taken, `Target` if the folder cannot be made. Others of the
/// machine than root and the container's root cannot look into it.
pub fn new_container(lxcpath: &Path, name: &str, idmap: Option<&IdMap>) -> Result<NewContainer> {
    check_name(name)?;
    let folder = std::path::absolute(lxcpath.join(name)).map_err(|e| cannot("make", lxcpath, e))?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let unfinished = if folder.join("config").exists() {
                ""
            } else {
                ", without a configuration: if a restore that was killed left it, remove it"
            };
            let what = format!("{} is there already{unfinished}", shown_path(&folder));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Err(e) => return Err(cannot("make", &folder, e)),
    }
    let new = NewContainer {
        folder,
        over: false,
    };
    new.furnish(idmap)
        .map_err(|e| cannot("prepare", &new.folder, e))?;
    Ok(new)
}

impl NewContainer {
    /// The folder for its files.
    pub fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// Writes its configuration: from now on it is a container, also after a power cut.
    pub fn finish(mut self, config: &str) -> Result<()> {
        let path = self.folder.join("config");
        self.write(config).map_err(|e| cannot("write", &path, e))?;
        self.over = true;
        Ok(())
    }

    /// Removes it, as dropping it does. An error names the folder that stays.
    pub fn discard(mut self) -> Result<()> {
        self.over = true;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        if std::fs::remove_dir_all(&self.folder).is_ok() {
            return Ok(());
        }
        let_remove(&self.folder);
        std::fs::remove_dir_all(&self.folder).map_err(|e| {
            let what = format!(
                "{}, without a configuration, stays: remove it",
                shown_path(&self.folder)
            );
            Error::with_source(ErrorKind::Target, what, e)
        })
    }

    fn furnish(&self, idmap: Option<&IdMap>) -> io::Result<()> {
        let rootfs = self.rootfs();
        DirBuilder::new().mode(0o755).create(&rootfs)?;
        let Some(idmap) = idmap else {
            return Ok(());
        };
        let root = |ranges: &[snapkeep_api::IdRange]| {
            let first = ranges.iter().find(|range| range.container == 0);
            first.map(|range| range.host)
        };
        let (user, group) = (root(idmap.users()), root(idmap.groups()));
        chown(&rootfs, user, group)?;
        // The container's root has to come by on its way to the root file system.
        chown(&self.folder, None, group)?;
        rustix::fs::chmod(&self.folder, rustix::fs::Mode::from_raw_mode(0o710))?;
        Ok(())
    }

    fn write(&self, config: &str) -> io::Result<()> {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(config.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(self.folder.join("config"))?;
        File::open(&self.folder)?.sync_all()?;
        if let Some(parent) = self.folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for NewContainer {
    fn drop(&mut self) {
        if !self.over {
            // What stays has no configuration, and the next attempt names it.
            self.remove().ok();
        }
    }
}

/// Takes away what keeps files and folders from being removed: the container's files may have been
/// immutable, and then are so when they are restored.
fn let_remove(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        clear_flags(&folder);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Other kinds have no flags, and opening them may do something.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && folders.len() < FOLDERS_MAX => {
                    folders.push(entry.path());
                }
                Ok(kind) if kind.is_file() => clear_flags(&entry.path()),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// What does not succeed is seen when the file is removed.
fn clear_flags(path: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path);
    if let Ok(file) = file
        && let Ok(flags) = ioctl_getflags(&file)
    {
        let keeping = IFlags::IMMUTABLE | IFlags::APPEND;
        if flags.intersects(keeping) {
            ioctl_setflags(&file, flags - keeping).ok();
        }
    }
}

fn cannot(doing: &str, path: &Path, e: io::Error) -> Error {
    let what = format!("cannot {doing} {}", shown_path(path));
    Error::with_source(ErrorKind::Target, what, e)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_container_is_there_when_it_is_finished_and_gone_when_it_is_not() {
        let lxcpath = tempfile::TempDir::new().unwrap();
        let folder = lxcpath.path().join("web");
        let new = new_container(lxcpath.path(), "web", None).unwrap();
        std::fs::write(new.rootfs().join("file"), "").unwrap();
        assert!(!folder.join("config").exists());
        let error = new_container(lxcpath.path(), "web", None).unwrap_err();
        assert!(
            error.chain().contains("without a configuration"),
            "{}",
            error.chain()
        );
        drop(new);
        assert!(!folder.exists());
        let new = new_container(lxcpath.path(), "web", None).unwrap();
        new.finish("lxc.uts.name = web\n").unwrap();
        assert_eq!(
            std::fs::read(folder.join("config")).unwrap(),
            b"lxc.uts.name = web\n"
        );
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        new_container(lxcpath.path(), "web", None).unwrap_err();
        assert!(folder.join("rootfs").exists());
        new_container(lxcpath.path(), "..", None).unwrap_err();
        new_container(&lxcpath.path().join("no"), "web", None).unwrap_err();
    }
}
