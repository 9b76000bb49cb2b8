//! Something that is mounted for a restore, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapkeep_api::tree::{Name, Timestamp, TreeReader};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};
use snapkeep_mount::{FixedFolder, Mounted, Node, Options, RandomRead, Unmounted, mount};
use snapkeep_tree::tar::TarFile;

use crate::log::Log;
use crate::run_folder::RunFolder;

/// A mount; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    mounted: Option<Mounted>,
    target: PathBuf,
}

impl Served {
    /// Mounts a tree, or a folder with one file.
    ///
    /// Others are let in to a folder with a tar archive: it is read by a process in a user namespace,
    /// from a descriptor that root opened. Nobody but root comes to the path.
    pub(crate) fn new(
        folder: &mut RunFolder,
        root: Node,
        allow_other: bool,
        log: &Arc<Log>,
    ) -> Result<Self> {
        let target = folder.mount_point()?;
        let log = Arc::clone(log);
        let options = Options {
            allow_other,
            on_problem: Box::new(move |path, error| {
                let what = format!("{path} cannot be read: {}", error.chain());
                log.log(Level::Error, &what);
            }),
            ..Options::default()
        };
        let mut served = Self {
            mounted: None,
            target,
        };
        served.mounted = Some(mount(&served.target, root, options)?);
        Ok(served)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts it.
    pub(crate) fn release(mut self, log: &Log) -> Result<()> {
        if let Some(mounted) = self.mounted.take()
            && mounted.unmount()? == Unmounted::InUse
        {
            let what = format!(
                "{} was still in use when it was taken away",
                self.target.display()
            );
            log.log(Level::Warn, &what);
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.mounted = None;
        fs::remove_dir(&self.target).ok();
    }
}

/// A folder with one file.
pub(crate) fn folder_of(name: &str, file: impl RandomRead + 'static) -> Result<Node> {
    let entry = (Name::new(name.as_bytes())?, Node::Bytes(Arc::new(file)));
    let folder = FixedFolder::new([entry], Timestamp::default());
    Ok(Node::Folder(Arc::new(folder)))
}

/// A tree as a tar archive.
pub(crate) struct Tar {
    file: TarFile,
}

impl Tar {
    /// What the archive cannot hold is told.
    pub(crate) fn open(
        reader: Arc<dyn TreeReader>,
        cancel: &snapkeep_api::Cancel,
        log: &Log,
    ) -> Result<Self> {
        let file = TarFile::open(reader, cancel)?;
        let report = file.report();
        if report.sockets > 0 {
            let what = format!("{} sockets are left out: tar has none", report.sockets);
            log.log(Level::Warn, &what);
        }
        if report.flags_lost > 0 {
            let what = format!(
                "the inode flags of {} entries are left out",
                report.flags_lost
            );
            log.log(Level::Warn, &what);
        }
        Ok(Self { file })
    }
}

impl RandomRead for Tar {
    fn size(&self) -> Result<u64> {
        Ok(self.file.size())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.file.read_at(offset, buffer)? == buffer.len() {
            return Ok(());
        }
        let what = "a tar archive is read past its end";
        Err(Error::new(ErrorKind::Protocol, what))
    }
}
