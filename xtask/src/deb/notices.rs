//! What others ask to be told wherever their code is: which crates the program is made of, their
//! licences, and their notices, each text once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::shell::{capture, cargo};

/// How the names of files with licences and notices start, in capitals.
const NAMES: &[&str] = &[
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

pub(super) fn text() -> Result<String> {
    let host = capture(std::process::Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not name its host")?;
    let metadata = capture(cargo().args([
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        host,
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut list = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in parts(&metadata)? {
        let name = format!("{} {}", word(package, "name")?, word(package, "version")?);
        let licence = word(package, "license")?;
        writeln!(list, "{name}: {licence}")?;
        let folder = Path::new(word(package, "manifest_path")?).parent();
        for text in notices(folder.context("a manifest is in a folder")?)? {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!(
        "The program has these crates in it, besides Rust's standard library (MIT or Apache-2.0,\n\
         the Rust Project Developers):\n\n{list}"
    );
    for (text, names) in &texts {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (rule, names) = ("=".repeat(72), names.join(", "));
        writeln!(all, "\n{rule}\n{names}:\n\n{text}")?;
    }
    Ok(all)
}

/// The packages of others that the program is made of, sorted.
fn parts(metadata: &Value) -> Result<Vec<&Value>> {
    let nodes = list(&metadata["resolve"]["nodes"])?;
    let packages = list(&metadata["packages"])?;
    let top = packages
        .iter()
        .find(|package| package["name"] == "snapkeep");
    let mut open = vec![
        top.map(|top| &top["id"])
            .context("there is no package snapkeep")?,
    ];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.as_str()) {
            continue;
        }
        let node = nodes
            .iter()
            .find(|node| &node["id"] == id)
            .context("a package is not resolved")?;
        for dependency in list(&node["deps"])? {
            // What only builds or tests the program is not in it.
            if list(&dependency["dep_kinds"])?
                .iter()
                .any(|kind| kind["kind"].is_null())
            {
                open.push(&dependency["pkg"]);
            }
        }
    }
    let of_others =
        |package: &&Value| seen.contains(&package["id"].as_str()) && !package["source"].is_null();
    let mut found: Vec<&Value> = packages.iter().filter(of_others).collect();
    found.sort_by_key(|package| (package["name"].as_str(), package["version"].as_str()));
    ensure!(!found.is_empty(), "cargo metadata names no dependency");
    Ok(found)
}

/// The texts in a crate's folder and in those right below it, where bundled libraries are.
fn notices(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    for item in
        fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?
    {
        let item = item?;
        if item.file_type()?.is_dir() {
            folders.push(item.path());
        }
    }
    for folder in folders {
        for item in fs::read_dir(&folder)? {
            let item = item?;
            let name = item.file_name().to_string_lossy().to_uppercase();
            if item.file_type()?.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
                let text = String::from_utf8_lossy(&fs::read(item.path())?).into_owned();
                found.push(text.replace("\r\n", "\n").trim_end().to_owned());
            }
        }
    }
    Ok(found)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo metadata lacks a list")
}

fn word<'a>(package: &'a Value, field: &str) -> Result<&'a str> {
    (package[field].as_str()).with_context(|| format!("{} has no {field}", package["name"]))
}
