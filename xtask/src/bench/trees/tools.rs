//! How each tool backs up a tree and restores it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::bench::measure::Cost;
use crate::bench::programs::{Place, Program};
use crate::shell::{capture, run};

/// Everybody, ours first.
pub(super) const ALL: [Program; 5] = [
    Program::Snapkeep,
    Program::Restic,
    Program::Borg,
    Program::Rustic,
    Program::Tar,
];

/// The guest's name in our repository.
const GUEST: &str = "bench";

/// One tool's repository.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    program: Program,
    place: Place<'a>,
    /// Backups that were made.
    made: usize,
}

impl<'a> Repository<'a> {
    pub(super) fn create(program: Program, programs: &'a Path, folder: PathBuf) -> Result<Self> {
        Ok(Self {
            program,
            place: Place::create(program, programs, folder)?,
            made: 0,
        })
    }

    pub(super) fn program(&self) -> Program {
        self.program
    }

    /// Whether it makes use of the backup before.
    pub(super) fn is_incremental(&self) -> bool {
        self.program != Program::Tar
    }

    /// Backs up a tree, as the tool does by itself: files whose times and size are as before are
    /// not read again.
    pub(super) fn back_up(&mut self, tree: &Path) -> Result<Cost> {
        let mut command = self.place.command();
        match self.program {
            Program::Snapkeep => {
                command.args(["backup", "container", "--guest", GUEST, "--directory"]);
                command.arg(tree).args(["--change-detection", "metadata"]);
            }
            Program::Restic => {
                command.args(["backup", "--quiet"]).arg(tree);
            }
            Program::Borg => {
                command.args(["create", &format!("::{}", self.made), "."]);
                command.current_dir(tree);
            }
            Program::Rustic => {
                command.arg("backup").arg(tree);
            }
            Program::Tar => {
                let line = r#"tar --xattrs --acls -C "$1" -cf - . | zstd -q -f -1 -T2 -o "$2""#;
                command.args(["-o", "pipefail", "-c", line, "bash"]);
                command.arg(tree).arg(self.archive());
            }
        }
        let (cost, _) = self.place.measure(&command)?;
        self.made += 1;
        Ok(cost)
    }

    /// Restores the last backup of a tree into a new folder; where its top then is.
    pub(super) fn restore(&self, tree: &Path, to: &Path) -> Result<(Cost, PathBuf)> {
        ensure!(self.made > 0, "there is nothing to restore");
        std::fs::create_dir(to)?;
        let mut command = self.place.command();
        let mut top = to.to_owned();
        match self.program {
            Program::Snapkeep => {
                command
                    .args(["restore", "container", GUEST, "--to"])
                    .arg(to);
            }
            Program::Restic => {
                command.args(["restore", "--quiet", "latest", "--target"]);
                command.arg(to);
                top.push(tree.strip_prefix("/").unwrap_or(tree));
            }
            Program::Borg => {
                command.args(["extract", &format!("::{}", self.made - 1)]);
                command.current_dir(to);
            }
            Program::Rustic => {
                command.arg("restore");
                command.arg(format!("latest:{}", tree.display())).arg(to);
            }
            Program::Tar => {
                let line = r#"zstd -q -dc "$1" | tar --xattrs --xattrs-include='*' --acls --numeric-owner -C "$2" -xpf -"#;
                command.args(["-o", "pipefail", "-c", line, "bash"]);
                command.arg(self.archive()).arg(to);
            }
        }
        let (cost, _) = self.place.measure(&command)?;
        Ok((cost, top))
    }

    fn archive(&self) -> PathBuf {
        self.place.repository().join("archive.tar.zst")
    }

    /// The folder that is the repository.
    pub(super) fn folder(&self) -> PathBuf {
        self.place.repository()
    }

    /// Bytes in the repository's files.
    pub(super) fn stored(&self) -> Result<u64> {
        self.place.stored()
    }
}

/// What differs between a tree and what was restored of it, a line for each entry, by a program
/// that none of them uses: content, kind, owner, mode, time, links, attributes.
pub(super) fn differences(tree: &Path, restored: &Path) -> Result<Vec<String>> {
    let mut compare = Command::new("rsync");
    compare.args(["-n", "-i", "-aHAX", "--checksum", "--delete"]);
    // A trailing slash means the folder's content; other locales would print names raw.
    compare.arg(tree.join("")).arg(restored.join(""));
    let printed = capture(compare.env("LC_ALL", "C"))?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// Reads all files below a folder, so that they are in the page cache.
pub(super) fn warm(folder: &Path) -> Result<()> {
    let line = r#"find "$1" -type f -exec cat {} + >/dev/null"#;
    run(Command::new("sh").args(["-c", line, "sh"]).arg(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::differences;
    use crate::shell::{Scratch, run, succeeds};

    #[test]
    fn a_tree_that_was_restored_otherwise_is_noticed() {
        if !succeeds(Command::new("rsync").arg("--version")) {
            assert!(std::env::var_os("CI").is_none(), "rsync is missing");
            eprintln!("SKIP: a_tree_that_was_restored_otherwise_is_noticed: needs rsync");
            return;
        }
        let scratch = Scratch::new("differences").unwrap();
        let [tree, copy] = ["tree", "copy"].map(|name| scratch.path().join(name));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "one").unwrap();
        run(Command::new("cp").arg("-a").args([&tree, &copy])).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(differences(&tree, &copy).unwrap(), none);
        let mode = std::fs::Permissions::from_mode(0o751);
        std::fs::set_permissions(copy.join("file"), mode).unwrap();
        assert_eq!(differences(&tree, &copy).unwrap().len(), 1);
        std::fs::remove_file(copy.join("file")).unwrap();
        assert!(!differences(&tree, &copy).unwrap().is_empty());
    }
}
