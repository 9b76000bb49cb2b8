//! Trees that change under the walk's feet, always at the worst moment.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat, renameat};
use snapkeep_api::tree::{EntryKind, ProblemKind, TreePath};

use super::super::Moment;
use crate::testing::{Nothing, Tree, request, skip, walk_with};

/// Walks a folder with a file `f` of 700,000 bytes, changing something at this moment of it, once.
fn at(moment: Moment, change: impl Fn(&Path) + Sync) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    fs::write(&file, vec![b'x'; 700_000]).unwrap();
    fs::write(folder.path().join("later"), "later").unwrap();
    let mut done = false;
    let tree = walk_with(&request(folder.path()), &mut Nothing, |now, path| {
        if now == moment && path == b"f" && !done {
            done = true;
            change(&file);
        }
    });
    let tree = tree.unwrap();
    assert_eq!(tree.node("/later").content, b"later");
    tree
}

#[test]
fn a_link_that_takes_a_files_place_is_not_followed() {
    let replace = |file: &Path| {
        fs::remove_file(file).unwrap();
        symlink("/etc/shadow", file).unwrap();
    };
    // Before the handle is opened it is seen to be a link, afterwards the file is still in the hand.
    let tree = at(Moment::Handle, replace);
    assert!(matches!(tree.kind("/f"), EntryKind::Symlink { .. }));
    for moment in [Moment::Open, Moment::Content, Moment::Piece] {
        let tree = at(moment, replace);
        assert!(tree.node("/f").content == vec![b'x'; 700_000]);
    }
}

#[test]
fn a_pipe_or_device_that_takes_a_files_place_is_not_opened() {
    for moment in [Moment::Handle, Moment::Open] {
        // Opening a pipe whose other end nobody has would hang.
        let tree = at(moment, |file| {
            fs::remove_file(file).unwrap();
            mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0).unwrap();
        });
        let is_pipe = *tree.kind("/f") == EntryKind::Fifo;
        assert_eq!(is_pipe, moment == Moment::Handle);
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let tree = at(Moment::Handle, |file| fs::remove_file(file).unwrap());
    assert!(!tree.has("/f"));
    assert_eq!(tree.problem("/f").0, ProblemKind::Vanished);
}

#[test]
fn a_folder_that_takes_a_files_place_is_no_file() {
    let tree = at(Moment::Handle, |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    });
    let is_gone = tree
        .problems
        .iter()
        .any(|(at, kind, _)| at == "/f" && *kind == ProblemKind::Vanished);
    assert!(is_gone || *tree.kind("/f") == EntryKind::Directory);
}

#[test]
fn a_file_that_grows_is_told_as_long_as_it_was() {
    for moment in [Moment::Content, Moment::Piece] {
        let tree = at(moment, |file| {
            let mut file = File::options().append(true).open(file).unwrap();
            file.write_all(&vec![b'y'; 100_000]).unwrap();
        });
        let node = tree.node("/f");
        assert!(node.content == vec![b'x'; 700_000]);
        assert!(
            node.changed.as_ref().unwrap().contains("size"),
            "{:?}",
            node.changed
        );
    }
}

#[test]
fn a_file_that_shrinks_is_told_as_long_as_it_is() {
    for (moment, length) in [(Moment::Content, 1000), (Moment::Piece, 10)] {
        let tree = at(moment, |file| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(length)
                .unwrap();
        });
        let node = tree.node("/f");
        assert!(node.content.len() < 700_000 && node.content.iter().all(|byte| *byte == b'x'));
        assert!(node.changed.is_some());
    }
}

#[test]
fn a_file_that_is_written_meanwhile_is_told_as_changed() {
    let tree = at(Moment::Piece, |file| {
        let mut file = File::options().write(true).open(file).unwrap();
        file.write_all(b"y").unwrap();
        // A file's times are as coarse as the kernel's clock ticks.
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    });
    assert!(tree.node("/f").changed.is_some());
}

