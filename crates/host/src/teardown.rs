//! Takes back what a backup made in QEMU. There is one way to do it, for success, for failure, and
//! for what a killed backup left: QEMU is asked what is there, and each thing goes in the order in
//! which QEMU lets it go. So it can be done again after it failed half-way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use crate::disks::Attachment;
use crate::edges::Parent;
use crate::fleecing;
use crate::graph::{Graph, Node};
use crate::leftovers;
use crate::limits::LEFTOVERS_MAX;
use crate::names::{EXPORT, FILTER, FLEECE, PAUSED_MARK, SNAPSHOT};
use crate::qemu::Qemu;
use crate::qmp::Failure;
use crate::silence::Silence;

/// An event is waited for so long before QEMU is asked again.
const LOOK: Duration = Duration::from_millis(500);

/// Takes back what a killed backup left in QEMU. Whether there was anything.
///
/// Fails with `Unavailable` if the backup is not dead but running. Dirty bitmaps stay: which of
/// them are of use is the provider's to say.
pub fn recover(qemu: &mut Qemu, log: &dyn TaskLog) -> Result<bool> {
    let graph = Graph::query(qemu)?;
    let Some(folder) = owner(&graph) else {
        return Ok(false);
    };
    let lock = leftovers::claim(&folder)?;
    let line = format!(
        "the guest at {} still has what a backup left that was killed: it is taken back",
        qemu.socket().display()
    );
    log.log(Level::Warn, &line);
    clear(qemu, &folder, log)?;
    match leftovers::remove(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let line = format!("cannot remove {}: {e}; remove it", folder.display());
            log.log(Level::Warn, &line);
        }
        Ok(()) | Err(_) => {}
    }
    drop(lock);
    Ok(true)
}

/// The folder of the backup that has nodes in QEMU.
pub(crate) fn owner(graph: &Graph) -> Option<PathBuf> {
    let fleece = graph.with_prefix(FLEECE).next()?;
    let file = graph.edges.child(&fleece.name, "file");
    let file = file
        .and_then(|file| graph.nodes.get(file))
        .unwrap_or(fleece);
    Path::new(&file.image.filename).parent().map(Path::to_owned)
}

/// Takes everything back that the backup with this folder made in QEMU, except dirty bitmaps. If
/// QEMU falls silent it is asked again, for a long time.
pub(crate) fn clear(qemu: &mut Qemu, folder: &Path, log: &dyn TaskLog) -> Result<()> {
    let mut silence = Silence::new(log);
    loop {
        match try_clear(qemu, folder) {
            Err(Failure::Unknown(e)) => silence.outlast(qemu, e)?,
            done => return done.map_err(Error::from),
        }
    }
}

fn try_clear(qemu: &mut Qemu, folder: &Path) -> Result<(), Failure> {
    let graph = Graph::query(qemu).map_err(Failure::Unknown)?;
    if owner(&graph).as_deref() != Some(folder) {
        // Nothing of it is there; what is there is another backup's.
        qemu.paused = false;
        return Ok(());
    }
    qemu.paused = graph.nodes.contains_key(PAUSED_MARK);
    if qemu.paused {
        let status = qemu.execute("query-status", json!({}))?;
        if status["status"] == "paused" {
            qemu.execute("cont", json!({}))?;
        }
        qemu.paused = false;
        delete(qemu, PAUSED_MARK)?;
    }
    close_exports(qemu)?;
    // QEMU has one server at most. A node that says whose it is would be made before it starts or
    // after, and be wrong if this program were killed in between.
    if fleecing::is_served(folder).map_err(Failure::Refused)?
        && let Err(Failure::Unknown(e)) = qemu.execute("nbd-server-stop", json!({}))
    {
        return Err(Failure::Unknown(e));
    }
    for node in graph.with_prefix(SNAPSHOT) {
        delete(qemu, &node.name)?;
    }
    for filter in graph.with_prefix(FILTER) {
        detach(qemu, &graph, &filter.name)?;
        delete(qemu, &filter.name)?;
    }
    // The last, because they say whose everything is.
    let mut fleeces: Vec<&Node> = graph.with_prefix(FLEECE).collect();
    fleeces.reverse();
    for fleece in fleeces {
        delete(qemu, &fleece.name)?;
    }
    Ok(())
}

