//! A disk image in a file system that may make clones of files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{btrfs, run};

/// A mounted file system in a disk image, which is in another mounted file system; both are
/// unmounted when dropped, with all else in their folder.
pub(crate) struct Image {
    folder: PathBuf,
    at: PathBuf,
}

impl Image {
    /// Makes it in a folder, with the names of both file systems, and mounts it somewhere there.
    pub(crate) fn new(folder: &Path, outer: &str, inner: &str, at: PathBuf) -> Self {
        let disk = folder.join("disk.img");
        let image = Self {
            folder: folder.to_owned(),
            at,
        };
        // Btrfs does not clone a file into one that is copied on write and the other is not.
        let prepare = format!("touch web.img; case {outer} in btrfs) chattr +C web.img ;; esac");
        make(outer, &disk, "1G", "", &image.outer());
        run(
            "sh",
            &["-ec", &format!("cd {}; {prepare}", image.outer().display())],
        );
        image.add("web.img", inner, "", &image.at);
        image
    }

    /// The folder with the disk images.
    pub(crate) fn outer(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// Makes another disk image beside it, and mounts it.
    pub(crate) fn add(&self, name: &str, kind: &str, options: &str, at: &Path) {
        make(kind, &self.outer().join(name), "300M", options, at);
    }

    pub(crate) fn freeze(&self) {
        assert!(self.fsfreeze("--freeze"));
    }

    pub(crate) fn thaw(&self) {
        assert!(self.fsfreeze("--unfreeze"));
    }

    /// Whether it is frozen; nobody else may freeze it meanwhile.
    pub(crate) fn is_frozen(&self) -> bool {
        let was_not = self.fsfreeze("--freeze");
        if was_not {
            self.thaw();
        }
        !was_not
    }

    /// Lets it go on whether it is frozen or not.
    pub(crate) fn let_go_on(&self) {
        self.fsfreeze("--unfreeze");
    }

    fn fsfreeze(&self, what: &str) -> bool {
        let output = Command::new("fsfreeze").arg(what).arg(&self.at).output();
        output.unwrap().status.success()
    }

    /// What there is of snapshots: files, folders, mounts and loop devices.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in [self.outer(), self.folder.join("state")] {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                found.push(entry.unwrap().path().display().to_string());
            }
        }
        found.extend(self.mounts());
        let devices = run(
            "losetup",
            &["--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        );
        found.extend(devices.lines().map(str::to_owned));
        let folder = self.folder.to_str().unwrap();
        found.retain(|what| what.contains(folder) && what.contains(".snapkeep-snapshot-"));
        found
    }

    /// What is mounted below the folder, oldest first.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let places = table.lines().filter_map(|line| line.split(' ').nth(1));
        places
            .filter(|at| Path::new(at).starts_with(&self.folder))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.let_go_on();
        for at in self.mounts().iter().rev() {
            // A container that was just killed may still use it.
            Command::new("umount").args(["-l", at]).status().ok();
        }
    }
}

/// Makes a file system in a file, which may be there, and mounts it.
fn make(kind: &str, file: &Path, size: &str, options: &str, at: &Path) {
    fs::create_dir_all(at).unwrap();
    let (name, at_name) = (file.to_str().unwrap(), at.to_str().unwrap());
    run("truncate", &["-s", size, name]);
    if kind == "btrfs" {
        btrfs::make(file);
    } else {
        let script = format!("mkfs.{kind} -q {options} {name}");
        run("sh", &["-ec", &script]);
    }
    run("mount", &["-o", "loop", name, at_name]);
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}
