//! A repository as folders: namespaces, kinds, guests, archives, and what is in these.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snapkeep_api::tree::{Name, Timestamp, TreeReader};
use snapkeep_api::{
    Archive, ArchiveName, Cancel, ContainerRestore, Error, ErrorKind, GuestKind, Provider, Region,
    Result, VmRestore,
};
use snapkeep_mount::{FixedFolder, Folder, Node, RandomRead, VolumeFile};
use snapkeep_provider::RepositoryProvider;
use snapkeep_repo::{Repository, SnapshotName};
use snapkeep_tree::tar::TarFile;

/// How many parts the name of an archive has.
const PARTS: usize = 4;

/// How long a list of archives is believed: looking into a folder asks for each of its names.
const A_WHILE: Duration = Duration::from_secs(1);

/// What all folders share.
pub(crate) struct Shared {
    repository: Arc<Repository>,
    provider: RepositoryProvider,
    cancel: Cancel,
    listed: Mutex<Option<(Instant, Arc<[SnapshotName]>)>>,
}

impl Shared {
    pub(crate) fn new(
        repository: Arc<Repository>,
        provider: RepositoryProvider,
        cancel: Cancel,
    ) -> Self {
        Self {
            repository,
            provider,
            cancel,
            listed: Mutex::default(),
        }
    }

    /// The archives that were there a moment ago.
    fn archives(&self) -> Result<Arc<[SnapshotName]>> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, names)) = &*listed
            && when.elapsed() < A_WHILE
        {
            return Ok(Arc::clone(names));
        }
        let names: Arc<[SnapshotName]> = (self.repository.snapshots())
            .map_err(|e| {
                let what = "cannot list the repository's archives";
                Error::with_source(ErrorKind::Target, what, e)
            })?
            .into();
        *listed = Some((Instant::now(), Arc::clone(&names)));
        Ok(names)
    }
}

/// The folder of all archives whose names begin with these parts.
pub(crate) struct Shelf {
    shared: Arc<Shared>,
    /// With a slash at its end, unless it is empty.
    prefix: String,
    depth: usize,
}

impl Shelf {
    /// The whole repository.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            prefix: String::new(),
            depth: 0,
        }
    }

    fn names(&self) -> Result<BTreeSet<String>> {
        let all = self.shared.archives()?;
        let below = (all.iter()).filter_map(|name| name.as_str().strip_prefix(&*self.prefix));
        Ok(below
            .filter_map(|rest| rest.split('/').next().map(str::to_owned))
            .collect())
    }

    fn node(&self, name: &str) -> Node {
        let path = format!("{}{name}", self.prefix);
        let shared = Arc::clone(&self.shared);
        Node::Folder(if self.depth + 1 == PARTS {
            Arc::new(Opening {
                shared,
                path,
                opened: Mutex::default(),
            })
        } else {
            Arc::new(Self {
                shared,
                prefix: format!("{path}/"),
                depth: self.depth + 1,
            })
        })
    }
}

impl Folder for Shelf {
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>> {
        let names = self.names()?;
        let after = |name: &&String| after.is_none_or(|after| name.as_bytes() > after.as_bytes());
        let wanted = names.iter().filter(after).take(max);
        wanted
            .map(|name| Ok((Name::new(name.as_bytes())?, self.node(name))))
            .collect()
    }

    fn lookup(&self, name: &Name) -> Result<Option<Node>> {
        let names = self.names()?;
        let found = (names.iter()).find(|found| found.as_bytes() == name.as_bytes());
        Ok(found.map(|name| self.node(name)))
    }
}

/// The folder of an archive, which is opened when somebody looks into it.
struct Opening {
    shared: Arc<Shared>,
    path: String,
    opened: Mutex<Option<Arc<FixedFolder>>>,
}

impl Opening {
    fn open(&self) -> Result<Arc<FixedFolder>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*opened {
            return Ok(Arc::clone(folder));
        }
        let name = self.path.parse()?;
        let folder = Arc::new(archive(&self.shared, &name)?);
        *opened = Some(Arc::clone(&folder));
        Ok(folder)
    }
}

