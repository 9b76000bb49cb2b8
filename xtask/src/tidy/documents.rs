//! Documents: links that lead somewhere, and docs/FORMAT.md read again whenever
//! the code of the format changes.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::File;

const FORMAT: &str = "docs/FORMAT.md";
const FORMAT_CODE: &str = "crates/repo/src/format/";
const HASH: &str = "format-source-hash: ";

/// Says so when the document's hash is not that of the code. Nothing to compare
/// while there is no document.
pub(super) fn stale_format_hash(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == FORMAT) else {
        return Vec::new();
    };
    let Some(expected) = format_hash(files) else {
        return vec![format!(
            "{FORMAT} describes {FORMAT_CODE}, which is not there"
        )];
    };
    let text = document.text();
    let Some(hash) = text.lines().find_map(|line| line.strip_prefix(HASH)) else {
        return vec![format!("{FORMAT} has no line `{HASH}<hex>`")];
    };
    if hash.trim() == expected {
        return Vec::new();
    }
    vec![format!(
        "{FORMAT} was written for other code: read it again, then run `cargo xtask tidy --update`"
    )]
}

/// Writes the hash of the code into the document.
pub(super) fn update_format_hash(root: &Path, files: &[File]) -> Result<()> {
    let document = files
        .iter()
        .find(|file| file.path == FORMAT)
        .with_context(|| format!("{FORMAT} is not tracked"))?;
    let hash = format_hash(files).with_context(|| format!("{FORMAT_CODE} has no tracked file"))?;
    let text = document.text();
    let Some(line) = text.lines().find(|line| line.starts_with(HASH)) else {
        bail!("{FORMAT} has no line `{HASH}<hex>`");
    };
    let updated = text.replacen(line, &format!("{HASH}{hash}"), 1);
    std::fs::write(root.join(FORMAT), updated).with_context(|| format!("could not write {FORMAT}"))
}

/// FNV-1a 64 over path and content of each file of the format's code, each ended
/// by a NUL; None without such a file. `files` are sorted by path.
fn format_hash(files: &[File]) -> Option<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut any = false;
    for file in files
        .iter()
        .filter(|file| file.path.starts_with(FORMAT_CODE))
    {
        any = true;
        for byte in file
            .path
            .bytes()
            .chain([0])
            .chain(file.bytes.iter().copied())
            .chain([0])
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    any.then(|| format!("{hash:016x}"))
}

/// Relative links of Markdown files that leave the project, or for whose target
/// `exists` says no.
pub(super) fn broken_links(files: &[File], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        let mut in_block = false;
        for (number, line) in (1..).zip(file.text().lines()) {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            } else if !in_block {
                for link in links(line) {
                    let target = link.split('#').next().unwrap_or_default();
                    let elsewhere = link.contains("://") || link.starts_with("mailto:");
                    if elsewhere || target.is_empty() {
                        continue;
                    }
                    if !inside(folder, target).is_some_and(|path| exists(&path)) {
                        found.push(format!("{}:{number}: {link} does not exist", file.path));
                    }
                }
            }
        }
    }
    found
}

/// The place in the project that `target` in a file of `folder` means.
fn inside(folder: &Path, target: &str) -> Option<PathBuf> {
    let mut place = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(place)
}

/// The targets of `[text](target)` and `[name]: target` outside of code.
fn links(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect();
    let mut targets: Vec<&str> = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    if prose.starts_with('[')
        && let Some((_, target)) = prose.split_once("]: ")
    {
        targets.push(target);
    }
    // What follows a blank is a title.
    targets
        .iter()
        .filter_map(|target| target.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::{FORMAT, FORMAT_CODE, HASH, broken_links, format_hash, stale_format_hash};

    #[test]
    fn a_link_to_nothing_is_found() {
        let text = "[a](a.md) [b](b.md#x \"t\")\n[c]: c.md\n`[d](d.md)` [e](https://e) [f](#f)\n";
        let found = broken_links(&[file("docs/x.md", text)], |path| {
            path.ends_with("docs/a.md")
        });
        assert_eq!(
            found,
            [
                "docs/x.md:1: b.md#x does not exist",
                "docs/x.md:2: c.md does not exist"
            ]
        );
    }

    #[test]
    fn a_link_out_of_the_project_is_found() {
        let text = "[a](../a.md) [b](../../b.md) [c](/c.md)\n";
        let found = broken_links(&[file("docs/x.md", text)], |_| true);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn the_document_follows_the_code() {
        let code = || file(&format!("{FORMAT_CODE}a.rs"), "one");
        let hash = format_hash(&[code()]).unwrap();
        let good = file(FORMAT, &format!("# F\n{HASH}{hash}\n"));
        assert!(stale_format_hash(&[code(), good]).is_empty());
        let old = file(FORMAT, &format!("{HASH}{hash}\n"));
        let changed = file(&format!("{FORMAT_CODE}a.rs"), "two");
        assert_eq!(stale_format_hash(&[changed, old]).len(), 1);
        assert_eq!(stale_format_hash(&[code(), file(FORMAT, "# F\n")]).len(), 1);
    }

    #[test]
    fn a_document_of_code_that_is_gone_is_found() {
        assert_eq!(stale_format_hash(&[file(FORMAT, "# F\n")]).len(), 1);
        let code = file(&format!("{FORMAT_CODE}a.rs"), "");
        assert!(stale_format_hash(&[code]).is_empty());
    }
}
