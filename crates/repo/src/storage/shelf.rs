//! Files of a cache, each with its checksum; those that were not used for the longest time go when
//! there is no room. Whatever fails here is only slow.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits;

/// How a file begins: its form, then the checksum of the rest.
const MAGIC: &[u8; 8] = b"skcache1";
const HEAD: usize = 8 + blake3::OUT_LEN;
/// What file systems give to a file at least.
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    max: u64,
    /// Bytes written since somebody last looked whether there is room.
    written: AtomicU64,
    number: AtomicU64,
}

impl Shelf {
    /// In this folder, with room for so many bytes.
    pub(super) fn new(folder: &Path, max: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            max,
            // The first thing that is written looks.
            written: AtomicU64::new(max),
            number: AtomicU64::new(0),
        }
    }

    fn path(&self, key: &blake3::Hash) -> PathBuf {
        let name = key.to_hex();
        self.folder.join(&name[..2]).join(&name[2..])
    }

    /// What was put with this key. What is damaged is removed.
    pub(super) fn get(&self, key: &blake3::Hash) -> Option<Vec<u8>> {
        let path = self.path(key);
        let file = File::options().read(true).write(true).open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        if length > limits::CACHE_FILE_MAX {
            drop(fs::remove_file(&path));
            return None;
        }
        let mut bytes = Vec::new();
        (&file)
            .take(limits::CACHE_FILE_MAX)
            .read_to_end(&mut bytes)
            .ok()?;
        let good = bytes.len() >= HEAD
            && bytes.starts_with(MAGIC)
            && checksum(key, &bytes[HEAD..]).as_bytes() == &bytes[MAGIC.len()..HEAD];
        if !good {
            drop(fs::remove_file(&path));
            return None;
        }
        // That it was used now is only worth a try.
        drop(file.set_modified(now()));
        bytes.drain(..HEAD);
        Some(bytes)
    }

    /// Keeps it, if there is room to be had.
    pub(super) fn put(&self, key: &blake3::Hash, bytes: &[u8]) {
        let length = (HEAD + bytes.len()) as u64;
        if length > limits::CACHE_FILE_MAX.min(self.max / 8) {
            return;
        }
        let length = on_disk(length);
        let written = self.written.fetch_add(length, Ordering::Relaxed) + length;
        if written > self.max / 16 {
            self.written.store(0, Ordering::Relaxed);
            drop(self.make_room());
        }
        drop(self.write(key, bytes));
    }

    fn write(&self, key: &blake3::Hash, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        (fs::DirBuilder::new().recursive(true).mode(0o700)).create(folder)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".new-{}-{number}", std::process::id()));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        let written = (file.write_all(MAGIC))
            .and_then(|()| file.write_all(checksum(key, bytes).as_bytes()))
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| rename(&temporary, &path));
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written
    }

    /// Removes what was not used for the longest time, until seven eighths of the room suffice.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = 0;
        for folder in fs::read_dir(&self.folder)?.take(limits::CACHE_FOLDERS) {
            let Ok(entries) = fs::read_dir(folder?.path()) else {
                continue;
            };
            for entry in entries.flatten().take(limits::CACHE_FILES) {
                let Ok(found) = entry.metadata() else {
                    continue;
                };
                let used = (found.modified().ok())
                    .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                    .unwrap_or_default();
                let length = on_disk(found.len());
                total += length;
                files.push((used, length, entry.path()));
            }
        }
        files.sort();
        let enough = self.max / 8 * 7;
        for (_, length, path) in files {
            if total <= enough {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= length;
            }
        }
        Ok(())
    }
}

/// What a file takes of a disk: many are small.
fn on_disk(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a cache is no file of the repository"
)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Of what is kept, and of what it is kept for: a file under another's name is damaged too.
fn checksum(key: &blake3::Hash, bytes: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(key.as_bytes(), bytes)
}

#[expect(
    clippy::disallowed_methods,
    reason = "only what was used before what depends on it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> blake3::Hash {
        blake3::hash(text.as_bytes())
    }

    #[test]
    fn what_is_damaged_or_lies_under_another_name_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(folder.path(), 1 << 20);
        shelf.put(&key("a"), b"bytes");
        assert_eq!(shelf.get(&key("a")).as_deref(), Some(&b"bytes"[..]));
        assert_eq!(shelf.get(&key("b")), None);
        let (one, other) = (shelf.path(&key("a")), shelf.path(&key("b")));
        fs::create_dir_all(other.parent().expect("it has one")).expect("room");
        fs::copy(&one, &other).expect("room");
        assert_eq!(shelf.get(&key("b")), None);
        assert!(!other.exists(), "it is gone");
        let whole = fs::read(&one).expect("there");
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&one, bytes).expect("room");
            assert_eq!(shelf.get(&key("a")), None, "byte {place}");
        }
        fs::write(&one, &whole[..20]).expect("room");
        assert_eq!(shelf.get(&key("a")), None);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_size_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let max = 64 << 10;
        let shelf = Shelf::new(folder.path(), max);
        for number in 0..200 {
            shelf.put(&key(&number.to_string()), &[0; 1024]);
            assert!(shelf.get(&key("0")).is_some(), "it is used all the time");
        }
        let size: u64 = (0..200)
            .filter_map(|number| fs::metadata(shelf.path(&key(&number.to_string()))).ok())
            .map(|found| on_disk(found.len()))
            .sum();
        assert!(size <= max + max / 8, "{size}");
        assert!(shelf.get(&key("199")).is_some() && shelf.get(&key("1")).is_none());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_only_slow() {
        let shelf = Shelf::new(Path::new("/proc/none"), 1 << 20);
        shelf.put(&key("a"), b"bytes");
        assert_eq!(shelf.get(&key("a")), None);
    }
}
