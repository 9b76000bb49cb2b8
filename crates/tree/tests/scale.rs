//! Trees that are large in one way or another, told by a reader that holds nothing of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit, setrlimit};
use snapkeep_api::tree::{
    Entry, EntryKind, Name, Place, TreeNode, TreePath, TreeReader, TreeTotals, Xattr,
};
use snapkeep_api::{Cancel, Region, Result};
use snapkeep_tree::tar::{TarFile, write_tar};
use snapkeep_tree::{ExtractOptions, Progress, Selection, compare, extract};
use support::memory::{MemoryTree, attributes, name};
use support::tools::{are_here, has_rights, sh};

/// Folders in a folder, each with files whose content is their own name.
struct Wide {
    folders: usize,
    files: usize,
}

/// A node's place: the root, a folder, or a file.
#[derive(Clone, Copy)]
enum At {
    Root,
    Folder,
    File,
}

impl Wide {
    fn node(at: At) -> TreeNode {
        let kind = match at {
            At::Root | At::Folder => EntryKind::Directory,
            At::File => EntryKind::File { size: 9, links: 1 },
        };
        let entry = Entry {
            attributes: attributes(0o755),
            kind,
        };
        TreeNode {
            entry,
            identity: None,
            place: Place::new(at),
        }
    }

    fn child(&self, folder: &TreeNode) -> (usize, &'static str, At) {
        match folder.place.get::<At>().unwrap() {
            At::Root => (self.folders, "folder", At::Folder),
            At::Folder => (self.files, "file", At::File),
            At::File => (0, "", At::File),
        }
    }
}

impl TreeReader for Wide {
    fn root(&self) -> Result<TreeNode> {
        Ok(Self::node(At::Root))
    }

    fn totals(&self) -> TreeTotals {
        TreeTotals::default()
    }

    fn list(
        &self,
        folder: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        let (count, prefix, at) = self.child(folder);
        let number = |name: &Name| {
            let digits = str::from_utf8(&name.as_bytes()[prefix.len()..]).unwrap();
            digits.parse::<usize>().unwrap() + 1
        };
        let from = after.map_or(0, number);
        let told = (from..count).take(max);
        Ok(told
            .map(|n| (name(format!("{prefix}{n:05}")), Self::node(at)))
            .collect())
    }

    fn lookup(&self, folder: &TreeNode, _: &Name) -> Result<Option<TreeNode>> {
        Ok(Some(Self::node(self.child(folder).2)))
    }

    fn read_at(&self, _: &TreeNode, _: u64, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(b'x');
        Ok(())
    }

    fn next_data(&self, _: &TreeNode, offset: u64) -> Result<Option<Region>> {
        Region::new(offset, 9 - offset).map(Some)
    }
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Only one test at a time, so that the memory is its own.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn assert_takes_little_memory<T>(what: impl FnOnce() -> T) -> T {
    // What was needed before does not count.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let made = what();
    let grown = peak().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes more");
    made
}

/// A folder in memory, where there is one: a disk takes long to make thousands of folders.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    }
    .unwrap()
}

#[test]
fn a_tar_archive_of_many_entries_takes_little_memory() {
    let _alone = alone();
    let wide = Wide {
        folders: 300,
        files: 1000,
    };
    let entries = 1 + 300 + 300_000;
    let file = assert_takes_little_memory(|| {
        let file = TarFile::open(Arc::new(wide), &Cancel::new()).unwrap();
        let mut buffer = vec![0; 100_000];
        for part in 0..50 {
            let offset = file.size() * (part * 37 % 50) / 50;
            assert_eq!(file.read_at(offset, &mut buffer).unwrap(), buffer.len());
        }
        file
    });
    assert_eq!(file.report().members, entries);
    // A header each, and a block for the content of each file.
    assert!(file.size() - (entries + 300_000) * 512 < 20_000);
}

#[test]
fn a_hundred_thousand_files_are_extracted_with_little_memory() {
    let _alone = alone();
    let wide = Wide {
        folders: 100,
        files: 1000,
    };
    let temp = folder();
    let report = assert_takes_little_memory(|| {
        let options = ExtractOptions {
            durable: false,
            workers: 3,
            ..ExtractOptions::default()
        };
        let (progress, cancel) = (Progress::default(), Cancel::new());
        extract(&wide, &temp.path().join("to"), &options, &progress, &cancel).unwrap()
    });
    assert_eq!((report.entries, report.problems), (100_101, 0));
    assert_eq!(report.bytes, 900_000);
    assert_eq!(
        fs::read(temp.path().join("to/folder00099/file00999")).unwrap(),
        b"xxxxxxxxx"
    );
}

#[test]
fn large_trees_are_compared_with_little_memory() {
    let _alone = alone();
    let (old, new) = (
        Wide {
            folders: 30,
            files: 1000,
        },
        Wide {
            folders: 30,
            files: 1001,
        },
    );
    let mut added = 0;
    assert_takes_little_memory(|| {
        let trees = (&old as &dyn TreeReader, &new as &dyn TreeReader);
        compare(trees, &Selection::all(), &Cancel::new(), &mut |_| {
            added += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    });
    assert_eq!(added, 30);
}

/// Folders one in the other, a file in each of the last two, and their attributes.
fn deep(levels: usize, length: usize) -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(0o700));
    let mut folder = 0;
    let content = b"deep";
    for level in 0..levels {
        let mut entry = Entry {
            attributes: attributes(0o751),
            kind: EntryKind::Directory,
        };
        entry.attributes.mtime.seconds = i64::try_from(level).unwrap();
        let next = tree.add(folder, name(vec![b'd'; length]), entry);
        if level + 2 > levels || level == 100 {
            let kind = EntryKind::File { size: 4, links: 1 };
            let entry = Entry {
                attributes: attributes(0o640),
                kind,
            };
            let file = tree.add(folder, name("file"), entry);
            tree.write(file, 0, content);
        }
        folder = next;
    }
    tree
}

