//! The disks of a running QEMU: how each is called, and where a filter can be put into its way.

use serde::Deserialize;
use serde_json::{Value, json};
use snapkeep_api::{ArchiveName, BitmapInfo, BitmapName, DeviceName, Error, ErrorKind, Result};

use crate::edges::{Edges, Parent};
use crate::graph::{Graph, Node, parse};
use crate::limits::DISKS_MAX;
use crate::names::{self, EXPORT};
use crate::obstacles::{self, lasting};
use crate::qemu::Qemu;

/// A disk of a guest.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The block backend's name; without one the device's ID. On a storage daemon the ID of the
    /// export that the guest uses.
    pub device: DeviceName,
    /// Size in bytes.
    pub size: u64,
    /// The block node that holds the dirty bitmaps.
    pub node: String,
    /// The block driver of that node, such as `raw` or `qcow2`.
    pub driver: String,
    /// Why it is left out unless it is asked for by name, such as "it is read-only".
    pub unwanted: Option<String>,
    /// Why it cannot be backed up.
    pub obstacle: Option<Error>,
    /// Our dirty bitmaps for this device at its size, newest first.
    pub bitmaps: Vec<DiskBitmap>,
    /// Names of our dirty bitmaps that are of no use: broken, or of another size or device.
    pub(crate) useless: Vec<String>,
    pub(crate) attachment: Attachment,
    /// Whether bitmaps can be kept in the image file.
    pub(crate) persistent: bool,
}

/// A dirty bitmap of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiskBitmap {
    /// Its name in QEMU.
    pub name: BitmapName,
    /// The archive it is relative to.
    pub base: ArchiveName,
    /// Bytes that changed since.
    pub dirty: u64,
}

/// Where the guest's requests can be led through another node.
#[derive(Clone, Debug)]
pub(crate) enum Attachment {
    /// The `drive` of the device at this path, which has this block backend.
    Device { path: String, backend: String },
    /// The `file` of this `raw` node.
    Parent(Box<Node>),
}

impl Attachment {
    /// The node that the guest's requests go to; `None` if they do not come this way any more.
    pub(crate) fn top<'a>(&self, edges: &'a Edges) -> Option<&'a str> {
        match self {
            Self::Device { backend, .. } => edges.root(backend),
            Self::Parent(node) => {
                let mut users = edges.parents(&node.name);
                let used = users.any(|(user, _)| matches!(user, Parent::Backend(_)));
                used.then(|| edges.child(&node.name, "file")).flatten()
            }
        }
    }
}

