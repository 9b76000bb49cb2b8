//! The backup access that Proxmox VE's QEMU keeps for a job of Proxmox VE: filters, snapshots and
//! exports that Proxmox VE made, for a storage that may be ours.
//!
//! QEMU tells neither whether it has one nor for whom. It has one if there are snapshots; whose it
//! is says the name of the dirty bitmap that stands still meanwhile. QEMU itself refuses to take
//! back what is for another storage. What Proxmox VE keeps apart from it, such as its fleecing
//! images, is never touched.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use snapkeep_api::{Clock, Error, ErrorKind, Result};

use super::{Finding, Owner};
use crate::fleecing::serves;
use crate::graph::Graph;
use crate::limits::{PROXMOX_ENTRIES_MAX, PROXMOX_FILE_BYTES_MAX, Timeouts};
use crate::names::OURS;
use crate::process;
use crate::qemu::Qemu;
use crate::teardown::close_exports;

/// What this module finds.
const KIND: &str = "access";
/// Whose it is, apart from the backup itself.
const PROXMOX: &str = "Proxmox VE";
/// The type of our storages.
const STORAGE_TYPE: &str = "snapkeep";
/// How targets, and their dirty bitmaps, begin; the storage's ID follows.
const TARGET: &str = "snapshot-access:";
/// The dirty bitmap that records while a target's stands still.
const BACKGROUND: &str = "backup-access-background-bitmap";

/// Where Proxmox VE keeps what tells of its guests, storages and jobs.
#[derive(Clone, Debug)]
pub struct Proxmox {
    /// Its monitors, `VMID.qmp`, and the folders `VMID.backup-access.PROCESS` of its jobs.
    pub run: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// What a job of backups has locked, on this machine.
    pub lock: PathBuf,
}

impl Default for Proxmox {
    fn default() -> Self {
        Self {
            run: "/run/qemu-server".into(),
            config: "/etc/pve".into(),
            lock: "/run/vzdump.lock".into(),
        }
    }
}

/// A backup access.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Access {
    /// The nodes that show the snapshots.
    pub(super) snapshots: Vec<String>,
    /// The storage that it is for, if that can be told.
    storage: Option<String>,
}

/// The backup access that a QEMU has.
pub(super) fn access(qemu: &mut Qemu, graph: &Graph) -> Result<Option<Access>> {
    let support = qemu.ask("query-proxmox-support", json!({}))?;
    if support.is_none_or(|support| support["backup-access-api"] != true) {
        return Ok(None);
    }
    let mut access = Access {
        snapshots: Vec::new(),
        storage: None,
    };
    let mut storages = Vec::new();
    for node in graph.nodes.values() {
        if node.driver != "snapshot-access" || node.name.starts_with(OURS) {
            continue;
        }
        access.snapshots.push(node.name.clone());
        let filter = graph.edges.child(&node.name, "file");
        let disk = filter.and_then(|filter| graph.edges.child(filter, "file"));
        let Some(disk) = disk.and_then(|disk| graph.nodes.get(disk)) else {
            continue;
        };
        let bitmaps = &disk.dirty_bitmaps;
        if bitmaps.iter().any(|bitmap| bitmap.name == BACKGROUND) {
            let still = bitmaps.iter().filter(|bitmap| !bitmap.recording);
            storages.extend(still.filter_map(|bitmap| bitmap.name.strip_prefix(TARGET)));
        }
    }
    storages.sort_unstable();
    storages.dedup();
    if let [storage] = storages[..] {
        access.storage = Some(storage.to_owned());
    }
    Ok((!access.snapshots.is_empty()).then_some(access))
}

