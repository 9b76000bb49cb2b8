//! The two trees: a copy of this machine's system, and many small files.
//!
//! The system is copied first, for three reasons: all generations must lie at one path, or nobody
//! recognises a file of the generation before; a part of it can be taken; and nothing else changes
//! it during the run.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::words::Words;
use crate::bench::files::{SYSTEM, entries};
use crate::bench::random::Random;
use crate::shell::run;

/// The largest small file, in bytes.
const SMALL: u64 = 8 << 10;
/// Small files in a folder, at least and at most.
const IN_A_FOLDER: (u64, u64) = (100, 500);
/// Folders in a folder.
const FOLDERS: usize = 40;
/// What a run needs besides a tree, in copies of it: five repositories and a restored tree.
const COPIES: u64 = 4;
/// What the last block of a file and its inode take on the disk, in bytes, on average.
const OVERHEAD: u64 = 4096;

/// A tree as it was made.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) title: &'static str,
    /// What it is made of.
    pub(super) origin: String,
    pub(super) folder: PathBuf,
    /// Entries of every kind below the folder.
    pub(super) entries: u64,
    /// Regular files among them.
    pub(super) files: u64,
    /// Bytes in the files.
    pub(super) bytes: u64,
}

impl Tree {
    /// Counts what is below a folder.
    fn look(title: &'static str, origin: String, folder: PathBuf) -> Result<Self> {
        let found = entries(&folder)?;
        let files = found.iter().filter(|(_, entry)| entry.is_file());
        Ok(Self {
            title,
            origin,
            entries: found.len() as u64,
            files: files.clone().count() as u64,
            bytes: files.map(|(_, entry)| entry.len()).sum(),
            folder,
        })
    }
}

/// Copies the system, or at most so many entries of it if that is not 0.
pub(super) fn system(folder: PathBuf, most: usize) -> Result<Tree> {
    let mut found = entries(Path::new(SYSTEM))?;
    if most > 0 {
        found.truncate(most);
    }
    let files = found.iter().filter(|(_, entry)| entry.is_file());
    let bytes = files.map(|(_, entry)| entry.len()).sum();
    std::fs::create_dir(&folder)?;
    ensure_room(&folder, found.len() as u64, bytes)?;
    let list = folder.with_extension("list");
    let mut names = Vec::new();
    for (path, _) in &found {
        let inside = path.strip_prefix(SYSTEM)?;
        names.write_all(inside.as_os_str().as_bytes())?;
        names.push(0);
    }
    std::fs::write(&list, names)?;
    let mut copy = Command::new("rsync");
    copy.args(["-aHAX", "--from0", "--files-from"]).arg(&list);
    run(copy.arg(format!("{SYSTEM}/")).arg(&folder))?;
    Tree::look("System", format!("A copy of {SYSTEM}"), folder)
}

/// Writes small files, of text.
pub(super) fn small(
    folder: PathBuf,
    files: usize,
    words: &Words,
    random: &mut Random,
) -> Result<Tree> {
    std::fs::create_dir(&folder)?;
    ensure_room(&folder, files as u64, files as u64 * SMALL / 2)?;
    let mut written = 0;
    for number in 0.. {
        if written == files {
            break;
        }
        let inside = format!("{:03}/{:02}", number / FOLDERS, number % FOLDERS);
        let folder = folder.join(inside);
        std::fs::create_dir_all(&folder)?;
        let (least, most) = IN_A_FOLDER;
        let count = usize::try_from(least + random.below(most - least + 1))?;
        for _ in 0..count.min(files - written) {
            let length = usize::try_from(random.below(SMALL + 1))?;
            let file = folder.join(format!("{written:06}.txt"));
            std::fs::write(&file, words.write(length, random))
                .with_context(|| format!("could not write {}", file.display()))?;
            written += 1;
        }
    }
    let what = "made of stretches of text files below";
    let origin = format!("Text files of up to {} KiB, {what} {SYSTEM}", SMALL >> 10);
    Tree::look("Small files", origin, folder)
}

/// Whether a tree of so many entries and bytes, and what is made of it, has room.
fn ensure_room(folder: &Path, entries: u64, bytes: u64) -> Result<()> {
    let found = rustix::fs::statvfs(folder).context("could not ask for free space")?;
    let room = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = needed(entries, bytes);
    ensure!(
        room >= needed,
        "{} has {} MiB free, and {} MiB are needed: let TMPDIR name another folder, or make the trees smaller",
        folder.display(),
        room >> 20,
        needed >> 20
    );
    Ok(())
}

fn needed(entries: u64, bytes: u64) -> u64 {
    (1 + COPIES) * (bytes + entries * OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::{Random, Words, entries, small};
    use crate::shell::Scratch;

    #[test]
    fn a_seed_always_gives_the_same_small_files() {
        let scratch = Scratch::new("small").unwrap();
        let words = Words::of("some words to write".to_owned());
        let make = |name: &str, seed| {
            let folder = scratch.path().join(name);
            let tree = small(folder.clone(), 700, &words, &mut Random(seed)).unwrap();
            assert_eq!(tree.files, 700);
            let files = entries(&folder).unwrap().into_iter();
            let files = files.filter(|(_, entry)| entry.is_file());
            let sizes = files
                .map(|(path, entry)| (path.strip_prefix(&folder).unwrap().to_owned(), entry.len()));
            (tree.bytes, tree.entries, sizes.collect::<Vec<_>>())
        };
        let first = make("first", 5);
        assert_eq!(first, make("again", 5));
        assert_ne!(first, make("other", 6));
        assert!(first.2.iter().all(|(_, size)| *size <= 8192));
        assert!(first.1 > 701, "several folders");
    }
}
