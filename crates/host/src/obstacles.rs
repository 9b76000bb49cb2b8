//! Why a disk cannot be backed up, or not now.

use serde::Deserialize;
use serde_json::json;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::edges::Edges;
use crate::graph::parse;
use crate::qemu::Qemu;

/// Types of devices whose requests go to the host's device as SCSI commands (`SG_IO`), past every
/// block node: neither filters nor dirty bitmaps see what is written.
const PASSTHROUGH: &[&str] = &["scsi-block", "scsi-generic"];
/// How the types of devices begin that have storage which no block backend shows.
const UNSEEN: &[&str] = &[
    "vhost-user-blk",
    "vhost-user-scsi",
    "vhost-scsi",
    "vhost-vdpa-device",
    "virtio-pmem",
    "nvdimm",
];
/// Where devices are, with an ID and without.
const DEVICES: &[&str] = &["/machine/peripheral", "/machine/peripheral-anon"];

#[derive(Deserialize)]
struct Property {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Job {
    /// The job's ID.
    device: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The disk can never be backed up so.
pub(crate) fn lasting(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, why)
}

/// A device of this type hides the guest's requests.
pub(crate) fn passthrough(kind: &str) -> Option<Error> {
    PASSTHROUGH.contains(&kind).then(|| {
        lasting(format!(
            "a {kind} device hands the guest's requests to the host's device, past QEMU's block layer: what it \
             writes is not seen; use scsi-hd"
        ))
    })
}

/// Devices that may have data which no backup here reads, each with its type.
pub(crate) fn unseen(qemu: &mut Qemu) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in DEVICES {
        let Some(list) = qemu.ask("qom-list", json!({"path": path}))? else {
            continue;
        };
        let list: Vec<Property> = parse(list, "qom-list")?;
        for device in list {
            if let Some(kind) = is_unseen(&device.kind) {
                found.push(format!("{path}/{} ({kind})", device.name));
            }
        }
    }
    Ok(found)
}

/// The type of an object that is a child of another, if it is one of `UNSEEN`.
fn is_unseen(property: &str) -> Option<&str> {
    let kind = property.strip_prefix("child<")?.strip_suffix('>')?;
    let mut unseen = UNSEEN.iter();
    unseen.any(|start| kind.starts_with(start)).then_some(kind)
}

/// A block job that has the node on top of a disk, or one under it. At its end it may put another
/// node in that place: what a filter is put on must not be moved away.
pub(crate) fn job(qemu: &mut Qemu, edges: &Edges, top: &str) -> Result<Option<Error>> {
    let ids = edges.jobs(top);
    let Some(id) = ids.first() else {
        return Ok(None);
    };
    let jobs = qemu.execute("query-block-jobs", json!({}))?;
    let jobs: Vec<Job> = parse(jobs, "query-block-jobs")?;
    let kind = jobs.iter().find(|job| job.device == *id);
    let kind = kind.map_or("it has ended by now", |job| &job.kind);
    let why = format!("a block job {id} ({kind}) runs on it: wait until it ends, or cancel it");
    Ok(Some(Error::new(ErrorKind::Unavailable, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passthrough_of_scsi_commands_is_told_from_disks() {
        for kind in ["scsi-block", "scsi-generic"] {
            let why = passthrough(kind).expect("it is one").chain();
            assert!(why.contains(kind), "{why}");
        }
        for kind in ["scsi-hd", "scsi-cd", "virtio-blk-device", "nvme-ns", ""] {
            assert!(passthrough(kind).is_none(), "{kind}");
        }
    }

    #[test]
    fn storage_without_a_block_backend_is_known_by_its_type() {
        assert_eq!(is_unseen("child<vhost-scsi-pci>"), Some("vhost-scsi-pci"));
        let pci = "child<vhost-user-blk-pci-non-transitional>";
        assert_eq!(is_unseen(pci), Some("vhost-user-blk-pci-non-transitional"));
        for other in [
            "child<virtio-blk-pci>",
            "string",
            "link<nvdimm>",
            "child<vhost-vsock-pci>",
        ] {
            assert_eq!(is_unseen(other), None, "{other}");
        }
    }
}