/// What is told of a backup access.
pub(super) fn finding(
    socket: &Path,
    clock: &Arc<dyn Clock>,
    proxmox: &Proxmox,
    access: &Access,
) -> Result<Finding> {
    let disks = access.snapshots.len();
    let what = format!("the backup access of Proxmox VE to {disks} disks of a guest");
    let place = socket.display();
    let Some(storage) = &access.storage else {
        let owner = Owner::unknown();
        return Ok(Finding::foreign(KIND, what, place, owner).costs(NOT_OURS));
    };
    match storage_type(&proxmox.config, storage)? {
        Some(kind) if kind == STORAGE_TYPE => {}
        kind => {
            let kind = kind.unwrap_or_else(|| "no known type".to_owned());
            let owner = format!("the storage {storage} of Proxmox VE, of {kind}");
            let finding = Finding::foreign(KIND, what, place, Owner::other(owner));
            return Ok(finding.costs(NOT_OURS));
        }
    }
    let owner = Owner::ours(format!("backup to the storage {storage} of Proxmox VE"));
    let guest = guest(socket)?;
    if let Life::Lives(process) = life(proxmox, guest)? {
        let owner = owner.with_process(process);
        return Ok(Finding::in_use(KIND, what, place, owner));
    }
    let healing = format!(
        "its exports are closed, and QEMU takes it back (backup-access-teardown); the dirty bitmap stays, with all \
         that changed. What is left is Proxmox VE's: its fleecing images, and the lock of the guest (qm unlock {guest}); if \
         its file systems stand still (qm guest cmd {guest} fsfreeze-status), they are to be thawed (fsfreeze-thaw)"
    );
    let (socket, clock) = (socket.to_owned(), Arc::clone(clock));
    let (proxmox, access) = (proxmox.clone(), access.clone());
    let finding = Finding::stale(KIND, what, socket.display(), owner);
    let finding = finding.costs(cost()).heals_by(healing);
    Ok(finding.with_remedy(move |_, _| take_back(&socket, clock, &proxmox, guest, &access)))
}

/// Of what is not ours, running or not.
const NOT_OURS: &str = "unknown: its owner knows";

fn cost() -> &'static str {
    "each further backup of the guest by Proxmox VE fails; what the guest overwrites is first copied to the fleecing \
     images, at most as much as its disks have"
}

/// The guest behind a monitor of Proxmox VE.
fn guest(socket: &Path) -> Result<u32> {
    let name = socket.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_suffix(".qmp"));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| {
        let what = format!(
            "the guest has a backup access, and {} does not tell which guest it is: name its monitor VMID.qmp",
            socket.display()
        );
        Error::new(ErrorKind::Invalid, what)
    })
}

/// The type of a storage, as the configuration says.
fn storage_type(config: &Path, storage: &str) -> Result<Option<String>> {
    let path = config.join("storage.cfg");
    let text = match read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(&path, e)),
    };
    let mut sections = text.lines().filter_map(|line| line.split_once(": "));
    let found = sections.find(|(kind, id)| !kind.starts_with([' ', '\t']) && id.trim() == storage);
    Ok(found.map(|(kind, _)| kind.to_owned()))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(PROXMOX_FILE_BYTES_MAX);
    file.read_to_string(&mut text)?;
    if file.limit() == 0 {
        return Err(io::Error::other("it is too long"));
    }
    Ok(text)
}

fn unreadable(path: &Path, e: io::Error) -> Error {
    let what = format!("{} cannot be looked at", path.display());
    Error::with_source(ErrorKind::Unavailable, what, e)
}

/// Whether the job lives that set a backup access up.
#[derive(Debug, Eq, PartialEq)]
enum Life {
    Lives(Option<u32>),
    Dead,
}

/// Of a job the folder of its exports tells the process. Without one, any job of this machine may be
/// the one: they have one lock.
fn life(proxmox: &Proxmox, guest: u32) -> Result<Life> {
    let jobs = jobs(proxmox, guest)?;
    if jobs.is_empty() {
        return is_locked(&proxmox.lock);
    }
    let lives = |process: &u32| Path::new(&format!("/proc/{process}")).exists();
    let living = jobs.into_iter().map(|(process, _)| process).find(lives);
    Ok(living.map_or(Life::Dead, |process| Life::Lives(Some(process))))
}

