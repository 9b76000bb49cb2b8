//! Folders: large ones, and those that are in no archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::Dir;
use snapkeep_api::tree::{Name, Timestamp};
use snapkeep_api::{Error, ErrorKind, Region, Result};
use snapkeep_mount::{FixedFolder, Folder, Node, RandomRead};

use crate::memory::{Item, name, tree};
use crate::tools::{Mount, are_here, sh};

const MANY: u32 = 100_000;

fn large() -> Mount {
    let files = (0..MANY).map(|n| (name(format!("{n:06}")), Item::file(b"x")));
    let folder = Item::folder(files);
    Mount::new(tree(Item::folder([(name("large"), folder)])))
}

#[test]
fn a_folder_of_very_many_entries_is_whole() {
    if !are_here("a_folder_of_very_many_entries_is_whole", &[]) {
        return;
    }
    let mount = large();
    let count = format!("{}\n", MANY + 2);
    assert_eq!(sh(&mount.path(), "find . -size -10 | wc -l"), count);
    assert_eq!(sh(&mount.path(), "find . | sort -u | wc -l"), count);
    let inodes = "find large -type f -printf '%i\\n' | sort -u | wc -l";
    assert_eq!(sh(&mount.path(), inodes), format!("{MANY}\n"));
    assert_eq!(sh(&mount.path(), "ls -f large | wc -l"), count);
}

#[test]
fn a_place_in_a_large_folder_is_found_again() {
    if !are_here("a_place_in_a_large_folder_is_found_again", &[]) {
        return;
    }
    let mount = large();
    let mut folder = Dir::new(File::open(mount.join("large")).unwrap()).unwrap();
    let mut places = Vec::new();
    let mut names = Vec::new();
    for entry in folder.by_ref() {
        let entry = entry.unwrap();
        places.push(entry.offset());
        names.push(entry.file_name().to_owned());
    }
    assert_eq!(names.len(), MANY as usize + 2);
    for at in [99_999, 3, 50_000, 50_001, 0, 77_123, 12] {
        folder.seek(places[at]).unwrap();
        let next = folder.next().unwrap().unwrap();
        assert_eq!(next.file_name(), &*names[at + 1]);
    }
    folder.rewind();
    assert_eq!(folder.next().unwrap().unwrap().file_name(), &*names[0]);
}

#[test]
fn inode_numbers_are_the_same_at_each_mount() {
    if !are_here("inode_numbers_are_the_same_at_each_mount", &[]) {
        return;
    }
    let list = || {
        let inner = Item::folder([
            (name("a"), Item::file(b"x")),
            (name("b"), Item::link("f/a")),
        ]);
        let mount = Mount::new(tree(Item::folder([(name("f"), inner)])));
        let list = sh(&mount.path(), "find . -printf '%p %i\\n' | sort");
        // What a list shows is what a look at the entry itself shows.
        for line in sh(&mount.path(), "ls -i1 f").lines() {
            let (number, name) = line.trim().split_once(' ').unwrap();
            let metadata = fs::metadata(mount.join("f").join(name)).unwrap();
            assert_eq!(metadata.ino().to_string(), number);
        }
        list
    };
    let first = list();
    assert_eq!(list(), first);
    assert!(first.starts_with(". 1\n"), "{first}");
    let numbers: Vec<_> = first
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(numbers[2], numbers[3]);
    assert_ne!(numbers[1], numbers[2]);
}

/// What was asked of a repository.
#[derive(Default)]
struct Asked {
    opened: AtomicU32,
    sized: AtomicU32,
}

/// An archive that is opened when it is looked into.
struct Archive(Arc<Asked>);

impl Archive {
    fn open(&self) -> FixedFolder {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        let root = Item::folder([(name("file"), Item::file(b"content"))]);
        let entries = [
            (name("tree"), tree(root)),
            (
                name("tree.tar"),
                Node::Bytes(Arc::new(Tar(Arc::clone(&self.0)))),
            ),
        ];
        FixedFolder::new(entries, Timestamp::default())
    }
}

impl Folder for Archive {
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>> {
        self.open().list(after, max)
    }

    fn lookup(&self, name: &Name) -> Result<Option<Node>> {
        self.open().lookup(name)
    }

