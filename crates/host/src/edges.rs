//! What has an edge to which node: nodes, the devices' and exports' block backends, block jobs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use snapkeep_api::Result;

use crate::graph::parse;
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

/// What has an edge to a node.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Parent {
    /// A block node, by its name.
    Node(String),
    /// A block backend, by its name, else by what `query-block` calls its device. That of an export
    /// or of a job has neither.
    Backend(String),
    /// A block job, by its ID.
    Job(String),
}

#[derive(Debug)]
struct Edge {
    parent: Parent,
    child: String,
    name: String,
}

/// The edges of a block graph, all of one instant.
#[derive(Debug)]
pub(crate) struct Edges(Vec<Edge>);

impl Edges {
    pub(crate) fn query(qemu: &mut Qemu) -> Result<Self> {
        let reply = qemu.execute("x-debug-query-block-graph", json!({}))?;
        let reply: Reply = parse(reply, "x-debug-query-block-graph")?;
        Ok(reply.into())
    }

    /// The node that is the `name` (such as `file`) of another.
    pub(crate) fn child(&self, parent: &str, name: &str) -> Option<&str> {
        let is_it = |edge: &&Edge| {
            edge.name == name && matches!(&edge.parent, Parent::Node(n) if n == parent)
        };
        self.0.iter().find(is_it).map(|edge| edge.child.as_str())
    }

    /// The nodes that something has an edge to.
    pub(crate) fn children(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|edge| edge.child.as_str())
    }

    /// What has an edge to this node, and what that calls it.
    pub(crate) fn parents<'a>(
        &'a self,
        child: &'a str,
    ) -> impl Iterator<Item = (&'a Parent, &'a str)> {
        let edges = self.0.iter().filter(move |edge| edge.child == child);
        edges.map(|edge| (&edge.parent, edge.name.as_str()))
    }

    /// The node on top of what the guest of this block backend sees; `None` if there is none, or no
    /// single one.
    pub(crate) fn root(&self, backend: &str) -> Option<&str> {
        let is_it = |edge: &&Edge| matches!(&edge.parent, Parent::Backend(name) if name == backend);
        let mut roots = self.0.iter().filter(is_it);
        let root = roots.next()?;
        roots.next().is_none().then_some(root.child.as_str())
    }

    /// The block jobs that have this node, or that which lies on it.
    pub(crate) fn direct_jobs(&self, node: &str, parent: &Parent) -> BTreeSet<&str> {
        let jobs = self.0.iter().filter_map(|edge| match &edge.parent {
            Parent::Job(id) if edge.child == node => Some(id.as_str()),
            Parent::Job(id) if matches!(parent, Parent::Node(n) if *n == edge.child) => Some(id),
            Parent::Job(_) | Parent::Node(_) | Parent::Backend(_) => None,
        });
        jobs.collect()
    }

    /// The block jobs that have this node, or one under it.
    pub(crate) fn jobs(&self, top: &str) -> BTreeSet<&str> {
        let mut under = BTreeSet::new();
        let mut next = vec![top];
        while let Some(node) = next.pop() {
            if under.insert(node) {
                let edges = self.0.iter();
                let below = edges.filter(|e| matches!(&e.parent, Parent::Node(n) if n == node));
                next.extend(below.map(|edge| edge.child.as_str()));
            }
        }
        let jobs = self.0.iter().filter_map(|edge| match &edge.parent {
            Parent::Job(id) if under.contains(edge.child.as_str()) => Some(id.as_str()),
            Parent::Job(_) | Parent::Node(_) | Parent::Backend(_) => None,
        });
        jobs.collect()
    }
}

impl From<Reply> for Edges {
    fn from(reply: Reply) -> Self {
        let members: BTreeMap<u64, Member> = reply.nodes.into_iter().map(|m| (m.id, m)).collect();
        let edges = reply.edges.iter().filter_map(|line| {
            let (parent, child) = (members.get(&line.parent)?, members.get(&line.child)?);
            // Each may be called as one of another kind is.
            let parent = match parent.kind.as_str() {
                "block-driver" => Parent::Node(parent.name.clone()),
                "block-job" => Parent::Job(parent.name.clone()),
                _ => Parent::Backend(parent.name.clone()),
            };
            Some(Edge {
                parent,
                child: child.name.clone(),
                name: line.name.clone(),
            })
        });
        Self(edges.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 10.0 says when a mirror job runs on a disk whose device is called as its node is,
    /// and another device has that name too.
    fn mirrored(second: &str) -> Edges {
        let reply = json!({
            "nodes": [
                {"id": 1, "type": "block-driver", "name": "d0"},
                {"id": 2, "type": "block-driver", "name": "#block284"},
                {"id": 3, "type": "block-driver", "name": "t"},
                {"id": 4, "type": "block-backend", "name": "d0"},
                {"id": 5, "type": "block-job", "name": "d0"},
                {"id": 6, "type": "block-backend", "name": ""},
                {"id": 7, "type": "block-backend", "name": second},
            ],
            "edges": [
                {"parent": 2, "child": 1, "name": "backing", "perm": [], "shared-perm": []},
                {"parent": 5, "child": 2, "name": "main node", "perm": [], "shared-perm": []},
                {"parent": 5, "child": 1, "name": "source", "perm": [], "shared-perm": []},
                {"parent": 5, "child": 3, "name": "target", "perm": [], "shared-perm": []},
                {"parent": 4, "child": 2, "name": "root", "perm": [], "shared-perm": []},
                {"parent": 6, "child": 3, "name": "root", "perm": [], "shared-perm": []},
                {"parent": 7, "child": 3, "name": "root", "perm": [], "shared-perm": []},
            ],
        });
        serde_json::from_value::<Reply>(reply).unwrap().into()
    }

    #[test]
    fn the_root_is_the_backends_and_its_job_is_found() {
        let edges = mirrored("d1");
        assert_eq!(edges.root("d0"), Some("#block284"));
        assert_eq!(edges.root("d1"), Some("t"));
        assert_eq!(edges.root("d2"), None);
        assert_eq!(edges.child("#block284", "backing"), Some("d0"));
        assert_eq!(edges.child("d0", "root"), None);
        for node in ["#block284", "d0", "t"] {
            assert!(edges.jobs(node).contains("d0"), "{node}");
        }
        assert!(edges.jobs("elsewhere").is_empty());
        assert_eq!(mirrored("d0").root("d0"), None, "two of one name");
    }
}