/// The processes and folders of a guest's jobs.
fn jobs(proxmox: &Proxmox, guest: u32) -> Result<Vec<(u32, PathBuf)>> {
    let failed = |e| unreadable(&proxmox.run, e);
    let prefix = format!("{guest}.backup-access.");
    let mut jobs = Vec::new();
    for entry in fs::read_dir(&proxmox.run)
        .map_err(failed)?
        .take(PROXMOX_ENTRIES_MAX)
    {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        if let Some(process) = process.and_then(|process| process.parse().ok()) {
            jobs.push((process, entry.path()));
        }
    }
    Ok(jobs)
}

fn is_locked(path: &Path) -> Result<Life> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Life::Dead),
        Err(e) => return Err(unreadable(path, e)),
    };
    let is_locked = process::is_locked(&file).map_err(|e| unreadable(path, e))?;
    Ok(if is_locked {
        Life::Lives(process::lock_holder(&file))
    } else {
        Life::Dead
    })
}

fn take_back(
    socket: &Path,
    clock: Arc<dyn Clock>,
    proxmox: &Proxmox,
    guest: u32,
    found: &Access,
) -> Result<String> {
    let mut qemu = Qemu::connect_within(socket, clock, Timeouts::doctor())?;
    let graph = Graph::query(&mut qemu)?;
    let now = access(&mut qemu, &graph)?;
    let Some(storage) = now.as_ref().and_then(|now| now.storage.as_ref()) else {
        return Ok("it was gone".to_owned());
    };
    if now.as_ref() != Some(found) || life(proxmox, guest)? != Life::Dead {
        let what = "a job of Proxmox VE began meanwhile: it is let alone";
        return Err(Error::new(ErrorKind::Unavailable, what));
    }
    // A bitmap that an export uses is one that QEMU cannot merge.
    let of_access = |export: &serde_json::Value| {
        let node = export["node-name"].as_str();
        node.is_some_and(|node| found.snapshots.iter().any(|snapshot| snapshot == node))
    };
    close_exports(&mut qemu, &of_access)?;
    if has_server(proxmox, guest)? && !has_nbd_exports(&mut qemu)? {
        qemu.execute("nbd-server-stop", json!({}))?;
    }
    let target = format!("{TARGET}{storage}");
    let teardown = json!({"target-id": target, "success": false});
    qemu.execute("backup-access-teardown", teardown)?;
    let graph = Graph::query(&mut qemu)?;
    if access(&mut qemu, &graph)?.is_some() {
        let what = format!("QEMU has not taken back the backup access of {target}");
        return Err(Error::new(ErrorKind::Source, what));
    }
    Ok(format!(
        "the backup access is taken back, and the dirty bitmap has all that changed; what is left is Proxmox VE's: its \
         fleecing images, the lock of the guest (qm unlock {guest}), and its file systems if they stand still (qm \
         guest cmd {guest} fsfreeze-status, fsfreeze-thaw)"
    ))
}

