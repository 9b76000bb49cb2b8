//! The block graph of a QEMU: which node lies on which.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::names::FILTER;
use crate::qemu::Qemu;

#[derive(Deserialize)]
struct Reply {
    nodes: Vec<Member>,
    edges: Vec<Line>,
}

#[derive(Deserialize)]
struct Member {
    id: u64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Line {
    parent: u64,
    child: u64,
    name: String,
}

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

/// An edge between two nodes, or from a block backend without a name (an empty string) to a node.
#[derive(Debug)]
struct Edge {
    parent: String,
    child: String,
    name: String,
}

/// All nodes, and how they lie on each other.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: BTreeMap<String, Node>,
    edges: Vec<Edge>,
}

impl Graph {
    pub(crate) fn query(qemu: &mut Qemu) -> Result<Self> {
        let nodes = qemu.execute("query-named-block-nodes", json!({}))?;
        let nodes: Vec<Node> = parse(nodes, "query-named-block-nodes")?;
        let graph = qemu.execute("x-debug-query-block-graph", json!({}))?;
        let graph: Reply = parse(graph, "x-debug-query-block-graph")?;
        let names: BTreeMap<u64, String> = graph
            .nodes
            .into_iter()
            .map(|member| {
                // A backend may be called as a node is.
                let is_node = member.kind == "block-driver";
                (member.id, if is_node { member.name } else { String::new() })
            })
            .collect();
        let name = |id: u64| names.get(&id).cloned().unwrap_or_default();
        let edges = graph.edges.into_iter().map(|line| Edge {
            parent: name(line.parent),
            child: name(line.child),
            name: line.name,
        });
        Ok(Self {
            nodes: nodes
                .into_iter()
                .map(|node| (node.name.clone(), node))
                .collect(),
            edges: edges.collect(),
        })
    }

    /// The node that is the `name` (such as `file`) of another.
    pub(crate) fn child(&self, parent: &str, name: &str) -> Option<&str> {
        let mut edges = self.edges.iter();
        edges
            .find(|edge| edge.parent == parent && edge.name == name)
            .map(|edge| edge.child.as_str())
    }

    /// The nodes that have this one as their `name`.
    pub(crate) fn parents(&self, child: &str, name: &str) -> Vec<&str> {
        let edges = self.edges.iter();
        edges
            .filter(|edge| edge.child == child && edge.name == name && !edge.parent.is_empty())
            .map(|edge| edge.parent.as_str())
            .collect()
    }

    /// The node itself, or what lies under it if it is a filter of a backup.
    pub(crate) fn under_filter<'a>(&'a self, node: &'a str) -> &'a str {
        if node.starts_with(FILTER) {
            self.child(node, "file").unwrap_or(node)
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