    fn modified(&self) -> Timestamp {
        Timestamp {
            seconds: 1_000_000_000,
            nanos: 0,
        }
    }
}

struct Tar(Arc<Asked>);

impl RandomRead for Tar {
    fn size(&self) -> Result<u64> {
        self.0.sized.fetch_add(1, Ordering::SeqCst);
        Ok(200_000)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        for (at, byte) in (offset..).zip(buffer) {
            *byte = at.to_le_bytes()[1];
        }
        Ok(())
    }
}

#[test]
fn archives_are_opened_and_measured_when_somebody_looks_at_them() {
    if !are_here("archives_are_opened_and_measured_when", &[]) {
        return;
    }
    let asked = Arc::new(Asked::default());
    let archive = |n| {
        let folder = Node::Folder(Arc::new(Archive(Arc::clone(&asked))));
        (name(format!("2026-11-{n:02}T00:00:00Z")), folder)
    };
    let guest = FixedFolder::new((1..=20).map(archive), Timestamp::default());
    let mount = Mount::new(Node::Folder(Arc::new(guest)));
    let list = sh(
        &mount.path(),
        "TZ=UTC ls -l --time-style=full-iso | grep -c 2001-09-09",
    );
    assert_eq!(list, "20\n");
    assert_eq!(asked.opened.load(Ordering::SeqCst), 0);
    assert_eq!(
        sh(&mount.path(), "ls -f 2026-11-03*/ | sort"),
        ".\n..\ntree\ntree.tar\n"
    );
    assert!(asked.opened.load(Ordering::SeqCst) > 0);
    assert_eq!(asked.sized.load(Ordering::SeqCst), 0);
    let tar = mount.join("2026-11-03T00:00:00Z/tree.tar");
    let open = File::open(&tar).unwrap();
    // A list, which knows no sizes yet, takes nothing away from what is known.
    sh(&mount.path(), "ls 2026-11-03*");
    assert_eq!(open.metadata().unwrap().len(), 200_000);
    assert_eq!(open.metadata().unwrap().mode(), 0o100_400);
    assert_eq!(
        fs::read(&tar).unwrap()[100_000],
        (100_000_u32).to_le_bytes()[1]
    );
    assert_eq!(fs::metadata(&tar).unwrap().len(), 200_000);
    let file = mount.join("2026-11-03T00:00:00Z/tree/file");
    assert_eq!(fs::read(file).unwrap(), b"content");
}

/// A folder with a file that cannot be measured, and one that is no longer there.
struct Changing(BTreeMap<Name, Node>);

struct Unmeasured;

impl RandomRead for Unmeasured {
    fn size(&self) -> Result<u64> {
        Err(Error::new(ErrorKind::Unavailable, "the storage is away"))
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn next_data(&self, _: u64) -> Result<Option<Region>> {
        Ok(None)
    }
}

impl Folder for Changing {
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>> {
        let names = self
            .0
            .iter()
            .filter(|(name, _)| after.is_none_or(|after| *name > after));
        let entries = names.map(|(name, node)| (name.clone(), node.clone()));
        Ok(entries.take(max).collect())
    }

    fn lookup(&self, name: &Name) -> Result<Option<Node>> {
        Ok(self
            .0
            .get(name)
            .filter(|_| name.as_bytes() != b"gone")
            .cloned())
    }
}

#[test]
fn a_file_that_cannot_be_measured_is_an_error_and_one_that_is_gone_is_gone() {
    if !are_here("a_file_that_cannot_be_measured_is_an_error", &[]) {
        return;
    }
    let file = Node::Bytes(Arc::new(Unmeasured));
    let empty = Node::Folder(Arc::new(FixedFolder::default()));
    let nodes = [("away", file.clone()), ("empty", empty), ("gone", file)];
    let nodes = nodes.map(|(text, node)| (name(text), node));
    let mount = Mount::new(Node::Folder(Arc::new(Changing(nodes.into()))));
    assert_eq!(
        sh(&mount.path(), "ls -f | sort"),
        ".\n..\naway\nempty\ngone\n"
    );
    let error = fs::read(mount.join("away")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    let error = fs::metadata(mount.join("gone")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(fs::read_dir(mount.join("empty")).unwrap().count(), 0);
    assert_eq!(mount.problems(), ["/away: the storage is away"]);
}
