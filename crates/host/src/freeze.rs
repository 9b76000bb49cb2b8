//! Freezes the disks of a guest for a backup, and offers them over NBD.
//!
//! From the instant on that a disk has its filter, old data goes to the fleecing image before the
//! guest overwrites it. With a guest that can be paused all its disks get theirs at one instant;
//! behind a storage daemon nothing can be paused, and each disk has an instant of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::{BitmapMode, BitmapName, Error, ErrorKind, Result};

use crate::disks::Disk;
use crate::fleecing::Folder;
use crate::insert;
use crate::limits::{BITMAP_GRANULARITY, FLEECING_TIMEOUT_SECONDS, NBD_CONNECTIONS_MAX};
use crate::names::{EXPORT, FILTER, FLEECE, GUARD, NOTHING, SNAPSHOT};
use crate::qemu::Qemu;
use crate::qmp::Failure;

/// What is to be done with a disk.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) disk: Disk,
    /// The bitmap whose dirty regions are read; none is the whole disk.
    pub(crate) old: Option<BitmapName>,
    /// The bitmap that records from now on.
    pub(crate) new: Option<BitmapName>,
}

impl Plan {
    pub(crate) fn mode(&self) -> BitmapMode {
        match (&self.old, &self.new) {
            (Some(_), _) => BitmapMode::Reuse,
            (None, Some(_)) => BitmapMode::New,
            (None, None) => BitmapMode::None,
        }
    }

    pub(crate) fn add_new(&self) -> Option<Value> {
        let new = self.new.as_ref()?;
        Some(json!({"type": "block-dirty-bitmap-add", "data": {
            "node": self.disk.node,
            "name": new.as_str(),
            "granularity": BITMAP_GRANULARITY,
            "persistent": self.disk.persistent,
        }}))
    }

    /// The frozen copy lies on the fleecing node, so that it can have the old bitmap's own name,
    /// and goes with that node.
    pub(crate) fn copy_old(&self, number: usize) -> Option<[Value; 2]> {
        let old = self.old.as_ref()?;
        let fleece = format!("{FLEECE}{number}");
        let add = json!({"type": "block-dirty-bitmap-add", "data": {
            "node": fleece,
            "name": old.as_str(),
            "granularity": BITMAP_GRANULARITY,
            "disabled": true,
        }});
        let merge = json!({"type": "block-dirty-bitmap-merge", "data": {
            "node": fleece,
            "target": old.as_str(),
            "bitmaps": [{"node": self.disk.node, "name": old.as_str()}],
        }});
        Some([add, merge])
    }

    /// An error that names the device.
    pub(crate) fn failed(&self, how: &str, failure: Failure) -> Error {
        let why = Error::from(failure);
        let what = format!("device {} {how}", self.disk.device);
        Error::with_source(why.kind(), what, why)
    }

    /// A filter above the filter, which copies nothing. Others, such as a block job or a backup of
    /// another program, put their nodes on top of a disk; if that were the filter itself, the
    /// snapshot, which lies on it too, would then be read through theirs, and be of their instant.
    pub(crate) fn guard(number: usize) -> Value {
        json!({
            "driver": "copy-before-write",
            "node-name": format!("{GUARD}{number}"),
            "file": format!("{FILTER}{number}"),
            "target": format!("{FLEECE}{number}"),
            "bitmap": {"node": format!("{FLEECE}{number}"), "name": NOTHING},
            "discard": "unmap",
        })
    }

    pub(crate) fn filter(&self, number: usize, with_bitmap: bool) -> Value {
        let mut options = json!({
            "driver": "copy-before-write",
            "node-name": format!("{FILTER}{number}"),
            "file": self.disk.node,
            "target": format!("{FLEECE}{number}"),
            "on-cbw-error": "break-snapshot",
            "cbw-timeout": FLEECING_TIMEOUT_SECONDS,
            "discard": "unmap",
        });
        if let (true, Some(old)) = (with_bitmap, &self.old) {
            options["bitmap"] = json!({"node": format!("{FLEECE}{number}"), "name": old.as_str()});
        }
        options
    }
}

