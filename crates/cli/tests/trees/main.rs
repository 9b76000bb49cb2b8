//! The verbs about the files of containers, with folders as containers.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod changes;
mod closed;
mod configured;
mod extracted;
mod full;
mod mounted;
mod restored;
mod rolled_back;
mod searched;
#[path = "../support/mod.rs"]
mod support;
mod usage;
mod write_only;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use support::{Disk, init, json, sh};

/// A folder with a repository, and with folders that are backed up.
struct Lab(Disk);

impl Lab {
    /// With what a line of shell makes there.
    fn new(line: &str) -> Self {
        let lab = Self(Disk::new());
        init(lab.folder());
        sh(lab.folder(), line);
        lab
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Backs a folder up as a guest; the archive's name.
    #[track_caller]
    fn back_up(&self, guest: &str, folder: &str) -> String {
        let backup = ["backup", "container", "--guest", guest];
        let done = json(
            self.folder(),
            &[&backup[..], &["--directory", folder]].concat(),
        );
        assert_eq!(done["left_out"], 0, "{done}");
        done["archive"].as_str().unwrap().to_owned()
    }

    /// The packs of the repository.
    fn packs(&self) -> BTreeSet<PathBuf> {
        let found = sh(self.folder(), "find repo/packs -type f");
        found.lines().map(|path| self.path(path)).collect()
    }
}

/// Damages all that lies in packs.
fn damage<'a>(packs: impl IntoIterator<Item = &'a PathBuf>) {
    for pack in packs {
        let mut bytes = std::fs::read(pack).unwrap();
        // What follows their header.
        for byte in &mut bytes[128..] {
            *byte ^= 1;
        }
        std::fs::write(pack, bytes).unwrap();
    }
}
