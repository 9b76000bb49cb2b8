//! What is in a running QEMU: what a backup of ours made there, and exports of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use snapkeep_api::{Clock, Error, ErrorKind, Result};

use super::{Finding, Owner, Proxmox, proxmox};
use crate::graph::Graph;
use crate::leftovers::{self, Found, Look};
use crate::limits::{LEFTOVERS_MAX, Timeouts};
use crate::names::{EXPORT, OURS, PAUSED_MARK, is_generation};
use crate::qemu::Qemu;
use crate::teardown::{our_exports, owner, recover};
use crate::{fleecing, process, qmp};

/// What this module finds.
const KIND: &str = "qemu";

/// A monitor of a QEMU that may run.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Its socket.
    pub socket: PathBuf,
    /// Whether it must be there. If not, a socket at which nobody listens is that of a guest that
    /// does not run, and nothing can be left in it.
    pub named: bool,
}

/// What was found in one QEMU, and the folders of backups that it was told of with it.
#[derive(Debug, Default)]
pub struct InQemu {
    /// What was found.
    pub findings: Vec<Finding>,
    /// Folders that need not be told again.
    pub folders: Vec<PathBuf>,
}

/// Looks at the QEMU behind a monitor, for [`Timeouts::doctor`] at most. The backup that has it is
/// known by its folder in one of these fleecing folders: it may hold the monitor, which serves one
/// client at a time.
pub fn qemu(
    monitor: &Monitor,
    clock: &Arc<dyn Clock>,
    fleecing: &[PathBuf],
    proxmox: &Proxmox,
) -> InQemu {
    let socket = &monitor.socket;
    if let Some(folder) = running(socket, &**clock, fleecing) {
        let (folder, process) = folder;
        return InQemu {
            findings: vec![in_use(socket, &folder, process)],
            folders: vec![folder],
        };
    }
    let found = Qemu::connect_within(socket, Arc::clone(clock), Timeouts::doctor())
        .and_then(|mut qemu| look(&mut qemu, clock, proxmox));
    found.unwrap_or_else(|e| {
        if !monitor.named && qmp::nobody_listens(&e) {
            return InQemu::default();
        }
        InQemu {
            findings: vec![Finding::unseen(KIND, socket.display(), &e)],
            folders: Vec::new(),
        }
    })
}

fn in_use(socket: &Path, folder: &Path, process: Option<u32>) -> Finding {
    let what = "what a backup that runs has made in a QEMU";
    let job = format!("backup with the folder {}", folder.display());
    let owner = Owner::ours(job).with_process(process);
    Finding::in_use(KIND, what, socket.display(), owner)
}

/// The folder and process of a backup that runs, and whose QEMU is behind this monitor.
fn running(
    socket: &Path,
    clock: &dyn Clock,
    fleecing: &[PathBuf],
) -> Option<(PathBuf, Option<u32>)> {
    let deadline = clock.monotonic() + Timeouts::doctor().greeting;
    let stream = qmp::open(socket, clock, deadline).ok()?;
    let line = process::owner(&stream).line();
    if line.is_empty() {
        return None;
    }
    let folders = fleecing.iter().filter_map(|parent| {
        let parent = parent.canonicalize().ok()?;
        leftovers::folders(&parent).ok()
    });
    folders
        .flatten()
        .find_map(|folder| match leftovers::look(&folder, Look::Only) {
            Ok(Found::Running { process, of }) if of == line => Some((folder, process)),
            _ => None,
        })
}

fn look(qemu: &mut Qemu, clock: &Arc<dyn Clock>, proxmox: &Proxmox) -> Result<InQemu> {
    let graph = Graph::query(qemu)?;
    let mut found = InQemu::default();
    if let Some(folder) = owner(&graph) {
        found.findings.push(ours(qemu, clock, &graph, &folder)?);
        found.folders.push(folder);
    }
    let access = proxmox::access(qemu, &graph)?;
    if let Some(access) = &access {
        let told = proxmox::finding(qemu.socket(), clock, proxmox, access);
        let told = told.unwrap_or_else(|e| Finding::unseen(KIND, qemu.socket().display(), &e));
        found.findings.push(told);
    }
    if !qemu.is_storage_daemon() {
        let told = access.map_or_else(Vec::new, |access| access.snapshots);
        found.findings.extend(others(qemu, &told)?);
    }
    Ok(found)
}

