//! Ceph's gateway over one monitor, one manager and one storage daemon whose objects are in memory: a
//! real, strict server of S3 on one machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::server::{Endpoint, Process, free_port, wait_for};
use crate::shell::capture;

/// What the tests of `crates/s3` open their server with; the second is what they renew it to.
const KEYS: [(&str, &str); 2] = [("key-id", "secret-key-of-the-test"), ("renewed", "x")];

/// A running cluster.
pub(crate) struct Radosgw {
    pub(crate) endpoint: Endpoint,
    _processes: Vec<Process>,
}

impl Radosgw {
    /// Starts one in a new folder.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        for name in ["mon", "mgr", "osd", "rgw"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let id = id.trim();
        let (monitor, gateway) = (free_port()?, free_port()?);
        let address = format!("127.0.0.1:{gateway}");
        let config = folder.join("ceph.conf");
        std::fs::write(&config, configuration(folder, id, monitor, gateway))?;
        let program = |name: &str| {
            let mut command = Command::new(name);
            command.arg("--conf").arg(&config);
            command
        };
        let (keyring, map) = (folder.join("keyring"), folder.join("monmap"));
        capture(
            Command::new("ceph-authtool")
                .arg("--create-keyring")
                .arg(&keyring)
                .args(["--gen-key", "-n", "mon.", "--cap", "mon", "allow *"]),
        )?;
        let monitors = format!("[v2:127.0.0.1:{monitor}]");
        capture(
            Command::new("monmaptool")
                .args(["--create", "--addv", "a", &monitors, "--fsid", id])
                .arg(&map),
        )?;
        capture(
            program("ceph-mon")
                .args(["--mkfs", "-i", "a", "--monmap"])
                .arg(&map)
                .arg("--keyring")
                .arg(&keyring),
        )?;
        let mut processes = Vec::new();
        let mut start = |command: &Command, name: &str| -> Result<()> {
            processes.push(Process::start(command, &folder.join(name))?);
            Ok(())
        };
        start(program("ceph-mon").args(["-i", "a", "-f"]), "mon.out")?;
        start(program("ceph-mgr").args(["-i", "x", "-f"]), "mgr.out")?;
        let osd = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let osd = osd.trim();
        let timeout = ["--connect-timeout", "60"];
        capture(program("ceph").args(timeout).args(["osd", "new", osd]))
            .context("the monitor does not answer")?;
        capture(program("ceph-osd").args(["-i", "0", "--mkfs", "--osd-uuid", osd]))?;
        start(program("ceph-osd").args(["-i", "0", "-f"]), "osd.out")?;
        start(
            program("radosgw").args(["-n", "client.rgw", "-f"]),
            "rgw.out",
        )?;
        wait_for(&address, &mut processes)?;
        let create = ["user", "create", "--display-name", "snapkeep"];
        let add = ["key", "create", "--key-type", "s3"];
        for (verb, (access, secret)) in [create, add].into_iter().zip(KEYS) {
            let mut admin = program("radosgw-admin");
            admin.args(["-n", "client.admin", "--uid", "snapkeep"]);
            admin.args(verb).args(["--access-key", access]);
            capture(admin.args(["--secret-key", secret]))?;
        }
        let [(access, secret), _] = KEYS;
        Ok(Self {
            endpoint: Endpoint {
                address,
                region: "us-east-1",
                access,
                secret,
            },
            _processes: processes,
        })
    }
}

fn configuration(folder: &Path, id: &str, monitor: u16, gateway: u16) -> String {
    let folder = folder.display();
    format!(
        "[global]
fsid = {id}
mon initial members = a
mon host = v2:127.0.0.1:{monitor}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms bind ipv6 = false
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
log file = {folder}/$name.log
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
rgw data = {folder}/rgw
osd objectstore = memstore
memstore device bytes = 6442450944
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
"
    )
}
