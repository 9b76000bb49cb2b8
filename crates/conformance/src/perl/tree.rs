//! A container's tree as a folder, and folders as trees.
//!
//! The kit's trees are made up, and have some that no file system holds, such as times before there
//! was anything. What a class is given is the folder that comes of a tree, which is read before the
//! backup; what the class restores is read in the same way, and has to be equal to that.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use snapkeep_api::conformance::tree_difference;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::tree::{Name, TreeNode, TreeReader, TreeSource, TreeTotals};
use snapkeep_api::{
    Cancel, ContainerSource, Error, ErrorKind, IdMap, Outcome, Provider, Region, Result, UnixTime,
    VmMechanism,
};
use snapkeep_tree::{ExtractOptions, Owners, Progress, extract};
use snapkeep_walk::{Options, Pull, Request, userns};
use tempfile::TempDir;

use super::broken;

/// The host's user that is root in the container.
pub(crate) const FIRST: u64 = 100_000;
/// The container's users and groups, from the host's that is root in it on.
const MAP: &str = "0:100000:65536";
/// The same as the kernel takes it.
const KERNEL_MAP: &str = "0 100000 65536";
/// Nobody: who owns what has an owner that the map lacks.
const NOBODY: u32 = 165_534;

/// A container's tree: as it was told, and as its folder was.
pub(crate) struct Kept {
    told: Arc<dyn TreeReader>,
    was: Box<dyn TreeReader>,
}

impl Kept {
    /// The tree as it was told, if a folder has what its folder had; otherwise the first difference.
    pub(crate) fn if_restored(&self, restored: &dyn TreeReader) -> Result<Box<dyn TreeReader>> {
        match tree_difference(&*self.was, restored)? {
            None => Ok(Box::new(Plain {
                reader: Arc::clone(&self.told),
                flags: true,
            })),
            Some(difference) => Err(Error::new(ErrorKind::Corrupt, difference)),
        }
    }
}

/// The folder of a container, gone with this value.
pub(crate) struct Folder {
    around: TempDir,
}

impl Folder {
    /// Makes it of a tree, and reads it as the container's root user does.
    pub(crate) fn make(walker: &Path, source: &mut dyn TreeSource) -> Result<(Self, Kept)> {
        let told: Arc<dyn TreeReader> = Arc::from(in_memory(source)?);
        let failed = |e| {
            let what = "cannot make a folder for a container";
            Error::with_source(ErrorKind::Target, what, e)
        };
        let mut around = tempfile::Builder::new();
        let around = around.prefix("snapkeep-container-").tempdir();
        let around = around.map_err(failed)?;
        fs::set_permissions(around.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let folder = Self { around };
        let map: IdMap = MAP.parse()?;
        let options = ExtractOptions {
            owners: Owners::mapped(map.clone()).with_unmapped(NOBODY),
            allow_devices: true,
            durable: false,
            ..ExtractOptions::default()
        };
        // Flags of inodes are kept by no restore of Proxmox VE, and would keep the folder here.
        let plain = Plain {
            reader: Arc::clone(&told),
            flags: false,
        };
        let (progress, cancel) = (Progress::default(), Cancel::new());
        extract(&plain, &folder.path(), &options, &progress, &cancel)?;
        let was = read(walker, &folder.path(), Some(map))?;
        Ok((folder, Kept { told, was }))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.around.path().join("root")
    }
}

/// Reads a folder: with a map as the root user of such a container, without as this one.
pub(crate) fn read(
    walker: &Path,
    folder: &Path,
    id_map: Option<IdMap>,
) -> Result<Box<dyn TreeReader>> {
    let command = userns::Command {
        program: walker.to_owned(),
        arguments: vec!["walk".into()],
        directory: Some(folder.to_owned()),
        id_map,
    };
    let request = Request {
        directory: ".".into(),
        sources: vec![b"./".to_vec()],
        exclude: Vec::new(),
        ask: false,
    };
    let mut pull = Pull::of(command.spawn()?, &request, Options::default())?;
    in_memory(&mut pull)
}

/// A tree that a source tells, as a provider keeps it.
fn in_memory(source: &mut dyn TreeSource) -> Result<Box<dyn TreeReader>> {
    let provider = MemoryProvider::new(VmMechanism::Nbd);
    let start = UnixTime(0);
    let mut job = provider.start_job(start)?;
    let mut backup = job.start_container(&"1".parse()?, start)?;
    let stats = backup.run(ContainerSource {
        guest_config: b"",
        firewall_config: None,
        bandwidth_limit: None,
        id_map: None,
        tree: source,
    })?;
    if stats.left_out > 0 {
        let what = format!("{} entries of a folder cannot be read", stats.left_out);
        return Err(broken(what));
    }
    let name = backup.archive_name().clone();
    backup.finish(&Outcome::Success)?;
    job.finish(&Outcome::Success)?;
    provider
        .open_archive(&name)?
        .restore_container()?
        .open_tree()
}

/// A tree with its inode flags, or without.
struct Plain {
    reader: Arc<dyn TreeReader>,
    flags: bool,
}

impl Plain {
    fn of(&self, mut node: TreeNode) -> TreeNode {
        if !self.flags {
            node.entry.attributes.flags = 0;
        }
        node
    }
}

impl TreeReader for Plain {
    fn root(&self) -> Result<TreeNode> {
        Ok(self.of(self.reader.root()?))
    }

    fn totals(&self) -> TreeTotals {
        self.reader.totals()
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        let page = self.reader.list(directory, after, max)?.into_iter();
        Ok(page.map(|(name, node)| (name, self.of(node))).collect())
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        let found = self.reader.lookup(directory, name)?;
        Ok(found.map(|node| self.of(node)))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.reader.read_at(file, offset, buffer)
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        self.reader.next_data(file, offset)
    }
}

/// A container's user namespace: a process that reads until its input ends.
pub(crate) struct Namespace(Child);

impl Namespace {
    pub(crate) fn new() -> Result<Self> {
        let failed = |e| {
            let what = "cannot make a user namespace for a container";
            Error::with_source(ErrorKind::Unavailable, what, e)
        };
        let holder = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut namespace = Self(holder);
        let mut line = String::new();
        if let Some(out) = namespace.0.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        if line.is_empty() {
            return Err(failed(std::io::Error::other("unshare does not make one")));
        }
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", namespace.0.id());
            fs::write(path, KERNEL_MAP).map_err(failed)?;
        }
        Ok(namespace)
    }

    /// The namespace as a file.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/user", self.0.id())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, unless it cannot; either way it is gone.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
