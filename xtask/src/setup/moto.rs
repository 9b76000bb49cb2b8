//! The server of S3 that the tests use: moto, from the index of Python's packages, in an
//! environment of its own below the target folder. It is installed once for each version.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::python;
use crate::shell::{run, succeeds, target_folder};

/// The version; newer ones are tried before they are named here.
const VERSION: &str = "5.2.1";

/// Installs it if it is not there. Where that fails, only what needs it is skipped: on a machine
/// that must not skip, the tests fail and say so.
pub(crate) fn ensure() -> Result<()> {
    if std::env::var_os("SNAPKEEP_MOTO").is_some() {
        return Ok(());
    }
    let folder = PathBuf::from(target_folder()?).join("moto");
    // Written last: what was interrupted is made anew.
    let mark = folder.join(format!("installed-{VERSION}"));
    if mark.is_file() {
        return Ok(());
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    println!(
        "setup: installing moto {VERSION} below {}",
        folder.display()
    );
    let in_folder = folder.join("bin/python");
    let made = run(Command::new(python()).args(["-m", "venv"]).arg(&folder)).and_then(|()| {
        run(Command::new(&in_folder)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .arg(format!("moto[server]=={VERSION}")))
    });
    match made {
        Ok(()) if succeeds(Command::new(&in_folder).args(["-c", "import moto.server"])) => {
            std::fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
        }
        Ok(()) | Err(_) => {
            println!("setup: moto cannot be installed; tests of S3 will be skipped");
            Ok(())
        }
    }
}
