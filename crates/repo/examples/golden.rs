//! What `cargo xtask golden` runs: `golden remake FOLDER` makes the golden repositories in an
//! empty folder, with what they restore to in `expected.json`.

#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to print what it did"
)]

#[path = "../tests/support/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use golden::{Fallible, hashes, load, open_with};
use snapkeep_repo::Unlock;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["remake", folder] => remake(Path::new(folder)),
        _ => Err("usage: golden remake FOLDER".into()),
    }
}

fn remake(folder: &Path) -> Fallible<()> {
    golden::make(folder)?;
    let mut expected = BTreeMap::new();
    for name in ["encrypted", "open"] {
        let unlock = match name {
            "open" => Unlock::Open,
            _ => Unlock::KeyFile(std::fs::read_to_string(folder.join("key-file"))?.parse()?),
        };
        let repository = open_with(Arc::new(load(&folder.join(name))?), &unlock)?;
        expected.insert(name, hashes(&repository)?);
    }
    let text = serde_json::to_string_pretty(&expected)? + "\n";
    std::fs::write(folder.join("expected.json"), text)?;
    println!("made the golden repositories in {}", folder.display());
    Ok(())
}
