//! Garage, a store of objects over several nodes: from crates.io, below the target folder, because
//! Debian has none.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell::{cargo, run, succeeds, target_folder};

/// The version; newer ones are tried before they are named here.
const VERSION: &str = "2.5.0";

/// The program, which is built if it is not there.
pub(crate) fn ensure() -> Result<PathBuf> {
    let folder = PathBuf::from(target_folder()?).join("garage");
    let program = folder.join("bin/garage");
    if !succeeds(Command::new(&program).arg("--version")) {
        println!("setup: building garage {VERSION}, half an hour of processor time");
        let features = "bundled-libs,lmdb,sqlite";
        run(cargo()
            .args(["install", "garage", "--version", VERSION])
            .args(["--no-default-features", "--features", features, "--root"])
            .arg(&folder))?;
    }
    let works = succeeds(Command::new(&program).arg("--version"));
    ensure!(works, "{} does not work", program.display());
    Ok(program)
}