#[test]
fn a_sparse_file_that_shrinks_is_no_longer_than_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let make = || {
        let file = File::create(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        file
    };
    drop(make());
    let tree = walk_with(&request(folder.path()), &mut Nothing, |now, _| {
        if now == Moment::Content {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(5000)
                .unwrap();
        }
    });
    let tree = tree.unwrap();
    assert_eq!(tree.node("/f").content.len(), 5000);
    assert!(tree.node("/f").changed.is_some());
}

#[test]
fn a_folder_that_a_link_replaces_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("inside"), "inside").unwrap();
    for moment in [Moment::Handle, Moment::Listed] {
        let tree = walk_with(&request(folder.path()), &mut Nothing, |now, at| {
            if now == moment && at == b"d" {
                renameat(CWD, &path, CWD, folder.path().join("moved")).unwrap();
                symlink("/etc", &path).unwrap();
            }
        });
        let tree = tree.unwrap();
        assert!(!tree.has("/d/passwd"));
        if moment == Moment::Listed {
            assert_eq!(tree.node("/d/inside").content, b"inside");
        }
        fs::remove_file(&path).unwrap();
        renameat(CWD, folder.path().join("moved"), CWD, &path).unwrap();
    }
}

#[test]
fn a_name_of_what_was_written_since_its_first_name_is_kept_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a"), "old").unwrap();
    for name in ["b", "y", "z"] {
        fs::hard_link(at("a"), at(name)).unwrap();
    }
    let tree = walk_with(&request(folder.path()), &mut Nothing, |now, path| {
        if now == Moment::Handle && path == b"y" {
            fs::write(at("a"), "longer").unwrap();
        }
    });
    let tree = tree.unwrap();
    let link = |to: &str| EntryKind::HardLink {
        to: TreePath::new(to).unwrap(),
    };
    assert_eq!(tree.node("/a").content, b"old");
    assert_eq!(*tree.kind("/b"), link("a"));
    assert_eq!(tree.node("/y").content, b"longer");
    assert_eq!(tree.problem("/y").0, ProblemKind::Warning);
    assert_eq!(*tree.kind("/z"), link("y"));
}

#[test]
fn a_file_on_which_somebody_has_a_lease_is_waited_for() {
    // Takes a write lease, and gives it back at the end of its input, not before.
    const HOLDER: &str = r#"
        $SIG{IO} = "IGNORE";
        open(F, ">>", $ARGV[0]) and fcntl(F, 1024, 1) or die;
        $| = 1; print "held\n"; <STDIN>;"#;
    let folder = tempfile::tempdir().unwrap();
    // Patterns are read when their folder is entered.
    for (name, at) in [(".pxarexclude", ""), ("f", "f")] {
        let path = folder.path().join(name);
        fs::write(&path, "x").unwrap();
        let holder = Command::new("perl")
            .args(["-e", HOLDER])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut word = String::new();
        let holder = holder.ok().and_then(|mut holder| {
            let said = holder.stdout.as_mut()?;
            BufReader::new(said).read_line(&mut word).ok()?;
            Some(holder)
        });
        let Some(mut holder) = holder.filter(|_| word == "held\n") else {
            skip(
                "a_file_on_which_somebody_has_a_lease_is_waited_for",
                "perl and a file system with leases",
            );
            return;
        };
        let mut leased = Vec::new();
        let tree = walk_with(&request(folder.path()), &mut Nothing, |now, path| {
            if now == Moment::Leased {
                leased.push(path.to_owned());
                // What was begun by the first try is over once it gives the lease back.
                drop(holder.stdin.take());
            }
        });
        drop(holder.stdin.take());
        holder.wait().unwrap();
        let tree = tree.unwrap();
        assert_eq!(leased, [at.as_bytes()]);
        assert!(tree.problems.is_empty(), "{:?}", tree.problems);
        assert_eq!(tree.node(&format!("/{name}")).content, b"x");
    }
}
