//! Which packages are needed, and how to see, on any distribution, that one is there.

use std::path::Path;
use std::process::Command;

use super::qemu;
use crate::shell::{capture, succeeds};

/// A package, by its name in Debian.
pub(super) struct Package {
    pub(super) name: &'static str,
    proof: Proof,
}

/// What of a package is used.
enum Proof {
    Programs(&'static [&'static str]),
    /// Programs that cannot be asked for their version.
    Mute(&'static [&'static str]),
    /// Programs of a QEMU that is not too old.
    Qemu(&'static [&'static str]),
    PythonModule(&'static str),
    PerlModule(&'static str),
}

use Proof::{Mute, PerlModule, Programs, PythonModule, Qemu};

/// What the tests, the tour and the demo run.
pub(super) const FOR_TESTS: &[Package] = &[
    Package::new("git", Programs(&["git"])),
    Package::new(
        "qemu-utils",
        Qemu(&["qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon"]),
    ),
    Package::new("qemu-system-x86", Qemu(&["qemu-system-x86_64"])),
    Package::new("libnbd-bin", Programs(&["nbdinfo", "nbdcopy"])),
    Package::new("nbdkit", Programs(&["nbdkit"])),
    Package::new("b3sum", Programs(&["b3sum"])),
    Package::new("strace", Programs(&["strace"])),
    Package::new("lxc", Programs(&["lxc-start", "lxc-freeze"])),
    Package::new("busybox-static", Mute(&["busybox"])),
    Package::new("btrfs-progs", Programs(&["btrfs", "mkfs.btrfs"])),
    Package::new("e2fsprogs", Mute(&["mkfs.ext4", "chattr", "lsattr"])),
    Package::new("xfsprogs", Mute(&["mkfs.xfs"])),
    Package::new("acl", Programs(&["getfacl", "setfacl"])),
    Package::new("attr", Programs(&["getfattr", "setfattr"])),
    Package::new("libcap2-bin", Mute(&["getcap", "setcap"])),
    Package::new("fuse3", Programs(&["fusermount3"])),
    Package::new("rsync", Programs(&["rsync"])),
    Package::new("tar", Programs(&["tar"])),
    Package::new("findutils", Programs(&["find"])),
    Package::new("util-linux", Programs(&["unshare", "nsenter", "fsfreeze"])),
    Package::new("mount", Programs(&["mount", "umount", "losetup"])),
    Package::new("perl", Programs(&["perl", "prove"])),
    Package::new("libjson-perl", PerlModule("JSON")),
    Package::new("python3", PythonModule("json")),
    Package::new("python3-venv", PythonModule("ensurepip")),
    Package::new("python3-cryptography", PythonModule("cryptography")),
    Package::new("python3-zstandard", PythonModule("zstandard")),
];

/// Ceph's gateway with what is below it, what speaks to it, and what the benchmark compares with.
pub(super) const FOR_S3: &[Package] = &[
    Package::new("radosgw", Programs(&["radosgw", "radosgw-admin"])),
    Package::new("ceph-mon", Programs(&["ceph-mon"])),
    Package::new("ceph-mgr", Programs(&["ceph-mgr"])),
    Package::new("ceph-osd", Programs(&["ceph-osd"])),
    Package::new("ceph-common", Programs(&["ceph"])),
    Package::new("curl", Programs(&["curl"])),
    Package::new("restic", Programs(&["restic"])),
];

/// What the benchmark compares with, besides.
pub(super) const FOR_BENCH: &[Package] = &[
    Package::new("restic", Programs(&["restic"])),
    Package::new("borgbackup", Programs(&["borg"])),
    Package::new("zstd", Programs(&["zstd"])),
];

/// What makes a package.
pub(super) const FOR_PACKAGES: &[Package] = &[
    Package::new("git", Programs(&["git"])),
    Package::new("dpkg-dev", Programs(&["dpkg-shlibdeps"])),
    Package::new("binutils", Programs(&["strip"])),
];

/// What checks one, besides.
pub(super) const FOR_CHECKS_OF_PACKAGES: &[Package] = &[
    Package::new("lintian", Programs(&["lintian"])),
    Package::new("debootstrap", Programs(&["debootstrap"])),
    Package::new("mount", Programs(&["mount", "umount"])),
    Package::new("util-linux", Programs(&["unshare"])),
];

impl Package {
    const fn new(name: &'static str, proof: Proof) -> Self {
        Self { name, proof }
    }

    pub(super) fn is_of_qemu(&self) -> bool {
        matches!(self.proof, Qemu(_))
    }

    /// What of the package is missing or too old, in the words of any distribution.
    pub(super) fn lacks(&self) -> Vec<String> {
        match self.proof {
            Programs(programs) => programs
                .iter()
                .filter(|program| !works(program))
                .map(|program| (*program).to_owned())
                .collect(),
            Mute(programs) => programs
                .iter()
                .filter(|program| !is_found(program))
                .map(|program| (*program).to_owned())
                .collect(),
            Qemu(programs) => programs
                .iter()
                .filter_map(|program| {
                    let mut command = Command::new(program);
                    lack_of_qemu(program, capture(command.arg("--version")).ok().as_deref())
                })
                .collect(),
            PerlModule(module) => {
                let load = format!("-M{module}");
                if succeeds(Command::new("perl").args([&load, "-e", "1"])) {
                    Vec::new()
                } else {
                    vec![format!("perl with the module {module}")]
                }
            }
            PythonModule(module) => {
                let import = format!("import {module}");
                if succeeds(Command::new(python()).args(["-c", &import])) {
                    Vec::new()
                } else {
                    vec![format!("{} with the module {module}", python())]
                }
            }
        }
    }
}

/// What is wrong with a program of QEMU that gave this answer to `--version`, or none.
fn lack_of_qemu(program: &str, answer: Option<&str>) -> Option<String> {
    let wanted = qemu::wanted();
    let Some(answer) = answer else {
        return Some(format!("{program} of {wanted}"));
    };
    let version = qemu::version_told(answer).unwrap_or("an unknown version");
    let new_enough = qemu::major(version).is_some_and(|major| major >= qemu::OLDEST_MAJOR);
    (!new_enough).then(|| format!("{program} of {wanted} (found: {version})"))
}

/// The interpreter for the checks in Python. Debian's modules belong to Debian's
/// interpreter, which need not be the first in PATH.
pub(super) fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}

