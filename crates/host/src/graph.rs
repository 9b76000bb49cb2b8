//! The block graph of a QEMU: its nodes, and which lies on which.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::edges::Edges;
use crate::limits::GRAPH_LOOKS_MAX;
use crate::names::{FILTER, GUARD};
use crate::qemu::Qemu;

/// One node, as `query-named-block-nodes` describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Node {
    #[serde(rename = "node-name")]
    pub(crate) name: String,
    #[serde(rename = "drv")]
    pub(crate) driver: String,
    #[serde(rename = "ro")]
    pub(crate) read_only: bool,
    #[serde(rename = "detect_zeroes")]
    pub(crate) detect_zeroes: String,
    pub(crate) cache: Cache,
    pub(crate) image: Image,
    pub(crate) dirty_bitmaps: Vec<Bitmap>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Cache {
    pub(crate) direct: bool,
    pub(crate) no_flush: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Image {
    pub(crate) filename: String,
    pub(crate) backing_filename: Option<String>,
    pub(crate) virtual_size: u64,
    pub(crate) format_specific: Value,
}

/// A dirty bitmap of a node. One that QEMU uses itself has no name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bitmap {
    pub(crate) name: String,
    /// Dirty bytes.
    pub(crate) count: u64,
    pub(crate) recording: bool,
    pub(crate) inconsistent: bool,
    pub(crate) busy: bool,
}

/// All nodes, and how they lie on each other.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) edges: Edges,
}

impl Graph {
    /// QEMU tells nodes and edges one after the other: somebody may have added a node in between.
    pub(crate) fn query(qemu: &mut Qemu) -> Result<Self> {
        for _ in 0..GRAPH_LOOKS_MAX {
            let nodes = qemu.execute("query-named-block-nodes", json!({"flat": true}))?;
            let nodes: Vec<Node> = parse(nodes, "query-named-block-nodes")?;
            let nodes = nodes.into_iter().map(|node| (node.name.clone(), node));
            let graph = Self {
                nodes: nodes.collect(),
                edges: Edges::query(qemu)?,
            };
            let mut told = graph.edges.children();
            if told.all(|name| graph.nodes.contains_key(name)) {
                drop(told);
                return Ok(graph);
            }
        }
        let what = format!(
            "the block nodes of the QEMU at {} changed each time they were looked at: try again",
            qemu.socket().display()
        );
        Err(Error::new(ErrorKind::Unavailable, what))
    }

    /// The node itself, or what lies under it if it is a filter of a backup.
    pub(crate) fn under_filter<'a>(&'a self, node: &'a str) -> &'a str {
        let below = match self.edges.child(node, "file") {
            Some(below) if node.starts_with(GUARD) => below,
            _ => node,
        };
        match self.edges.child(below, "file") {
            Some(bottom) if below.starts_with(FILTER) => bottom,
            _ => below,
        }
    }

    /// The names of the nodes that begin so.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Node> {
        (self.nodes.values()).filter(move |node| node.name.starts_with(prefix))
    }
}

/// Understands a reply.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(reply: Value, command: &str) -> Result<T> {
    serde_json::from_value(reply).map_err(|e| {
        let what = format!("QEMU's reply to {command} cannot be read");
        Error::with_source(ErrorKind::Protocol, what, e)
    })
}
