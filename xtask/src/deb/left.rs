//! What is on a system: its files, so that those which a package left behind are found, and the
//! package's Perl modules.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::roots::Copy;
use crate::shell::run;

/// What is gone with a restart, and where apt, dpkg, man-db and the loader keep what they know themselves.
const OF_OTHERS: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/log",
    "/var/cache",
];

/// The paths of all files and folders, but those that tell nothing.
pub(super) fn files(copy: &Copy) -> Result<BTreeSet<String>> {
    let pruned: Vec<String> = OF_OTHERS
        .iter()
        .map(|path| format!("-path {path} -prune -o"))
        .collect();
    let list = copy.run(&format!("find / {} -print", pruned.join(" ")))?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// What is new (`+`) and what is gone (`-`).
pub(super) fn since(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let new = after.difference(before).map(|path| format!("+{path}"));
    let gone = before.difference(after).map(|path| format!("-{path}"));
    new.chain(gone).collect()
}

/// Loads each Perl module of the package with the classes of `classes` in the place of those of
/// Proxmox VE; how many.
pub(super) fn modules(copy: &Copy, classes: &Path) -> Result<usize> {
    let list = copy.run("dpkg -L snapkeep | grep '[.]pm$' || true")?;
    let modules: Vec<&str> = list.lines().collect();
    if modules.is_empty() {
        return Ok(0);
    }
    run(Command::new("cp")
        .arg("-rT")
        .arg(classes)
        .arg(copy.place("/srv/classes")))?;
    for module in &modules {
        copy.run(&format!("perl -wc -I/srv/classes {module}"))?;
    }
    copy.run("rm -r /srv/classes")?;
    Ok(modules.len())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::since;

    #[test]
    fn what_is_left_and_what_is_lost_is_named() {
        let set = |paths: &[&str]| {
            paths
                .iter()
                .map(|path| (*path).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let before = set(&["/a", "/b"]);
        assert_eq!(since(&before, &set(&["/b", "/c"])), ["+/c", "-/a"]);
        assert!(since(&before, &before).is_empty());
    }
}
