//! `cargo xtask tidy`: the project's own rules, which no other tool checks.
//!
//! Every check runs, so that one run names everything that is wrong. A check
//! gets what it judges as data and gives a list of findings; each has a test
//! that shows it failing.

mod contract;
mod crates;
mod documents;
mod licences;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::shell::{capture, cargo, root};

/// A tracked file: its path from the top, with `/`, and its bytes.
struct File {
    path: String,
    bytes: Vec<u8>,
}

impl File {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == extension)
    }
}

/// Rewrites the hash in docs/FORMAT.md with `--update`, then checks everything.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [] => {}
        [flag] if flag == "--update" => documents::update_format_hash(root(), &tracked_files()?)?,
        _ => bail!("the only argument is --update"),
    }
    let files = tracked_files()?;
    let members = metadata(&["--no-deps"])?;
    let packages = metadata(&[])?;
    let checks = [
        ("crate dependencies", crates::wrong_dependencies(&members)),
        ("source files", sources::wrong_shape(&files)),
        ("forbidden text", sources::forbidden_text(&files)),
        ("format hash", documents::stale_format_hash(&files)),
        (
            "links",
            documents::broken_links(&files, |path| root().join(path).exists()),
        ),
        ("proofs", contract::unproven(&files)),
        ("lock file", sources::missing_lock_file(&files)),
        ("licences", licences::refused(&packages)),
    ];
    let mut findings = 0;
    for (name, found) in &checks {
        println!(
            "tidy: {name}: {}",
            if found.is_empty() { "ok" } else { "FAILED" }
        );
        for finding in found {
            println!("  {finding}");
        }
        findings += found.len();
    }
    ensure!(findings == 0, "{findings} findings");
    Ok(())
}

fn metadata(args: &[&str]) -> Result<Value> {
    let text = capture(
        cargo()
            .args(["metadata", "--locked", "--format-version", "1"])
            .args(args),
    )?;
    serde_json::from_str(&text).context("cargo metadata did not print JSON")
}

/// The tracked files that are there, sorted by path.
fn tracked_files() -> Result<Vec<File>> {
    // A checkout may belong to somebody else than who runs the checks.
    let mut git = Command::new("git");
    let list = capture(
        git.args(["-c", "safe.directory=*", "ls-files", "-z"])
            .current_dir(root()),
    )?;
    let mut paths: Vec<&str> = list.split_terminator('\0').collect();
    paths.sort_unstable();
    let mut files = Vec::new();
    for path in paths {
        let place: PathBuf = root().join(path);
        match std::fs::read(&place) {
            Ok(bytes) => files.push(File {
                path: path.to_owned(),
                bytes,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("could not read {path}")),
        }
    }
    ensure!(!files.is_empty(), "git lists no file");
    Ok(files)
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}
