//! The block graph of a QEMU: its nodes, and which lies on which.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::edges::Edges;
use crate::names::FILTER;
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
    pub(crate) fn query(qemu: &mut Qemu) -> Result<Self> {
        let nodes = qemu.execute("query-named-block-nodes", json!({}))?;
        let nodes: Vec<Node> = parse(nodes, "query-named-block-nodes")?;
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node));
        Ok(Self {
            nodes: nodes.collect(),
            edges: Edges::query(qemu)?,
        })
    }

    /// The node itself, or what lies under it if it is a filter of a backup.
    pub(crate) fn under_filter<'a>(&'a self, node: &'a str) -> &'a str {
        if node.starts_with(FILTER) {
            self.edges.child(node, "file").unwrap_or(node)
        } else {
            node
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
