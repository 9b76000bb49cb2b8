//! Restores: what is mounted for them, and that it goes whatever the caller forgets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use snapkeep_api::tree::{Timestamp, TreeReader};
use snapkeep_api::{Cancel, ContainerRestore, DeviceName, Error, ErrorKind, Result, VmRestore};
use snapkeep_mount::{Node, VolumeFile};

use crate::backend::{Backend, ContainerMechanism};
use crate::limits;
use crate::log::Log;
use crate::run_folder::RunFolder;
use crate::served::{Served, Tar, folder_of};

/// The name of a container's tar archive.
const TAR_NAME: &str = "tree.tar";

/// The restores that were begun and not ended, by the names of their archives.
pub(crate) struct Restores {
    backend: Arc<dyn Backend>,
    log: Arc<Log>,
    all: BTreeMap<String, Restore>,
    /// After all that is mounted in it.
    folder: Option<RunFolder>,
}

enum Restore {
    Vm {
        /// By device. Each has a mount of its own: what a mount has does not change.
        open: BTreeMap<DeviceName, Served>,
        restore: Box<dyn VmRestore>,
    },
    Container {
        served: Served,
        restore: Box<dyn ContainerRestore>,
    },
}

impl Restores {
    pub(crate) fn new(backend: Arc<dyn Backend>, log: Arc<Log>) -> Self {
        Self {
            backend,
            log,
            all: BTreeMap::new(),
            folder: None,
        }
    }

    /// Begins a virtual machine's restore; the volumes and their sizes.
    pub(crate) fn begin_vm(&mut self, name: &str, restore: Box<dyn VmRestore>) -> Result<Value> {
        self.make_room(name)?;
        let volumes = restore.volumes().iter();
        let volumes = volumes.map(|(device, info)| {
            let size = json!({"size": info.size});
            (device.as_str().to_owned(), size)
        });
        let volumes = volumes.collect::<Map<_, _>>();
        let open = BTreeMap::new();
        self.all
            .insert(name.to_owned(), Restore::Vm { open, restore });
        Ok(Value::Object(volumes))
    }

    /// Mounts a volume; the path of the file.
    pub(crate) fn open(&mut self, name: &str, device: &DeviceName) -> Result<PathBuf> {
        let log = Arc::clone(&self.log);
        let Some(Restore::Vm { open, restore }) = self.all.get_mut(name) else {
            let what = format!("no restore of a virtual machine from {name} was begun");
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        if let Some(served) = open.remove(device) {
            served.release(&log)?;
        }
        let file = format!("{device}.raw");
        let volume = VolumeFile::new(restore.open_volume(device)?, Timestamp::default());
        let root = folder_of(&file, volume)?;
        let folder = run_folder(&mut self.folder, &*self.backend)?;
        let served = Served::new(folder, root, false, &log)?;
        let path = served.path().join(file);
        open.insert(device.clone(), served);
        Ok(path)
    }

    /// Unmounts a volume, if it is mounted.
    pub(crate) fn close(&mut self, name: &str, device: &DeviceName) -> Result<()> {
        let Some(Restore::Vm { open, .. }) = self.all.get_mut(name) else {
            return Ok(());
        };
        let served = open.remove(device);
        served.map_or(Ok(()), |served| served.release(&self.log))
    }

    /// Mounts a container's tree; the path of the folder, or of the tar archive.
    pub(crate) fn begin_container(
        &mut self,
        name: &str,
        mut restore: Box<dyn ContainerRestore>,
        mechanism: ContainerMechanism,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        self.make_room(name)?;
        let reader: Arc<dyn TreeReader> = restore.open_tree()?.into();
        let root = match mechanism {
            ContainerMechanism::Directory => Node::Tree(reader),
            ContainerMechanism::Tar => folder_of(TAR_NAME, Tar::open(reader, cancel, &self.log)?)?,
        };
        let folder = run_folder(&mut self.folder, &*self.backend)?;
        let for_others = mechanism == ContainerMechanism::Tar;
        let served = Served::new(folder, root, for_others, &self.log)?;
        let path = match mechanism {
            ContainerMechanism::Directory => served.path().to_owned(),
            ContainerMechanism::Tar => served.path().join(TAR_NAME),
        };
        let restore = Restore::Container { served, restore };
        self.all.insert(name.to_owned(), restore);
        Ok(path)
    }

    /// Ends a restore, if it was begun.
    pub(crate) fn end(&mut self, name: &str) -> Result<()> {
        let restore = self.all.remove(name);
        let ended = restore.map_or(Ok(()), |restore| restore.end(&self.log));
        if self.all.is_empty() {
            self.folder = None;
        }
        ended
    }

    /// Ends all of them; the first failure.
    pub(crate) fn end_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.all.keys().cloned().collect();
        let mut first = Ok(());
        for name in names {
            let ended = self.end(&name);
            first = first.and(ended);
        }
        first
    }

    /// Ends one of the same name, whose cleanup somebody lost.
    fn make_room(&mut self, name: &str) -> Result<()> {
        self.end(name)?;
        if self.all.len() < limits::RESTORES_MAX {
            return Ok(());
        }
        let what = format!("{} restores run already", limits::RESTORES_MAX);
        Err(Error::new(ErrorKind::Protocol, what))
    }
}

impl Restore {
    fn end(self, log: &Log) -> Result<()> {
        match self {
            Self::Vm { open, restore } => {
                let mut released = Ok(());
                for (_, served) in open {
                    released = released.and(served.release(log));
                }
                restore.finish()?;
                released
            }
            Self::Container { served, restore } => {
                let released = served.release(log);
                restore.finish()?;
                released
            }
        }
    }
}

/// The folder of this process, made where the settings say: they come with `hello`, so later than
/// what is begun with them.
fn run_folder<'a>(
    folder: &'a mut Option<RunFolder>,
    backend: &dyn Backend,
) -> Result<&'a mut RunFolder> {
    if folder.is_none() {
        *folder = Some(RunFolder::new(&backend.run_folder())?);
    }
    let none = || Error::new(ErrorKind::Target, "there is no folder to mount in");
    folder.as_mut().ok_or_else(none)
}
