//! What a restore makes outlasts a power cut: seen from the system calls of the real program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::with_archive;

/// What the program did to a file or folder, in order.
#[derive(Debug, PartialEq)]
enum Deed {
    Made(PathBuf),
    Named(PathBuf),
    Synced(PathBuf),
}

/// The quoted paths of a line; relative ones are those of the folder that the program ran in.
fn paths(line: &str, here: &Path) -> Vec<PathBuf> {
    let quoted = line.split('"').skip(1).step_by(2);
    quoted.map(|path| here.join(path)).collect()
}

/// `fsync(7</a/b>) = 0`: what the descriptor is of.
fn synced(line: &str) -> PathBuf {
    let (_, rest) = line.split_once('<').unwrap();
    rest.rsplit_once('>').unwrap().0.into()
}

fn deeds(trace: &str, here: &Path) -> Vec<Deed> {
    let deed = |line: &str| {
        let (pid, call) = line.trim_start().split_once(' ')?;
        pid.parse::<u32>().ok()?;
        let call = call.trim_start();
        let name = call.split_once('(')?.0;
        Some(match name {
            "mkdir" | "mkdirat" => Deed::Made(paths(call, here).pop()?),
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                Deed::Named(paths(call, here).pop()?)
            }
            "fsync" | "fdatasync" => Deed::Synced(synced(call)),
            _ => return None,
        })
    };
    let worked = trace.lines().filter(|line| line.ends_with(" = 0"));
    worked.filter_map(deed).collect()
}

#[test]
fn what_a_restore_makes_is_synced_in_its_folder() {
    let may_trace = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    if !may_trace.is_ok_and(|status| status.success()) {
        let test = "what_a_restore_makes_is_synced_in_its_folder";
        eprintln!("SKIP: {test}: needs strace and the right to trace");
        return;
    }
    let (folder, _) = with_archive();
    let here = fs::canonicalize(folder.path()).unwrap();
    let log = here.join("trace");
    let calls = "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,fsync,fdatasync";
    let traced = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-s",
            "4096",
            "-e",
            &format!("trace={calls}"),
            "-o",
        ])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_snapkeep"))
        .args(["-r", "repo", "restore", "vm", "web", "--into", "new/all"])
        .current_dir(&here)
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let trace = fs::read_to_string(&log).unwrap();
    let deeds = deeds(&trace, &here);
    for made in ["new", "new/all"] {
        let made = Deed::Made(here.join(made));
        assert!(deeds.contains(&made), "{made:?}: {trace}");
    }
    for named in ["new/all/drive-scsi0.raw", "new/all/guest.conf"] {
        let named = Deed::Named(here.join(named));
        assert!(deeds.contains(&named), "{named:?}: {trace}");
    }
    for (number, deed) in deeds.iter().enumerate() {
        let (Deed::Made(path) | Deed::Named(path)) = deed else {
            continue;
        };
        // A folder that holds a file in the making is gone in the end.
        if path.exists() {
            let folder = Deed::Synced(path.parent().unwrap().to_owned());
            assert!(deeds[number..].contains(&folder), "{deed:?}: {trace}");
        }
    }
}
