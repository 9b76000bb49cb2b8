//! Takes back what a backup made in QEMU. There is one way to do it, for success, for failure, and
//! for what a killed backup left: QEMU is asked what is there, and each thing goes in the order in
//! which QEMU lets it go. So it can be done again after it failed half-way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use crate::detach::detach;
use crate::fleecing;
use crate::graph::{Graph, Node};
use crate::leftovers;
use crate::limits::LEFTOVERS_MAX;
use crate::names::{EXPORT, FILTER, FLEECE, GUARD, PAUSED_MARK, SNAPSHOT};
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
    let lock = leftovers::claim(&folder, qemu.owner())?;
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
    close_exports(qemu, &is_ours)?;
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
    let mut stuck = None;
    for filter in graph.with_prefix(GUARD).chain(graph.with_prefix(FILTER)) {
        let gone = detach(qemu, &filter.name).and_then(|()| delete(qemu, &filter.name));
        match gone {
            // Other disks need not wait for it.
            Err(Failure::Refused(e)) => stuck = stuck.or(Some(e)),
            gone => gone?,
        }
    }
    if let Some(e) = stuck {
        return Err(Failure::Refused(e));
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
pub(crate) fn close_exports(
    qemu: &mut Qemu,
    wanted: &dyn Fn(&Value) -> bool,
) -> Result<(), Failure> {
    for id in exports(qemu, wanted)? {
        match qemu.execute("block-export-del", json!({"id": id, "mode": "hard"})) {
            // It is on its way out already.
            Ok(_) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    let deadline = qemu.clock.monotonic() + qemu.monitor.timeouts().export;
    loop {
        let left = exports(qemu, wanted)?;
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

/// The exports that a backup of ours made.
pub(crate) fn our_exports(qemu: &mut Qemu) -> Result<Vec<String>, Failure> {
    exports(qemu, &is_ours)
}

fn is_ours(export: &Value) -> bool {
    export["id"]
        .as_str()
        .is_some_and(|id| id.starts_with(EXPORT))
}

fn exports(qemu: &mut Qemu, wanted: &dyn Fn(&Value) -> bool) -> Result<Vec<String>, Failure> {
    let exports = qemu.execute("query-block-exports", json!({}))?;
    let exports = exports.as_array().into_iter().flatten().take(LEFTOVERS_MAX);
    let ids = exports
        .filter(|export| wanted(export))
        .filter_map(|export| export["id"].as_str());
    Ok(ids.map(str::to_owned).collect())
}