fn delete(qemu: &mut Qemu, node: &str) -> Result<(), Failure> {
    qemu.execute("blockdev-del", json!({"node-name": node}))
        .map(drop)
}

/// Closes the exports, and waits until nobody uses them: QEMU would stand still if the server were
/// stopped before.
fn close_exports(qemu: &mut Qemu) -> Result<(), Failure> {
    for id in our_exports(qemu)? {
        match qemu.execute("block-export-del", json!({"id": id, "mode": "hard"})) {
            // It is on its way out already.
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    let deadline = qemu.clock.monotonic() + qemu.monitor.timeouts().export;
    loop {
        let left = our_exports(qemu)?;
        let Some(id) = left.first() else {
            return Ok(());
        };
        let limit = deadline.saturating_sub(qemu.clock.monotonic());
        if limit.is_zero() {
            let what = format!(
                "export {id} does not close: an NBD client holds it; end that client, and repeat the recovery"
            );
            return Err(Failure::Refused(Error::new(ErrorKind::Unavailable, what)));
        }
        (qemu.monitor)
            .wait_for(limit.min(LOOK), |event| {
                event.name == "BLOCK_EXPORT_DELETED" && event.data["id"] == id.as_str()
            })
            .map_err(Failure::Unknown)?;
    }
}

fn our_exports(qemu: &mut Qemu) -> Result<Vec<String>, Failure> {
    let exports = qemu.execute("query-block-exports", json!({}))?;
    let exports = exports.as_array().into_iter().flatten().take(LEFTOVERS_MAX);
    let ids = exports.filter_map(|export| export["id"].as_str());
    Ok(ids
        .filter(|id| id.starts_with(EXPORT))
        .map(str::to_owned)
        .collect())
}

/// Leads the guest's requests past a filter again.
fn detach(qemu: &mut Qemu, graph: &Graph, filter: &str) -> Result<(), Failure> {
    let Some(node) = graph.edges.child(filter, "file") else {
        return Ok(());
    };
    for (parent, name) in graph.edges.parents(filter) {
        let Parent::Node(parent) = parent else {
            continue;
        };
        if parent.starts_with(SNAPSHOT) || name != "file" {
            continue;
        }
        let parent = graph.nodes.get(parent).cloned().unwrap_or_default();
        attach(qemu, &Attachment::Parent(Box::new(parent)), node)?;
    }
    if qemu.is_storage_daemon() {
        return Ok(());
    }
    let backends = qemu.execute("query-block", json!({}))?;
    for backend in backends.as_array().into_iter().flatten() {
        if backend["inserted"]["node-name"] == filter
            && let Some(qdev) = backend["qdev"].as_str()
        {
            let path = crate::disks::device_path(qdev);
            set_drive(qemu, &path, node)?;
        }
    }
    Ok(())
}

/// Leads the guest's requests to this node.
pub(crate) fn attach(qemu: &mut Qemu, place: &Attachment, node: &str) -> Result<(), Failure> {
    match place {
        Attachment::Device { path, .. } => set_drive(qemu, path, node),
        Attachment::Parent(top) => {
            let options = json!({"options": [reopen_options(top, node)]});
            qemu.execute("blockdev-reopen", options).map(drop)
        }
    }
}

fn set_drive(qemu: &mut Qemu, device: &str, node: &str) -> Result<(), Failure> {
    let set = json!({"path": device, "property": "drive", "value": node});
    qemu.execute("qom-set", set).map(drop)
}

/// Every option that is left out would go back to its default. QEMU does not tell the node's own
/// `discard`: with `unmap` the node below decides.
fn reopen_options(top: &Node, node: &str) -> Value {
    let detect_zeroes = match top.detect_zeroes.as_str() {
        "" => "off",
        other => other,
    };
    json!({
        "driver": "raw",
        "node-name": top.name,
        "read-only": top.read_only,
        "cache": {"direct": top.cache.direct, "no-flush": top.cache.no_flush},
        "detect-zeroes": detect_zeroes,
        "discard": "unmap",
        "file": node,
    })
}
