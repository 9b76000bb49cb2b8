//! The package, from its files: a folder as dpkg-deb wants it, with fixed modes and times.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::commit::Commit;
use super::tree::{Entry, Parts, entries, folders};
use super::{architecture, control};
use crate::shell::{Scratch, capture, root};

/// Makes the package of this version in `folder`; its path.
pub(super) fn make(
    parts: &Parts,
    version: &str,
    commit: &Commit,
    folder: &Path,
) -> Result<PathBuf> {
    let architecture = architecture()?;
    let mut files = entries(root(), parts, version, commit)?;
    let depends = control::depends(&parts.program)?;
    files.extend(control::files(&files, version, &architecture, &depends)?);
    let scratch = Scratch::new("stage")?;
    stage(&files, scratch.path())?;
    fs::create_dir_all(folder)?;
    let package = folder.join(format!("snapkeep_{version}_{architecture}.deb"));
    // dpkg-deb sorts the files itself, and sets the times of those newer than the commit to it.
    capture(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"])
            .args([scratch.path(), &package])
            .env("SOURCE_DATE_EPOCH", commit.epoch.to_string()),
    )?;
    Ok(package)
}

fn stage(files: &[Entry], top: &Path) -> Result<()> {
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("could not set the mode of {}", path.display()))
    };
    mode(top, 0o755)?;
    for folder in folders(files) {
        let path = top.join(folder);
        fs::create_dir(&path)?;
        mode(&path, 0o755)?;
    }
    for file in files {
        let path = top.join(&file.path);
        fs::write(&path, &file.bytes)?;
        mode(&path, file.mode)?;
    }
    Ok(())
}
