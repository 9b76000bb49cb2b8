//! `cargo xtask s3 cluster`: three nodes of Garage, one of which dies during a backup and another
//! during a restore.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::garage::{Garage, NODES};
use super::living::Living;
use crate::shell::{Scratch, build_programs, capture};

/// Mebibytes that are backed up.
const SIZE: usize = 256;
/// A node dies after so many bytes of a run.
const DEATH: u64 = 64 << 20;

pub(super) fn run() -> Result<()> {
    crate::setup::for_s3()?;
    let program = crate::setup::garage()?;
    let programs = build_programs()?;
    let scratch = Scratch::new("s3-cluster")?;
    let mut cluster = Garage::start(program, &scratch.path().join("nodes"))?;
    cluster.make_bucket("cluster")?;
    let proxy = Living::start(cluster.addresses())?;
    let endpoint = Garage::behind(&proxy.address);
    let folder = scratch.path().join("client");
    let mut client = Client::new(programs.as_ref(), &folder, &endpoint, "cluster")?;
    client.write_files(0..SIZE)?;
    println!("{NODES} nodes answer, through {}", proxy.address);

    let said = survive(client.back_up(), &proxy, || cluster.kill(0))?;
    println!("a backup of {SIZE} MiB outlived node 0: {said}");
    capture(&mut client.restore("with-two")).context("with two nodes")?;
    client.compare("with-two")?;
    println!("with the two that are left, all is restored and identical");
    cluster.revive(0)?;
    cluster.wait_for_all()?;
    let restore = client.restore("with-another");
    let said = survive(restore, &proxy, || cluster.kill(1))?;
    println!("a restore outlived node 1: {said}");
    client.compare("with-another")?;
    cluster.revive(1)?;
    cluster.wait_for_all()?;
    // The third has never been down: what is there must not hang on it.
    cluster.kill(2)?;
    capture(&mut client.command(&["verify"])).context("without node 2")?;
    println!("s3 cluster: each of {NODES} nodes was killed, everything restored identical");
    Ok(())
}

/// Runs a command, does this when so much went through, and gives the last line of what it said.
fn survive(
    mut command: Command,
    proxy: &Living,
    mut death: impl FnMut() -> Result<()>,
) -> Result<String> {
    let before = proxy.passed();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start snapkeep")?;
    let mut child = Ended(Some(child));
    while proxy.passed() - before < DEATH {
        let status = child.get()?.try_wait()?;
        ensure!(status.is_none(), "it ended before a node was killed");
        std::thread::sleep(Duration::from_millis(10));
    }
    death()?;
    let status = child.get()?.try_wait()?;
    ensure!(status.is_none(), "it ended as the node was killed");
    let output = (child.0.take().context("it is there")?).wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "snapkeep failed: {}: {}",
        output.status,
        said.trim()
    );
    // How many requests it took.
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

/// A program that is ended when the value is dropped.
struct Ended(Option<Child>);

impl Ended {
    fn get(&mut self) -> Result<&mut Child> {
        self.0.as_mut().context("it was waited for")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