/// The frozen disks.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Where their exports are, each named after its device.
    pub(crate) socket: PathBuf,
    /// How long the guest stood still.
    pub(crate) paused: Duration,
}

/// Freezes the disks and exports them. After an error some of it may be there.
pub(crate) fn freeze(qemu: &mut Qemu, folder: &Folder, plans: &[Plan]) -> Result<Frozen> {
    for (number, plan) in plans.iter().enumerate() {
        add_fleece(qemu, folder, number, plan)?;
    }
    let paused = if qemu.is_storage_daemon() {
        insert::one_by_one(qemu, plans)?;
        Duration::ZERO
    } else {
        insert::at_once(qemu, plans)?
    };
    for number in 0..plans.len() {
        let options = json!({
            "driver": "snapshot-access",
            "node-name": format!("{SNAPSHOT}{number}"),
            "file": format!("{FILTER}{number}"),
            "discard": "unmap",
        });
        qemu.execute("blockdev-add", options)?;
    }
    let socket = serve(qemu, folder)?;
    for (number, plan) in plans.iter().enumerate() {
        let mut options = json!({
            "type": "nbd",
            "id": format!("{EXPORT}{number}"),
            "node-name": format!("{SNAPSHOT}{number}"),
            "name": plan.disk.device.as_str(),
            // Discards need it; QEMU refuses to write to a snapshot.
            "writable": true,
        });
        if let Some(old) = &plan.old {
            options["bitmaps"] =
                json!([{"node": format!("{FLEECE}{number}"), "name": old.as_str()}]);
        }
        qemu.execute("block-export-add", options)?;
    }
    Ok(Frozen { socket, paused })
}

fn add_fleece(qemu: &mut Qemu, folder: &Folder, number: usize, plan: &Plan) -> Result<()> {
    let image = folder.image(number, plan.disk.size, qemu.owner().user)?;
    let options = json!({
        "driver": "raw",
        "node-name": format!("{FLEECE}{number}"),
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": &image,
            "discard": "unmap",
            "cache": {"direct": false, "no-flush": true},
        },
    });
    match qemu.execute("blockdev-add", options) {
        Ok(_) => {}
        Err(Failure::Refused(e)) => {
            let user = qemu.owner().user.map_or(String::new(), |(user, _)| {
                format!(" as user {user}, which it seems to be")
            });
            let what = format!(
                "device {}: QEMU must be able to open the fleecing image {}{user}",
                plan.disk.device,
                image.display()
            );
            return Err(Error::with_source(ErrorKind::Target, what, e));
        }
        Err(failure) => return Err(failure.into()),
    }
    let nothing = json!({
        "node": format!("{FLEECE}{number}"),
        "name": NOTHING,
        "granularity": BITMAP_GRANULARITY,
        "disabled": true,
    });
    qemu.execute("block-dirty-bitmap-add", nothing)?;
    Ok(())
}

/// Starts the NBD server, unless the caller knows of one that runs.
fn serve(qemu: &mut Qemu, folder: &Folder) -> Result<PathBuf> {
    if let Some(socket) = qemu.nbd_socket() {
        return Ok(socket.to_owned());
    }
    let socket = folder.socket();
    let options = json!({
        "addr": {"type": "unix", "data": {"path": socket}},
        "max-connections": NBD_CONNECTIONS_MAX,
    });
    match qemu.execute("nbd-server-start", options) {
        Ok(_) => Ok(socket),
        Err(Failure::Refused(e)) => {
            let what = format!(
                "cannot start the NBD server of the QEMU at {}: if it has one already, name its socket",
                qemu.socket().display()
            );
            Err(Error::with_source(ErrorKind::Source, what, e))
        }
        Err(failure) => Err(failure.into()),
    }
}
