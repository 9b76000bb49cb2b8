//! Puts a filter into the way of each disk, from one instant on.
//!
//! Whoever else speaks to this QEMU may put another node on top of a disk meanwhile: a block job
//! that ends does, and an external snapshot. A guest that is led to a filter on the old one writes
//! where nobody looks any more. QEMU cannot compare and set, but what it puts on top of a node it
//! puts under all that lie on that node: a filter that is there already moves together with the
//! guest's device. So the filter comes first, then one look at both, and then the guest is led
//! through the filter, wherever that is by now. A last look tells whether it still is on the node
//! that was asked for its bitmaps.

use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::detach::attach;
use crate::edges::Edges;
use crate::freeze::Plan;
use crate::names::{FILTER, GUARD, PAUSED_MARK};
use crate::obstacles;
use crate::qemu::Qemu;

/// The guest runs, or will by itself.
const RUNNING: &[&str] = &["running", "suspended"];
/// The guest's disks are, or will be, another QEMU's.
const MOVING: &[&str] = &[
    "inmigrate",
    "postmigrate",
    "finish-migrate",
    "save-vm",
    "restore-vm",
    "colo",
];

/// A node that says something by being there.
fn add_mark(qemu: &mut Qemu, name: &str) -> Result<()> {
    let options = json!({"driver": "null-co", "node-name": name, "read-zeroes": true});
    qemu.execute("blockdev-add", options)?;
    Ok(())
}

fn transaction(qemu: &mut Qemu, actions: &[Value]) -> Result<()> {
    if !actions.is_empty() {
        qemu.execute("transaction", json!({"actions": actions}))?;
    }
    Ok(())
}

/// Pauses the guest, if it runs, and inserts the filters. The frozen copies of the bitmaps are
/// complete because nothing is written between.
pub(crate) fn at_once(qemu: &mut Qemu, plans: &[Plan]) -> Result<Duration> {
    let status = qemu.execute("query-status", json!({}))?;
    let status = status["status"].as_str().unwrap_or_default();
    if MOVING.contains(&status) {
        let what = format!(
            "the guest at {} is in the state {status:?}: back it up where it runs, later",
            qemu.socket().display()
        );
        return Err(Error::new(ErrorKind::Unavailable, what));
    }
    if !RUNNING.contains(&status) {
        // It stands still, but whoever stopped it may let it go on at any time.
        one_by_one(qemu, plans)?;
        return Ok(Duration::ZERO);
    }
    look(qemu, plans, 0, 0)?;
    add_mark(qemu, PAUSED_MARK)?;
    let start = qemu.clock.monotonic();
    qemu.paused = true;
    qemu.execute("stop", json!({}))?;
    let new = plans.iter().filter_map(Plan::add_new);
    let copies = (plans.iter().enumerate()).filter_map(|(number, plan)| plan.copy_old(number));
    let actions: Vec<Value> = new.chain(copies.flatten()).collect();
    transaction(qemu, &actions)?;
    insert(qemu, plans, true)?;
    let status = qemu.execute("query-status", json!({}))?;
    if status["status"] != "paused" {
        let what = format!(
            "the guest at {} was let go on by somebody else while its disks were frozen: try again",
            qemu.socket().display()
        );
        return Err(Error::new(ErrorKind::Unavailable, what));
    }
    qemu.execute("cont", json!({}))?;
    qemu.paused = false;
    let paused = qemu.clock.monotonic().saturating_sub(start);
    qemu.execute("blockdev-del", json!({"node-name": PAUSED_MARK}))?;
    Ok(paused)
}

/// Inserts the filters while the guest may write. The new bitmaps record before, and the old ones
/// are copied after, the instant of the snapshot: so both have more than is needed, never less.
pub(crate) fn one_by_one(qemu: &mut Qemu, plans: &[Plan]) -> Result<()> {
    look(qemu, plans, 0, 0)?;
    let new: Vec<Value> = plans.iter().filter_map(Plan::add_new).collect();
    transaction(qemu, &new)?;
    insert(qemu, plans, false)?;
    let copies = (plans.iter().enumerate()).filter_map(|(number, plan)| plan.copy_old(number));
    transaction(qemu, &copies.flatten().collect::<Vec<_>>())
}

/// What lies on each other in a guest's way to its disk, from below.
fn layers(number: usize, plan: &Plan) -> [String; 3] {
    [
        plan.disk.node.clone(),
        format!("{FILTER}{number}"),
        format!("{GUARD}{number}"),
    ]
}

fn insert(qemu: &mut Qemu, plans: &[Plan], with_bitmaps: bool) -> Result<()> {
    for (number, plan) in plans.iter().enumerate() {
        let made = qemu.execute("blockdev-add", plan.filter(number, with_bitmaps));
        made.map_err(|failure| plan.failed("cannot be given a filter", failure))?;
    }
    look(qemu, plans, 1, 0)?;
    lead(qemu, plans, 1)?;
    // It would not let the guest write to the node below.
    for (number, plan) in plans.iter().enumerate() {
        let made = qemu.execute("blockdev-add", Plan::guard(number));
        made.map_err(|failure| plan.failed("cannot be given a filter", failure))?;
    }
    look(qemu, plans, 2, 1)?;
    lead(qemu, plans, 2)?;
    look(qemu, plans, 2, 2)
}

/// Leads the guest to this layer of each disk.
fn lead(qemu: &mut Qemu, plans: &[Plan], layer: usize) -> Result<()> {
    for (number, plan) in plans.iter().enumerate() {
        let led = attach(qemu, &plan.disk.attachment, &layers(number, plan)[layer]);
        led.map_err(|failure| plan.failed("cannot be led through a filter", failure))?;
    }
    Ok(())
}

/// Fails unless so many of a disk's layers lie on the node below, each on the one before, and the
/// guest is led to that one of them.
fn look(qemu: &mut Qemu, plans: &[Plan], made: usize, led: usize) -> Result<()> {
    let edges = Edges::query(qemu)?;
    for (number, plan) in plans.iter().enumerate() {
        let layers = layers(number, plan);
        let top = plan.disk.attachment.top(&edges);
        let mut links = vec![(layers[led].as_str(), top)];
        links.extend((0..made).map(|i| (layers[i].as_str(), edges.child(&layers[i + 1], "file"))));
        let moved = links.iter().find(|(wanted, found)| *found != Some(*wanted));
        let Some((_, found)) = moved else {
            continue;
        };
        let device = &plan.disk.device;
        let job = obstacles::job(qemu, &edges, found.unwrap_or(&plan.disk.node))?;
        let why = job.unwrap_or_else(|| {
            let what = format!(
                "its disk moved from node {} to {} while the backup began (a block job ended, or a snapshot \
                 was taken): try again",
                plan.disk.node,
                found.unwrap_or("another")
            );
            Error::new(ErrorKind::Unavailable, what)
        });
        let what = format!("device {device} is not backed up");
        return Err(Error::with_source(why.kind(), what, why));
    }
    Ok(())
}