impl Folder for Opening {
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>> {
        self.open()?.list(after, max)
    }

    fn lookup(&self, name: &Name) -> Result<Option<Node>> {
        self.open()?.lookup(name)
    }
}

/// What is in an archive.
fn archive(shared: &Shared, name: &ArchiveName) -> Result<FixedFolder> {
    let archive = shared.provider.open_archive(name)?;
    let mut entries = configurations(&*archive)?;
    match archive.guest_kind() {
        GuestKind::Lxc => {
            let mut restore = archive.restore_container()?;
            let reader: Arc<dyn TreeReader> = restore.open_tree()?.into();
            let tar = TreeTar {
                reader: Arc::clone(&reader),
                _restore: Mutex::new(restore),
                cancel: shared.cancel.clone(),
                tar: Mutex::default(),
            };
            entries.push((Name::new(*b"tree")?, Node::Tree(reader)));
            entries.push((Name::new(*b"tree.tar")?, Node::Bytes(Arc::new(tar))));
        }
        GuestKind::Qemu => disks(&mut *archive.restore_vm()?, &mut entries)?,
    }
    Ok(FixedFolder::new(entries, Timestamp::default()))
}

fn configurations(archive: &dyn Archive) -> Result<Vec<(Name, Node)>> {
    let guest = Some(archive.guest_config()?).filter(|config| !config.is_empty());
    let both = [
        ("guest.conf", guest),
        ("firewall.conf", archive.firewall_config()?),
    ];
    let there = (both.into_iter()).filter_map(|(name, config)| Some((name, config?)));
    there
        .map(|(name, config)| {
            Ok((
                Name::new(name.as_bytes())?,
                Node::Bytes(Arc::new(Bytes(config))),
            ))
        })
        .collect()
}

fn disks(vm: &mut dyn VmRestore, entries: &mut Vec<(Name, Node)>) -> Result<()> {
    let devices: Vec<_> = vm.volumes().keys().cloned().collect();
    for device in devices {
        let file = VolumeFile::new(vm.open_volume(&device)?, Timestamp::default());
        let name = Name::new(format!("{device}.raw").into_bytes())?;
        entries.push((name, Node::Bytes(Arc::new(file))));
    }
    Ok(())
}

/// A configuration as a file.
struct Bytes(Vec<u8>);

impl RandomRead for Bytes {
    fn size(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.0.get(start..start.saturating_add(buffer.len()));
        let bytes = bytes.ok_or_else(|| past_the_end("configuration"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        rest(offset, self.size()?)
    }
}

/// A tree as a tar archive, whose size is found out when it is asked for.
struct TreeTar {
    reader: Arc<dyn TreeReader>,
    _restore: Mutex<Box<dyn ContainerRestore>>,
    cancel: Cancel,
    /// What failed is tried again.
    tar: Mutex<Option<Arc<TarFile>>>,
}

impl TreeTar {
    fn tar(&self) -> Result<Arc<TarFile>> {
        let mut opened = self.tar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tar) = &*opened {
            return Ok(Arc::clone(tar));
        }
        let tar = Arc::new(TarFile::open(Arc::clone(&self.reader), &self.cancel)?);
        *opened = Some(Arc::clone(&tar));
        Ok(tar)
    }
}

impl RandomRead for TreeTar {
    fn size(&self) -> Result<u64> {
        Ok(self.tar()?.size())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.tar()?.read_at(offset, buffer)?;
        if read < buffer.len() {
            return Err(past_the_end("tar archive"));
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        rest(offset, self.size()?)
    }
}

fn past_the_end(what: &str) -> Error {
    let what = format!("a {what} is read past its end");
    Error::new(ErrorKind::Protocol, what)
}

/// All of a file that follows: it has no holes that it knows of.
fn rest(offset: u64, size: u64) -> Result<Option<Region>> {
    let left = size.checked_sub(offset).filter(|left| *left > 0);
    left.map(|left| Region::new(offset, left)).transpose()
}
