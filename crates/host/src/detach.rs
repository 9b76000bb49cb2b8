//! Leads whatever lies on a filter past it again, so that the filter can go.
//!
//! That is the guest's device or export; and if somebody else took an external snapshot meanwhile,
//! an overlay, whose backing file the filter became.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::disks::{Attachment, device_path};
use crate::edges::{Edges, Parent};
use crate::graph::{Graph, Node};
use crate::limits::{DETACH_REFUSALS_MAX, ON_FILTER_MAX};
use crate::names::{DETACH_JOB, GUARD, SNAPSHOT};
use crate::qemu::Qemu;
use crate::qmp::Failure;

/// An event is waited for so long before QEMU is asked again.
const LOOK: Duration = Duration::from_millis(500);

/// Leads everything past this filter.
///
/// A job that lies on it makes this fail: the guest must not be led past that job. So does QEMU
/// itself if something is laid on the filter between the look and the command that follows, because
/// a filter with something on it lets nobody else write to the node below. The node below may still
/// be another one by then, and so it is looked at again.
pub(crate) fn detach(qemu: &mut Qemu, filter: &str) -> Result<(), Failure> {
    // Not after the look, which is to be right before what follows from it.
    let devices = devices(qemu)?;
    let mut led = None;
    let mut refusals = 0;
    for _ in 0..ON_FILTER_MAX {
        let graph = Graph::query(qemu).map_err(Failure::Unknown)?;
        match step(qemu, &graph, &devices, filter, &mut led) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // Somebody may have laid something on it since the look.
            Err(Failure::Refused(_)) if refusals < DETACH_REFUSALS_MAX => refusals += 1,
            Err(failure) => return Err(failure),
        }
    }
    Err(refused(format!(
        "more than {ON_FILTER_MAX} things lie on the filter {filter}"
    )))
}

/// A place from which the guest was led to a node.
type Led = Option<(Attachment, String)>;

/// Leads one thing past the filter. Whether there was none.
fn step(
    qemu: &mut Qemu,
    graph: &Graph,
    devices: &BTreeMap<String, String>,
    filter: &str,
    led: &mut Led,
) -> Result<bool, Failure> {
    let Some(node) = graph.edges.child(filter, "file") else {
        return Ok(true);
    };
    if let Some((place, to)) = led
        && *to != node
        && place.top(&graph.edges) == Some(to)
    {
        attach(qemu, place, node)?;
        node.clone_into(to);
        return Ok(false);
    }
    let Some((parent, name)) = on(&graph.edges, filter) else {
        return Ok(true);
    };
    if let Some(id) = graph.edges.direct_jobs(filter, parent).first() {
        let what = format!(
            "a block job {id} runs on a disk with the filter {filter}: wait until it ends, or cancel it"
        );
        return Err(refused(what));
    }
    let place = match parent {
        Parent::Backend(called) => devices.get(called).map(|path| Attachment::Device {
            path: path.clone(),
            backend: called.clone(),
        }),
        Parent::Node(overlay) if name == "backing" => {
            rebase(qemu, graph, overlay, filter)?;
            return Ok(false);
        }
        Parent::Node(top) if name == "file" => {
            let raw = graph.nodes.get(top).filter(|node| node.driver == "raw");
            raw.map(|node| Attachment::Parent(Box::new(node.clone())))
        }
        Parent::Node(_) | Parent::Job(_) => None,
    };
    let Some(place) = place else {
        return Err(refused(stuck(graph, parent, filter)));
    };
    attach(qemu, &place, node)?;
    *led = Some((place, node.to_owned()));
    Ok(false)
}

fn refused(what: String) -> Failure {
    Failure::Refused(Error::new(ErrorKind::Unavailable, what))
}

/// What lies on a filter and is none of the backup's own nodes.
fn on<'a>(edges: &'a Edges, filter: &'a str) -> Option<(&'a Parent, &'a str)> {
    edges.parents(filter).find(|(parent, _)| match parent {
        Parent::Node(node) => !node.starts_with(SNAPSHOT) && !node.starts_with(GUARD),
        Parent::Backend(_) | Parent::Job(_) => true,
    })
}

/// Where each device is, by what its block backend is called.
fn devices(qemu: &mut Qemu) -> Result<BTreeMap<String, String>, Failure> {
    if qemu.is_storage_daemon() {
        return Ok(BTreeMap::new());
    }
    let backends = qemu.execute("query-block", json!({}))?;
    let backends = backends.as_array().into_iter().flatten();
    let devices = backends.filter_map(|backend| {
        let qdev = backend["qdev"].as_str()?;
        let called = backend["device"].as_str().filter(|name| !name.is_empty());
        Some((called.unwrap_or(qdev).to_owned(), device_path(qdev)))
    });
    Ok(devices.collect())
}

/// Gives an overlay the node below our filters as its backing file. A stream job does that, and
/// keeps what the overlay's options are; nothing has to be copied. The overlay's header tells the
/// backing file too.
fn rebase(qemu: &mut Qemu, graph: &Graph, overlay: &str, filter: &str) -> Result<(), Failure> {
    let base = graph.under_filter(filter);
    let mut options = json!({"job-id": DETACH_JOB, "device": overlay, "base-node": base});
    let named = graph
        .nodes
        .get(overlay)
        .and_then(|node| node.image.backing_filename.as_deref());
    if let Some(named) = named {
        options["backing-file"] = json!(named);
    }
    let failed = |e: Error| {
        let what = stuck(graph, &Parent::Node(overlay.to_owned()), filter);
        Failure::Refused(Error::with_source(ErrorKind::Unavailable, what, e))
    };
    match qemu.execute("block-stream", options) {
        Ok(_) => {}
        Err(Failure::Refused(e)) => return Err(failed(e)),
        Err(failure) => return Err(failure),
    }
    let deadline = qemu.clock.monotonic() + qemu.monitor.timeouts().drain;
    loop {
        let ended = qemu
            .monitor
            .wait_for(LOOK, |event| {
                event.name == "BLOCK_JOB_COMPLETED" && event.data["device"] == DETACH_JOB
            })
            .map_err(Failure::Unknown)?;
        let jobs = qemu.execute("query-block-jobs", json!({}))?;
        let mut jobs = jobs.as_array().into_iter().flatten();
        if ended || jobs.all(|job| job["device"] != DETACH_JOB) {
            break;
        }
        if qemu.clock.monotonic() >= deadline {
            let what = format!("the block job {DETACH_JOB} does not end");
            return Err(failed(Error::new(ErrorKind::Unavailable, what)));
        }
    }
    let edges = Edges::query(qemu).map_err(Failure::Unknown)?;
    if edges.child(overlay, "backing") == Some(filter) {
        let what = format!("the block job {DETACH_JOB} failed");
        return Err(failed(Error::new(ErrorKind::Source, what)));
    }
    Ok(())
}

fn stuck(graph: &Graph, parent: &Parent, filter: &str) -> String {
    let Parent::Node(node) = parent else {
        return format!(
            "an export, or something else that is no device, uses the filter {filter}: end it"
        );
    };
    let image = graph
        .nodes
        .get(node)
        .map_or("", |node| &node.image.filename);
    format!(
        "node {node} ({image}), which somebody else made, lies on the filter {filter}, and cannot be led past \
         it: commit it (block-commit) or remove it"
    )
}

/// Leads the guest's requests to this node, to which they must not go already: QEMU 10.0 ends with
/// a failed assertion when a device is given the node that it has.
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