impl Disk {
    /// What a provider is told of the bitmaps.
    pub(crate) fn offers(&self) -> Vec<BitmapInfo> {
        let offers = self.bitmaps.iter().map(|bitmap| BitmapInfo {
            name: bitmap.name.clone(),
            base: Some(bitmap.base.clone()),
        });
        offers.collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Backend {
    device: String,
    qdev: Option<String>,
    removable: bool,
    inserted: Option<Inserted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inserted {
    node_name: Option<String>,
    ro: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Exported {
    id: String,
    node_name: String,
    #[serde(default)]
    shutting_down: bool,
}

impl Qemu {
    /// The disks, with those that cannot be backed up.
    pub fn disks(&mut self) -> Result<Vec<Disk>> {
        let graph = Graph::query(self)?;
        let disks = if self.is_storage_daemon() {
            self.exported_disks(&graph)?
        } else {
            self.device_disks(&graph)?
        };
        if disks.len() > DISKS_MAX {
            let what = format!(
                "the guest at {} has {} disks; at most {DISKS_MAX} can be backed up together",
                self.socket().display(),
                disks.len()
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        for (number, disk) in disks.iter().enumerate() {
            if disks[..number]
                .iter()
                .any(|other| other.device == disk.device)
            {
                let what = format!(
                    "the guest at {} has two disks called {}: give one another id",
                    self.socket().display(),
                    disk.device
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        Ok(disks)
    }

    /// Disks of emulated devices.
    fn device_disks(&mut self, graph: &Graph) -> Result<Vec<Disk>> {
        let backends: Vec<Backend> = parse(self.execute("query-block", json!({}))?, "query-block")?;
        let mut disks = Vec::new();
        for backend in backends {
            let (Some(qdev), Some(inserted)) = (backend.qdev, backend.inserted) else {
                // No device uses it, or it is an empty drive.
                continue;
            };
            let Some(top) = inserted.node_name else {
                continue;
            };
            let path = device_path(&qdev);
            let (name, called) = if backend.device.is_empty() {
                (device_id(&qdev).unwrap_or(&top), &qdev)
            } else {
                (backend.device.as_str(), &backend.device)
            };
            let root = graph.edges.root(called);
            let attachment = Attachment::Device {
                path: path.clone(),
                backend: called.clone(),
            };
            let mut disk = disk(graph, name, graph.under_filter(&top), attachment)?;
            let kind = self.property(&path, "type")?;
            if backend.removable {
                disk.unwanted = Some("it is removable".to_owned());
            } else if inserted.ro {
                disk.unwanted = Some("it is read-only".to_owned());
            } else if kind.starts_with("cfi.pflash") {
                disk.unwanted = Some("it is the firmware's memory".to_owned());
            }
            disk.obstacle = if inserted.ro {
                Some(lasting("QEMU has it read-only"))
            } else if let Some(obstacle) = obstacles::passthrough(&kind) {
                Some(obstacle)
            } else {
                self.covered(graph, root, &top)?
            };
            disks.push(disk);
        }
        Ok(disks)
    }

    /// Disks that a storage daemon hands to somebody: each needs a `raw` node of its own on top,
    /// because that is where a filter can be put in.
    fn exported_disks(&mut self, graph: &Graph) -> Result<Vec<Disk>> {
        let reply = self.execute("query-block-exports", json!({}))?;
        let exports: Vec<Exported> = parse(reply, "query-block-exports")?;
        let mut disks = Vec::new();
        for export in exports {
            if export.id.starts_with(EXPORT) || export.shutting_down {
                continue;
            }
            let top = graph
                .nodes
                .get(&export.node_name)
                .cloned()
                .unwrap_or_default();
            let below = graph.edges.child(&export.node_name, "file");
            let node = graph.under_filter(below.unwrap_or(&export.node_name));
            let below_size = graph.nodes.get(node).map(|node| node.image.virtual_size);
            let users = graph.edges.parents(node).filter(|(parent, name)| {
                matches!(parent, Parent::Node(parent) if !parent.starts_with(names::FILTER))
                    && *name == "file"
            });
            let fits = top.driver == "raw"
                && below_size == Some(top.image.virtual_size)
                && users.count() <= 1;
            let read_only = top.read_only;
            let attachment = Attachment::Parent(Box::new(top));
            let node = if fits { node } else { &export.node_name };
            let mut disk = disk(graph, &export.id, node, attachment)?;
            disk.obstacle = if read_only {
                disk.unwanted = Some("it is read-only".to_owned());
                Some(lasting("QEMU has it read-only"))
            } else if let Some(job) = obstacles::job(self, &graph.edges, &export.node_name)? {
                Some(job)
            } else if !fits {
                Some(lasting(format!(
                    "node {} is no raw node, without offset, on a node of its own: export such a one",
                    export.node_name
                )))
            } else {
                None
            };
            disks.push(disk);
        }
        Ok(disks)
    }

    /// What lies on the node that `query-block` tells of: it skips the filters of block jobs.
    fn covered(&mut self, graph: &Graph, root: Option<&str>, told: &str) -> Result<Option<Error>> {
        let job = obstacles::job(self, &graph.edges, root.unwrap_or(told))?;
        if job.is_some() || root == Some(told) {
            return Ok(job);
        }
        let root = root.unwrap_or("that is not known");
        let why =
            format!("node {root} lies on its node {told}, and it is not known why: try again");
        Ok(Some(Error::new(ErrorKind::Unavailable, why)))
    }

    /// A property of a device that is text; empty if it has none.
    fn property(&mut self, path: &str, property: &str) -> Result<String> {
        let value = self.ask("qom-get", json!({"path": path, "property": property}))?;
        let text = value.as_ref().and_then(Value::as_str);
        Ok(text.unwrap_or_default().to_owned())
    }
}

/// Where a device is in QEMU's tree of objects, from what `query-block` calls it.
pub(crate) fn device_path(qdev: &str) -> String {
    if qdev.starts_with('/') {
        qdev.to_owned()
    } else {
        format!("/machine/peripheral/{qdev}")
    }
}

/// The ID of a device, from what `query-block` calls it.
fn device_id(qdev: &str) -> Option<&str> {
    if !qdev.starts_with('/') {
        return Some(qdev);
    }
    qdev.strip_prefix("/machine/peripheral/")?.split('/').next()
}

fn disk(graph: &Graph, name: &str, node: &str, attachment: Attachment) -> Result<Disk> {
    let device: DeviceName = name.parse()?;
    let found = graph.nodes.get(node).ok_or_else(|| {
        let what = format!(
            "device {device}: its disk moved to block node {node} while it was looked at: try again"
        );
        Error::new(ErrorKind::Unavailable, what)
    })?;
    let size = found.image.virtual_size;
    let (mut bitmaps, mut useless) = (Vec::new(), Vec::new());
    for bitmap in &found.dirty_bitmaps {
        if !names::is_generation(&bitmap.name) {
            continue;
        }
        let good = bitmap.recording && !bitmap.inconsistent && !bitmap.busy;
        match names::base(&bitmap.name, size, &device) {
            Some(base) if good => bitmaps.push(DiskBitmap {
                name: bitmap.name.parse()?,
                base,
                dirty: bitmap.count,
            }),
            _ if bitmap.busy => {}
            _ => useless.push(bitmap.name.clone()),
        }
    }
    // All of them record everything since they were made: the older one has what the newer has.
    bitmaps.sort_by_key(|bitmap| bitmap.dirty);
    let compatibility = found.image.format_specific["data"]["compat"].as_str();
    Ok(Disk {
        device,
        size,
        node: node.to_owned(),
        driver: found.driver.clone(),
        unwanted: None,
        obstacle: None,
        bitmaps,
        useless,
        attachment,
        persistent: found.driver == "qcow2" && compatibility != Some("0.10"),
    })
}
