//! Which files are in the package, and where.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::commit::Commit;
use super::control::{changelog, template};
use super::notices;

const DOC: &str = "usr/share/doc/snapkeep";

/// Documents for users, below `docs/`, besides all of `docs/guides`. README.md's links to the
/// others lead nowhere: they are for who works on the project.
const DOCUMENTS: &[&str] = &["CLI.md", "CONTAINERS.md", "EXCLUDE.md", "THREATS.md"];

const UNITS: &[&str] = &["snapkeep-verify@.service", "snapkeep-verify@.timer"];

/// What `generate` wrote for shells, and where Debian's look for it.
const COMPLETIONS: &[(&str, &str)] = &[
    (
        "bash/snapkeep",
        "usr/share/bash-completion/completions/snapkeep",
    ),
    (
        "zsh/_snapkeep",
        "usr/share/zsh/vendor-completions/_snapkeep",
    ),
    (
        "fish/snapkeep.fish",
        "usr/share/fish/vendor_completions.d/snapkeep.fish",
    ),
];

/// What is built.
#[derive(Debug)]
pub(super) struct Parts {
    /// The program, stripped.
    pub(super) program: PathBuf,
    /// The folder that its verb `generate` filled.
    pub(super) generated: PathBuf,
}

/// A file of the package.
#[derive(Debug)]
pub(super) struct Entry {
    /// From the root, without a slash at its start.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

impl Entry {
    fn new(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        let path = path.into();
        Self {
            path,
            bytes,
            mode: 0o644,
        }
    }

    pub(super) fn text(path: &str, text: String) -> Self {
        Self::new(path, text.into_bytes())
    }
}

/// All files, sorted by path.
pub(super) fn entries(
    project: &Path,
    parts: &Parts,
    version: &str,
    commit: &Commit,
) -> Result<Vec<Entry>> {
    let mut entries = of_project(project, version, commit)?;
    let mut program = Entry::new("usr/bin/snapkeep", read(&parts.program)?);
    program.mode = 0o755;
    entries.push(program);
    for page in below(&parts.generated.join("man"), "1")? {
        let name = page
            .file_name()
            .and_then(|name| name.to_str())
            .context("a page without a name")?;
        let path = format!("usr/share/man/man1/{name}.gz");
        entries.push(Entry::new(path, gzip(&read(&page)?)?));
    }
    for (from, to) in COMPLETIONS {
        entries.push(Entry::new(*to, read(&parts.generated.join(from))?));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The files that need no build.
fn of_project(project: &Path, version: &str, commit: &Commit) -> Result<Vec<Entry>> {
    let file = |path: &str| read(&project.join(path));
    let mit = String::from_utf8(file("LICENSE-MIT")?)?;
    let copyright = template("copyright")?.replace("@MIT@", mit.trim_end());
    let mut entries = vec![
        Entry::text(&format!("{DOC}/copyright"), copyright),
        Entry::new(format!("{DOC}/README.md"), file("README.md")?),
        Entry::new(format!("{DOC}/changelog.gz"), gzip(&file("CHANGELOG.md")?)?),
        Entry::new(
            format!("{DOC}/changelog.Debian.gz"),
            gzip(changelog(version, commit)?.as_bytes())?,
        ),
        Entry::new(
            format!("{DOC}/third-party-notices.gz"),
            gzip(notices::text()?.as_bytes())?,
        ),
    ];
    for name in DOCUMENTS {
        entries.push(Entry::new(
            format!("{DOC}/docs/{name}"),
            file(&format!("docs/{name}"))?,
        ));
    }
    for name in UNITS {
        let unit = file(&format!("packaging/systemd/{name}"))?;
        entries.push(Entry::new(format!("usr/lib/systemd/system/{name}"), unit));
    }
    for (from, extension, to) in [
        ("docs/guides", "md", format!("{DOC}/docs/guides")),
        ("perl/PVE", "pm", "usr/share/perl5/PVE".to_owned()),
    ] {
        let folder = project.join(from);
        for path in below(&folder, extension)? {
            let name = path
                .strip_prefix(&folder)?
                .to_str()
                .context("a name that is no text")?;
            entries.push(Entry::new(format!("{to}/{name}"), read(&path)?));
        }
    }
    Ok(entries)
}

/// The folders that `entries` are in.
pub(super) fn folders(entries: &[Entry]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for entry in entries {
        let above = Path::new(&entry.path).ancestors().skip(1);
        folders.extend(
            above
                .filter_map(Path::to_str)
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
        );
    }
    folders
}

/// The files below `folder` with this extension, sorted; none if it is not there.
fn below(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let listing = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            listing => listing.with_context(|| format!("could not read {}", folder.display()))?,
        };
        for item in listing {
            let item = item?;
            if item.file_type()?.is_dir() {
                open.push(item.path());
            } else if item
                .path()
                .extension()
                .is_some_and(|found| found == extension)
            {
                found.push(item.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

/// Without a name or time in it, as small as it gets.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start gzip")?;
    let mut input = child.stdin.take().context("gzip has no input")?;
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(bytes));
        let output = child.wait_with_output();
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("what feeds gzip panicked"))??;
        output.context("gzip failed")
    })?;
    ensure!(output.status.success(), "gzip failed: {}", output.status);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Entry, folders, of_project};
    use crate::deb::commit::Commit;
    use crate::shell::root;

    fn staged() -> Vec<Entry> {
        let commit = Commit::newest(root()).unwrap();
        of_project(root(), &commit.version("1.2.3"), &commit).unwrap()
    }

    #[test]
    fn what_needs_no_build_is_in_the_package() {
        let paths: BTreeSet<String> = staged().into_iter().map(|entry| entry.path).collect();
        for path in [
            "usr/share/doc/snapkeep/README.md",
            "usr/share/doc/snapkeep/copyright",
            "usr/share/doc/snapkeep/changelog.gz",
            "usr/share/doc/snapkeep/changelog.Debian.gz",
            "usr/share/doc/snapkeep/third-party-notices.gz",
            "usr/share/doc/snapkeep/docs/CLI.md",
            "usr/lib/systemd/system/snapkeep-verify@.timer",
            "usr/share/perl5/PVE/Storage/Custom/SnapkeepPlugin.pm",
            "usr/share/perl5/PVE/BackupProvider/Plugin/Snapkeep.pm",
        ] {
            assert!(paths.contains(path), "{path} is not among {paths:?}");
        }
    }

    #[test]
    fn no_file_that_needs_no_build_names_a_place_of_this_machine() {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
        let places = [root().display().to_string(), format!("{home}/.cargo")];
        for entry in staged() {
            let text = String::from_utf8_lossy(&entry.bytes);
            for place in &places {
                assert!(!text.contains(place), "{} names {place}", entry.path);
            }
        }
    }

    #[test]
    fn the_folders_of_files_are_named_once_and_without_the_root() {
        let entries = ["a/b/c", "a/b/d", "e"].map(|path| Entry::text(path, String::new()));
        assert_eq!(
            folders(&entries),
            BTreeSet::from(["a".to_owned(), "a/b".to_owned()])
        );
    }
}
