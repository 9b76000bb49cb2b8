//! A tree as a tar archive, extracted by GNU tar.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use proptest::prop_assert;
use proptest::test_runner::TestRunner;
use snapkeep_api::tree::{EntryKind, TreeReader};
use snapkeep_api::{Cancel, ErrorKind};
use snapkeep_tree::Selection;
use snapkeep_tree::tar::{TarFile, TarReport, write_tar};
use support::facts::{assert_same, facts};
use support::memory::{MemoryTree, attributes, path};
use support::plant::{Disk, TOOLS, flag, plant};
use support::scan::scan;
use support::tools::{are_here, has_rights, sh};

/// The flags that Proxmox VE extracts with, and those that a person would add.
const TAR: &str =
    "tar --numeric-owner --acls --xattrs --xattrs-include='*' --warning=no-timestamp -p";

fn stream(tree: &dyn TreeReader) -> (Vec<u8>, TarReport) {
    let mut out = Vec::new();
    let report = write_tar(tree, &Selection::all(), &mut out, &Cancel::new()).unwrap();
    (out, report)
}

#[test]
fn gnu_tar_extracts_what_was_there() {
    let test = "gnu_tar_extracts_what_was_there";
    if !has_rights(test) || !are_here(test, TOOLS) || !are_here(test, &["tar"]) {
        return;
    }
    let temp = Disk::new();
    let (made, got) = (temp.path().join("made"), temp.path().join("got"));
    fs::create_dir(&made).unwrap();
    fs::create_dir(&got).unwrap();
    plant(&made);
    let tree = scan(&made);
    let (archive, report) = stream(&tree);
    assert_eq!(report.bytes, archive.len() as u64);
    assert_eq!(report.sockets, 0);
    fs::write(temp.path().join("tree.tar"), &archive).unwrap();
    sh(&got, &format!("{TAR} -xf ../tree.tar"));
    assert_same(&facts(&made), &facts(&got));
    // As Proxmox VE looks at it first.
    let listed = sh(temp.path(), "tar -tvf tree.tar");
    assert_eq!(listed.lines().count() as u64, report.members);
    assert!(listed.lines().all(|line| line.contains(" ./")), "{listed}");
}

/// A tree of many small files in several folders, and some with holes.
fn many(files: usize) -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(0o755));
    for folder in 0..files.div_ceil(100) {
        let folder_number = tree.directory(&format!("d{folder:05}"));
        for file in 0..100.min(files - folder * 100) {
            let at = format!("d{folder:05}/f{file:02}");
            match file {
                7 => {
                    let size = 1 << 20;
                    let number =
                        tree.put(&at, attributes(0o600), EntryKind::File { size, links: 1 });
                    tree.write(number, 4096, b"first");
                    tree.write(number, 900_000, &[7; 5000]);
                }
                8 => {
                    tree.link(&at, &format!("d{folder:05}/f00"));
                }
                9 => {
                    tree.put(&at, attributes(0o600), EntryKind::Socket);
                }
                _ => {
                    tree.file(&at, at.repeat(file * 10).as_bytes());
                }
            }
        }
        tree.entry(folder_number).attributes.mtime.nanos = 5;
    }
    tree
}

