//! `cargo xtask s3`: the storage in a bucket against real servers of S3, for runs that are too long for
//! every push. Each is started for the run, in a folder of its own, and ends with it.

mod client;
mod cluster;
pub(crate) mod delay;
mod garage;
mod living;
pub(crate) mod radosgw;
pub(crate) mod requests;
pub(crate) mod server;
mod strict;

use anyhow::{Result, bail};

pub(crate) fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["strict"] => strict::run(),
        ["cluster"] => cluster::run(),
        _ => bail!("the argument is `strict` or `cluster`"),
    }
}
