//! Three nodes of Garage on one machine: a store of objects over a cluster, of which nodes may die.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::server::{Endpoint, Process, free_port, wait_for, wait_until};
use crate::shell::capture;

/// Each object is on all of them.
pub(crate) const NODES: usize = 3;
const ACCESS: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What the nodes know each other by.
const CLUSTER: &str = "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789";

struct Node {
    folder: PathBuf,
    address: String,
    process: Option<Process>,
}

/// A running cluster.
pub(crate) struct Garage {
    program: PathBuf,
    nodes: Vec<Node>,
}

impl Garage {
    /// Starts one in a new folder.
    pub(crate) fn start(program: PathBuf, folder: &Path) -> Result<Self> {
        let mut cluster = Self {
            program,
            nodes: Vec::new(),
        };
        let mut peers = Vec::new();
        for number in 0..NODES {
            let folder = folder.join(format!("node-{number}"));
            std::fs::create_dir_all(&folder)?;
            let (rpc, api) = (free_port()?, free_port()?);
            std::fs::write(folder.join("garage.toml"), configuration(&folder, rpc, api))?;
            cluster.nodes.push(Node {
                folder,
                address: format!("127.0.0.1:{api}"),
                process: None,
            });
            cluster.revive(number)?;
            let id = cluster.ask(number, &["node", "id", "--quiet"])?;
            peers.push(id.trim().to_owned());
        }
        for peer in &peers[1..] {
            cluster.ask(0, &["node", "connect", peer])?;
        }
        for peer in &peers {
            let (id, _) = peer.split_once('@').context("garage names no node")?;
            cluster.ask(0, &["layout", "assign", "-z", "here", "-c", "8G", id])?;
        }
        cluster.ask(0, &["layout", "apply", "--version", "1"])?;
        cluster.ask(
            0,
            &["key", "import", "--yes", "-n", "snapkeep", ACCESS, SECRET],
        )?;
        cluster.wait_for_all()?;
        Ok(cluster)
    }

    /// One command to a node.
    fn ask(&self, number: usize, args: &[&str]) -> Result<String> {
        let config = self.nodes[number].folder.join("garage.toml");
        capture(Command::new(&self.program).arg("-c").arg(config).args(args))
    }

    /// Makes a bucket that the key may use.
    pub(crate) fn make_bucket(&self, name: &str) -> Result<()> {
        self.ask(0, &["bucket", "create", name])?;
        let allow = ["bucket", "allow", "--read", "--write", "--owner", name];
        self.ask(0, &[&allow[..], &["--key", ACCESS]].concat())?;
        Ok(())
    }

    /// Where the nodes answer.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// The cluster behind a proxy on this address.
    pub(crate) fn behind(address: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            region: "garage",
            access: ACCESS,
            secret: SECRET,
        }
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, number: usize) -> Result<()> {
        let was = self.nodes[number].process.take();
        ensure!(was.is_some(), "node {number} is dead already");
        Ok(())
    }

    /// Starts a node, or starts it again.
    pub(crate) fn revive(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(node.folder.join("garage.toml"));
        command.arg("server");
        let mut started = [Process::start(&command, &node.folder.join("log"))?];
        wait_for(&node.address, &mut started)?;
        let [process] = started;
        node.process = Some(process);
        Ok(())
    }

    /// Waits until each node sees all.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        for number in 0..NODES {
            wait_until("all nodes of the cluster", &mut [], || {
                let status = self.ask(number, &["status"]).unwrap_or_default();
                let (healthy, failed) = status.split_once("FAILED").unwrap_or((&status, ""));
                failed.is_empty() && healthy.matches("127.0.0.1:").count() == NODES
            })?;
        }
        Ok(())
    }
}

fn configuration(folder: &Path, rpc: u16, api: u16) -> String {
    let folder = folder.display();
    format!(
        "metadata_dir = \"{folder}/meta\"
data_dir = \"{folder}/data\"
db_engine = \"sqlite\"
replication_factor = 3
rpc_bind_addr = \"127.0.0.1:{rpc}\"
rpc_public_addr = \"127.0.0.1:{rpc}\"
rpc_secret = \"{CLUSTER}\"
[s3_api]
s3_region = \"garage\"
api_bind_addr = \"127.0.0.1:{api}\"
root_domain = \".s3.localhost\"
"
    )
}