/// Whether a program of this name is in PATH.
fn is_found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether a program of this name is in PATH and works. Most know the option,
/// some only a command of that name.
fn works(program: &str) -> bool {
    ["--version", "version"]
        .iter()
        .any(|argument| succeeds(Command::new(program).arg(argument)))
}

#[cfg(test)]
mod tests {
    use super::lack_of_qemu;

    #[test]
    fn a_qemu_that_is_missing_too_old_or_unknown_is_named() {
        let of = |answer: Option<&str>| lack_of_qemu("qemu-img", answer);
        let missing = of(None).unwrap();
        assert_eq!(missing, "qemu-img of QEMU 9.0 or newer");
        for old in ["7.2.22", "8.2.2"] {
            let lack = of(Some(&format!("qemu-img version {old} (Debian 1:x)\n"))).unwrap();
            assert_eq!(lack, format!("{missing} (found: {old})"));
        }
        let lack = of(Some("something else\n")).unwrap();
        assert_eq!(lack, format!("{missing} (found: an unknown version)"));
    }

    #[test]
    fn a_qemu_that_is_new_enough_lacks_nothing() {
        for new in ["9.0.0", "10.0.2"] {
            let answer = format!("qemu-img version {new} (Debian 1:x)\n");
            assert_eq!(lack_of_qemu("qemu-img", Some(&answer)), None);
        }
    }
}