#[test]
fn a_tree_of_five_thousand_levels_is_extracted() {
    let _alone = alone();
    // Names of 20 bytes: the path is 100 KB long.
    let tree = deep(5000, 20);
    let temp = folder();
    // As many open files as a process may have by default.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(1024);
    setrlimit(Resource::Nofile, limit).unwrap();
    let target = temp.path().join("to");
    let options = ExtractOptions::default();
    let report = extract(
        &tree,
        &target,
        &options,
        &Progress::default(),
        &Cancel::new(),
    )
    .unwrap();
    assert_eq!((report.entries, report.problems), (5003, 0), "{report:?}");
    // Python goes down by one name at a time, as no path is as long.
    let check = "
import os
os.chdir('to')
for level in range(5000):
    if os.path.exists('file'): print(level, open('file').read(), oct(os.stat('file').st_mode))
    os.chdir('d' * 20)
    found = os.stat('.')
    assert (int(found.st_mtime), found.st_mode & 0o7777) == (level, 0o751), (level, found)
";
    if are_here("a_tree_of_five_thousand_levels_is_extracted", &["python3"]) {
        fs::write(temp.path().join("check.py"), check).unwrap();
        let found = sh(temp.path(), "python3 check.py");
        assert_eq!(found, "100 deep 0o100640\n4999 deep 0o100640\n");
    }
}

#[test]
fn a_tree_of_five_thousand_levels_is_a_tar_archive() {
    let _alone = alone();
    let tree = Arc::new(deep(5000, 5));
    let temp = folder();
    let mut out = fs::File::create(temp.path().join("deep.tar")).unwrap();
    let report = write_tar(&*tree, &Selection::all(), &mut out, &Cancel::new()).unwrap();
    let file = TarFile::open(tree, &Cancel::new()).unwrap();
    let archive = fs::read(temp.path().join("deep.tar")).unwrap();
    assert_eq!(
        (file.size(), &report),
        (archive.len() as u64, file.report())
    );
    let mut buffer = vec![0; 100_000];
    for part in [9, 0, 5, 7] {
        let offset = file.size() / 10 * part;
        let read = file.read_at(offset, &mut buffer).unwrap();
        let from = usize::try_from(offset).unwrap();
        assert!(buffer[..read] == archive[from..from + read]);
    }
    if are_here("a_tree_of_five_thousand_levels_is_a_tar_archive", &["tar"]) {
        let last = sh(
            temp.path(),
            "tar -tf deep.tar | awk '{ n++; if (length > l) l = length } END { print n, l }'",
        );
        // The longest is that of the last folder: each name with a slash, and `./` before all.
        assert_eq!(
            last.trim_end(),
            format!("{} {}", report.members, 5000 * 6 + 2)
        );
    }
}

#[test]
fn the_largest_extended_attribute_is_kept() {
    let _alone = alone();
    let test = "the_largest_extended_attribute_is_kept";
    if !has_rights(test) || !are_here(test, &["tar", "getfattr"]) {
        return;
    }
    let mut tree = MemoryTree::new(attributes(0o755));
    let file = tree.file("file", b"x");
    let value: Vec<u8> = (0..65_536_u32)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect();
    tree.entry(file).attributes.xattrs = vec![Xattr {
        name: b"user.large".to_vec(),
        value,
    }];
    let temp = tempfile::tempdir().unwrap();
    let mount = "truncate -s 400M image; mkfs.xfs -q image; mkdir in; mount -o loop image in";
    if !are_here(test, &["mkfs.xfs"]) {
        return;
    }
    sh(temp.path(), mount);
    let _mounted = Mounted(temp.path().join("in"));
    let mut out = fs::File::create(temp.path().join("xattr.tar")).unwrap();
    write_tar(&tree, &Selection::all(), &mut out, &Cancel::new()).unwrap();
    let target = temp.path().join("in/to");
    let options = ExtractOptions::default();
    let report = extract(
        &tree,
        &target,
        &options,
        &Progress::default(),
        &Cancel::new(),
    )
    .unwrap();
    assert_eq!(report.named, []);
    sh(
        temp.path(),
        "mkdir in/tar; tar --xattrs -xf xattr.tar -C in/tar",
    );
    let read = |of: &str| {
        sh(
            temp.path(),
            &format!("getfattr -d -e hex in/{of}/file | sed 1d"),
        )
    };
    assert_eq!(read("to"), read("tar"));
    assert!(read("to").len() > 131_072);
}

/// Taken off again with the test.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        std::process::Command::new("umount")
            .arg(&self.0)
            .status()
            .ok();
    }
}

#[test]
fn a_deep_path_is_named_in_full_where_something_fails() {
    let _alone = alone();
    let mut tree = deep(300, 10);
    tree.broken_from = Some(0);
    let temp = folder();
    let target = temp.path().join("to");
    let options = ExtractOptions::default();
    let report = extract(
        &tree,
        &target,
        &options,
        &Progress::default(),
        &Cancel::new(),
    )
    .unwrap();
    let wanted = |levels: usize| {
        TreePath::new(format!("{}file", "dddddddddd/".repeat(levels)).into_bytes()).unwrap()
    };
    let mut named: Vec<_> = report
        .named
        .into_iter()
        .map(|problem| problem.path)
        .collect();
    named.sort_by_key(|path| path.as_bytes().len());
    assert_eq!(named, [wanted(100), wanted(299)]);
}