#[test]
fn the_file_is_the_stream_wherever_it_is_read() {
    let tree = many(5000);
    let (archive, streamed) = stream(&tree);
    let file = TarFile::open(Arc::new(tree), &Cancel::new()).unwrap();
    assert_eq!(file.report(), &streamed);
    assert_eq!(file.size(), archive.len() as u64);
    assert_eq!(streamed.sockets, 50);
    assert_eq!(streamed.socket_paths[1], path("d00001/f09"));
    let wanted = |offset: u64, length: usize| {
        let from = usize::try_from(offset).unwrap().min(archive.len());
        &archive[from..(from + length).min(archive.len())]
    };
    let strategy = (0..archive.len() as u64 + 2000, 0..300_000_usize);
    let mut runner = TestRunner::deterministic();
    runner
        .run(&strategy, |(offset, length)| {
            let mut buffer = vec![1; length];
            let read = file.read_at(offset, &mut buffer).unwrap();
            prop_assert!(
                buffer[..read] == *wanted(offset, length),
                "{offset} {length}"
            );
            Ok(())
        })
        .unwrap();
    // Several threads at once, each from its own place on.
    thread::scope(|scope| {
        for part in 0..4 {
            let (file, wanted) = (&file, &wanted);
            scope.spawn(move || {
                let mut offset = part * file.size() / 4;
                let mut buffer = vec![1; 10_240];
                loop {
                    let read = file.read_at(offset, &mut buffer).unwrap();
                    assert_eq!(buffer[..read], *wanted(offset, buffer.len()));
                    offset += read as u64;
                    if read == 0 {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn gnu_tar_extracts_the_file_written_in_any_order() {
    let test = "gnu_tar_extracts_the_file_written_in_any_order";
    if !has_rights(test) || !are_here(test, TOOLS) || !are_here(test, &["tar"]) {
        return;
    }
    let temp = Disk::new();
    let (made, got) = (temp.path().join("made"), temp.path().join("got"));
    fs::create_dir(&made).unwrap();
    fs::create_dir(&got).unwrap();
    plant(&made);
    flag(&made);
    let file = TarFile::open(Arc::new(scan(&made)), &Cancel::new()).unwrap();
    assert_eq!(file.report().flags_lost, 5);
    let out = fs::File::create(temp.path().join("tree.tar")).unwrap();
    let piece = 100_000;
    let mut pieces: Vec<u64> = (0..file.size().div_ceil(piece)).collect();
    // Any order that is not the natural one.
    pieces.sort_by_key(|piece| piece.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for number in pieces {
        let mut buffer = vec![0; usize::try_from(piece).unwrap()];
        let read = file.read_at(number * piece, &mut buffer).unwrap();
        out.write_all_at(&buffer[..read], number * piece).unwrap();
    }
    // Names are bytes, whatever the locale.
    sh(&got, &format!("LC_ALL=C.UTF-8 {TAR} -xf ../tree.tar"));
    assert_same(&facts(&made), &facts(&got));
}

#[test]
fn reading_on_visits_nothing_again() {
    let tree = Arc::new(many(5000));
    let file = TarFile::open(Arc::clone(&tree) as Arc<dyn TreeReader>, &Cancel::new()).unwrap();
    let before = tree.lists.load(Ordering::Relaxed);
    let mut buffer = vec![0; 4096];
    let mut offset = 0;
    while offset < file.size() {
        offset += file.read_at(offset, &mut buffer).unwrap() as u64;
    }
    let once = tree.lists.load(Ordering::Relaxed) - before;
    // Opening it visits all, and so does reading it, but for where its pages begin.
    assert!(once.abs_diff(before) < 10, "{once} {before}");
    // A place in the middle costs no more than what lies between two checkpoints.
    let middle = TarFile::open(Arc::clone(&tree) as Arc<dyn TreeReader>, &Cancel::new()).unwrap();
    let before = tree.lists.load(Ordering::Relaxed);
    middle.read_at(middle.size() / 2, &mut buffer).unwrap();
    assert!(tree.lists.load(Ordering::Relaxed) - before < 40);
}

#[test]
fn an_archive_ends_with_two_blocks_of_zeroes_whatever_its_size() {
    for files in 0..25 {
        let mut tree = MemoryTree::new(attributes(0o755));
        for file in 0..files {
            tree.file(&format!("f{file:02}"), b"");
        }
        let (archive, report) = stream(&tree);
        assert_eq!(archive.len() % 10_240, 0);
        let members = usize::try_from(report.members).unwrap() * 512;
        assert!(archive.len() - members >= 1024, "{files}");
        assert!(archive[members..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_is_selected_has_its_folders_and_its_links() {
    let mut tree = MemoryTree::new(attributes(0o755));
    tree.directory("a");
    tree.file("a/first", b"content");
    tree.file("a/other", b"other");
    tree.directory("b");
    tree.link("b/second", "a/first");
    tree.link("b/third", "a/first");
    let selection = Selection::of(vec![path("b"), path("a/other")]).unwrap();
    let mut out = Vec::new();
    write_tar(&tree, &selection, &mut out, &Cancel::new()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("part.tar"), out).unwrap();
    let test = "what_is_selected_has_its_folders_and_its_links";
    if !are_here(test, &["tar"]) {
        return;
    }
    let listed = sh(
        temp.path(),
        "tar -tvf part.tar | awk '{ print $1, $6, $7, $8, $9 }'",
    );
    let lines: Vec<_> = listed.lines().map(str::trim_end).collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x ./",
            "drwxr-xr-x ./a/",
            "-rw-r--r-- ./a/other",
            "drwxr-xr-x ./b/",
            "-rw-r--r-- ./b/second",
            "hrw-r--r-- ./b/third link to ./b/second",
        ]
    );
    let nothing = Selection::of(vec![path("b/fourth")]).unwrap();
    let error = write_tar(&tree, &nothing, &mut Vec::new(), &Cancel::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/b/fourth"), "{error}");
}