/// Whether a server listens in the folder of one of a guest's jobs: that is QEMU's NBD server.
fn has_server(proxmox: &Proxmox, guest: u32) -> Result<bool> {
    for (_, folder) in jobs(proxmox, guest)? {
        let failed = |e| unreadable(&folder, e);
        for entry in fs::read_dir(&folder)
            .map_err(failed)?
            .take(PROXMOX_ENTRIES_MAX)
        {
            let entry = entry.map_err(failed)?;
            let is_socket = entry.file_type().map_err(failed)?.is_socket();
            if is_socket && serves(&entry.path())? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn has_nbd_exports(qemu: &mut Qemu) -> Result<bool> {
    let exports = qemu.execute("query-block-exports", json!({}))?;
    let mut exports = exports.as_array().into_iter().flatten();
    Ok(exports.any(|export| export["type"] == "nbd"))
}

/// Fleecing images that Proxmox VE notes in the configurations of its guests, until it removes them.
pub fn fleecing_of_proxmox(proxmox: &Proxmox) -> Vec<Finding> {
    let folder = proxmox.config.join("qemu-server");
    let unseen = |path: &Path, e| {
        vec![Finding::unseen(
            "fleecing",
            path.display(),
            &unreadable(path, e),
        )]
    };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => return unseen(&folder, e),
    };
    let mut paths = Vec::new();
    for entry in entries.take(PROXMOX_ENTRIES_MAX) {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(e) => return unseen(&folder, e),
        }
    }
    paths.retain(|path| path.extension().is_some_and(|end| end == "conf"));
    paths.sort();
    let found = paths.iter().flat_map(|path| match read(path) {
        Ok(text) => of_guest(path, &text).into_iter().collect(),
        // The guest is gone, or moved to another node.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => unseen(path, e),
    });
    found.collect()
}

fn of_guest(path: &Path, text: &str) -> Option<Finding> {
    let section = text
        .lines()
        .skip_while(|line| line.trim() != "[special:fleecing]");
    let mut section = section.skip(1).take_while(|line| !line.starts_with('['));
    let images = section.find_map(|line| line.strip_prefix("fleecing-images:"))?;
    let what = format!("fleecing images of a backup: {}", images.trim());
    let finding = Finding::foreign("fleecing", what, path.display(), Owner::other(PROXMOX));
    Some(finding.costs("their space, until Proxmox VE removes them"))
}

#[cfg(test)]
mod tests {
    use rustix::fs::FlockOperation;

    use super::*;

    #[test]
    fn a_storage_has_the_type_of_its_section() {
        let folder = tempfile::TempDir::new().unwrap();
        let kind = |id| storage_type(folder.path(), id).unwrap();
        assert_eq!(kind("store"), None);
        let text = "dir: local\n\tpath /var: store\n\nsnapkeep: store\n\tsnapkeep-repository /b\n\npbs: other\n";
        fs::write(folder.path().join("storage.cfg"), text).unwrap();
        assert_eq!(kind("store").as_deref(), Some("snapkeep"));
        assert_eq!(kind("other").as_deref(), Some("pbs"));
        assert_eq!((kind("stor"), kind("/b")), (None, None));
        fs::write(folder.path().join("storage.cfg"), [0xff]).unwrap();
        storage_type(folder.path(), "store").unwrap_err();
    }

    #[test]
    fn a_job_lives_with_its_process_or_without_a_folder_with_the_lock() {
        let folder = tempfile::TempDir::new().unwrap();
        let proxmox = Proxmox {
            run: folder.path().to_owned(),
            config: folder.path().to_owned(),
            lock: folder.path().join("vzdump.lock"),
        };
        assert_eq!(life(&proxmox, 100).unwrap(), Life::Dead);
        let lock = File::create(&proxmox.lock).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        let own = std::process::id();
        assert_eq!(life(&proxmox, 100).unwrap(), Life::Lives(Some(own)));
        let job = |process| {
            let name = format!("100.backup-access.{process}");
            fs::create_dir(folder.path().join(name)).unwrap();
        };
        job(4_194_305);
        // Another guest's backup may have the lock.
        assert_eq!(life(&proxmox, 100).unwrap(), Life::Dead);
        assert_eq!(life(&proxmox, 10).unwrap(), Life::Lives(Some(own)));
        job(own);
        assert_eq!(life(&proxmox, 100).unwrap(), Life::Lives(Some(own)));
    }

    #[test]
    fn fleecing_images_are_read_from_their_section_alone() {
        let folder = tempfile::TempDir::new().unwrap();
        let proxmox = Proxmox {
            config: folder.path().to_owned(),
            ..Proxmox::default()
        };
        assert!(fleecing_of_proxmox(&proxmox).is_empty());
        let guests = folder.path().join("qemu-server");
        fs::create_dir(&guests).unwrap();
        let with = "name: web\n\n[special:fleecing]\nfleecing-images: local:100/vm-100-fleece-0.raw\n[old]\n";
        let without =
            "description: fleecing-images: x\n\n[special:fleecing]\n\n[old]\nfleecing-images: y\n";
        fs::write(guests.join("100.conf"), with).unwrap();
        fs::write(guests.join("101.conf"), without).unwrap();
        fs::write(guests.join("102.conf.tmp"), with).unwrap();
        let found = fleecing_of_proxmox(&proxmox);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.ends_with("local:100/vm-100-fleece-0.raw"));
        assert_eq!(found[0].owner.product, PROXMOX);
    }
}
