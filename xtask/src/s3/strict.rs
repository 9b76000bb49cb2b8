//! `cargo xtask s3 strict`: what the tests do with moto, which forgives much, with Ceph's gateway, which
//! checks signatures and knows what S3 refuses; then all of a repository's life.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::Client;
use super::radosgw::Radosgw;
use crate::shell::{Scratch, build_programs, capture, cargo, run as run_command};

pub(super) fn run() -> Result<()> {
    crate::setup::for_s3()?;
    let programs = build_programs()?;
    let scratch = Scratch::new("s3-strict")?;
    let server = Radosgw::start(&scratch.path().join("server"))?;
    println!("radosgw answers on {}", server.endpoint.address);
    let packages = ["--package", "snapkeep-s3", "--package", "snapkeep"];
    run_command(
        cargo()
            .args(["test", "--locked", "--test", "s3"])
            .args(packages)
            .env("SNAPKEEP_S3_SERVER", &server.endpoint.address)
            .env("CI", "true"),
    )?;
    server.endpoint.make_bucket("life")?;
    let folder = scratch.path().join("life");
    let mut client = Client::new(programs.as_ref(), &folder, &server.endpoint, "life")?;
    let line = life(&mut client)?;
    println!("s3 strict: {line}");
    Ok(())
}

/// Backs up, forgets, prunes, verifies and restores; what to say of it.
fn life(client: &mut Client) -> Result<String> {
    let parse = |printed: String| serde_json::from_str::<Value>(&printed);
    client.write_files(0..64)?;
    let first = parse(capture(&mut client.back_up())?)?;
    let first = first["archive"].as_str().context("no archive is named")?;
    client.write_files(0..32)?;
    capture(&mut client.back_up())?;
    capture(&mut client.command(&["forget", first]))?;
    // What the first one needed alone is condemned, and deleted by the next run.
    let prune = ["prune", "--grace", "0s", "--any-grace", "--confirm"];
    let told = client.json(&prune)?;
    let condemned = &told["condemned"];
    let packs = condemned["packs"].as_u64().unwrap_or(0);
    ensure!(packs > 0, "nothing was condemned: {condemned}");
    let told = client.json(&prune)?;
    let deleted = &told["deleted"];
    let bytes = deleted["packs_bytes"].as_u64().unwrap_or(0);
    ensure!(deleted["packs"] == packs, "not all was deleted: {deleted}");
    ensure!(bytes > 30 << 20, "too little was deleted: {deleted}");
    capture(&mut client.command(&["verify"]))?;
    capture(&mut client.restore("restored"))?;
    client.compare("restored")?;
    Ok(format!(
        "two backups, forget, prune ({packs} packs, {} MiB deleted), verify, restore: all identical",
        bytes >> 20
    ))
}