/// What a backup of ours made.
fn ours(qemu: &mut Qemu, clock: &Arc<dyn Clock>, graph: &Graph, folder: &Path) -> Result<Finding> {
    let cannot_tell = |e| {
        let what = format!(
            "cannot tell whether the backup that uses {} still runs; if none does, remove that folder",
            folder.display()
        );
        Error::with_source(ErrorKind::Unavailable, what, e)
    };
    let socket = qemu.socket().to_owned();
    match leftovers::look(folder, Look::Only).map_err(cannot_tell)? {
        Found::Running { process, .. } => return Ok(in_use(&socket, folder, process)),
        Found::Nothing => leftovers::check_gone(folder, qemu.owner())?,
        Found::OfQemu { .. } | Found::Left(_) => {}
    }
    let nodes = graph.with_prefix(OURS).count();
    let exports = our_exports(qemu)?.len();
    let server = if fleecing::is_served(folder)? {
        ", its NBD server"
    } else {
        ""
    };
    let (paused, stands) = if graph.nodes.contains_key(PAUSED_MARK) {
        (
            ", and the mark that it paused the guest",
            "the guest may stand still; ",
        )
    } else {
        ("", "")
    };
    let bitmaps = (graph.nodes.values())
        .filter(|node| !node.name.starts_with(OURS))
        .flat_map(|node| &node.dirty_bitmaps)
        .filter(|bitmap| is_generation(&bitmap.name))
        .count();
    let what = format!(
        "what a killed backup made in a QEMU: {nodes} block nodes, {exports} exports{server}{paused}"
    );
    let cost = format!(
        "{stands}what the guest overwrites is first copied to {}, at most as much as its disks have",
        folder.display()
    );
    let healing = format!(
        "exports, server, nodes and folder are taken back, as the guest's next backup would do; {bitmaps} dirty \
         bitmaps stay, for that backup to use"
    );
    let job = format!("backup with the folder {}", folder.display());
    let clock = Arc::clone(clock);
    let folder = folder.to_owned();
    let finding = Finding::stale(KIND, what, socket.display(), Owner::ours(job));
    let finding = finding.costs(cost).heals_by(healing);
    Ok(finding.with_remedy(move |log, _| {
        let mut qemu = Qemu::connect_within(&socket, clock, Timeouts::doctor())?;
        if !recover(&mut qemu, log)? {
            return Ok("it was gone".to_owned());
        }
        let done = format!(
            "{nodes} block nodes and {exports} exports are taken back; {bitmaps} dirty bitmaps stay"
        );
        // It was told before why it is not removed, and here again.
        match leftovers::remove(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                let what = format!("{done}; {} is not removed", folder.display());
                Err(Error::with_source(ErrorKind::Target, what, e))
            }
            Ok(()) | Err(_) => Ok(done),
        }
    }))
}

/// Exports of others, which an emulated machine has only if somebody reads or moves its disks; not
/// of nodes that were told of.
fn others(qemu: &mut Qemu, told: &[String]) -> Result<Vec<Finding>> {
    let socket = qemu.socket().to_owned();
    let exports = qemu.execute("query-block-exports", json!({}))?;
    let exports = exports.as_array().into_iter().flatten().take(LEFTOVERS_MAX);
    let foreign = exports.filter_map(|export| {
        let text = |field: &str| export[field].as_str().unwrap_or("?");
        let id = text("id");
        if id.starts_with(EXPORT) || told.iter().any(|node| node == text("node-name")) {
            return None;
        }
        let what = format!(
            "the {} export {id:?} of block node {:?}, and the server that has it",
            text("type"),
            text("node-name")
        );
        let finding = Finding::foreign("export", what, socket.display(), Owner::unknown());
        Some(finding.costs("unknown: its owner knows"))
    });
    Ok(foreign.collect())
}
