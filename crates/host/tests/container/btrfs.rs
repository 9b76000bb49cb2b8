//! A Btrfs in a file, and subvolumes of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{run, wait_until};

/// Bytes of the file: not much more than the least that a Btrfs can be.
const SIZE: u64 = 256 << 20;

/// A mounted Btrfs; unmounted when dropped.
pub(crate) struct Btrfs {
    at: PathBuf,
}

impl Btrfs {
    /// Makes one in a file of a folder, and mounts it there under a name.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let image = folder.join(format!("{name}.img"));
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        let at = folder.join(name);
        std::fs::create_dir(&at).unwrap();
        make(&image);
        let paths = [image.to_str().unwrap(), at.to_str().unwrap()];
        run("mount", &["-o", "loop", paths[0], paths[1]]);
        Self { at }
    }

    /// Makes a subvolume, below which folders may be.
    pub(crate) fn subvolume(&self, name: &str) -> PathBuf {
        let path = self.at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        run(
            "btrfs",
            &["-q", "subvolume", "create", path.to_str().unwrap()],
        );
        path
    }

    pub(crate) fn delete(&self, name: &str) {
        let path = self.at.join(name);
        run(
            "btrfs",
            &["-q", "subvolume", "delete", path.to_str().unwrap()],
        );
    }

    /// All subvolumes that there are, by their paths.
    pub(crate) fn subvolumes(&self) -> Vec<String> {
        let listed = run("btrfs", &["subvolume", "list", self.at.to_str().unwrap()]);
        let paths = listed.lines().filter_map(|line| line.split_once(" path "));
        paths.map(|(_, path)| path.to_owned()).collect()
    }
}

/// Makes a Btrfs in a file. The program first looks at all mounts of the machine, and fails when one of
/// another test ends meanwhile.
pub(crate) fn make(image: &Path) {
    wait_until("a Btrfs", || {
        let made = Command::new("mkfs.btrfs")
            .args(["-q", "-f"])
            .arg(image)
            .output();
        made.unwrap().status.success()
    });
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        // A container that was just killed may still use it.
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}
