//! Temporary files that killed writers left in a repository's folder.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::local::{LIKE_AN_ARCHIVE, TEMPORARY};
use crate::{Error, ErrorKind, Result, limits};

/// Where a writer puts files: the repository's folder, and all that is below these.
const FOLDERS: &[&str] = &[
    "keys",
    "packs",
    "index",
    "snapshots",
    "heads",
    "attributes",
    "features",
    "prune",
    "tables",
];
/// What each repository has.
const CONFIG: &str = "config";

/// A temporary file: a writer is at work on it, or was killed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftFile {
    /// Where it is.
    pub path: PathBuf,
    /// The writer's process, on whichever machine that runs.
    pub process: u32,
    /// Its length in bytes.
    pub length: u64,
    /// For how many seconds nobody has written to it; zero if that is to come.
    pub age: u64,
    /// The file system and the file in it, so that no other is taken for it.
    pub identity: (u64, u64),
}

/// The temporary files in a repository's folder, at this time in seconds since 1970. Nothing is opened,
/// and no link is followed.
pub fn left_files(root: &Path, now: i64) -> Result<Vec<LeftFile>> {
    if !root.join(CONFIG).is_file() {
        let what = format!("{} is no repository, or is not readable", root.display());
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    let mut left = Vec::new();
    let mut seen = 0;
    let mut folders: Vec<(PathBuf, usize)> = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let failed = |e| Error::io(format!("cannot list {}", folder.display()), e);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            seen += 1;
            if seen > limits::FILES_MAX {
                let what = format!("{} has more files than are looked at", root.display());
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let has_files = depth > 0 || FOLDERS.contains(&name);
            if kind.is_dir() && has_files && depth < limits::FOLDER_DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            } else if let (true, Some(process)) = (kind.is_file(), writer(name)) {
                match about(&entry, process, now) {
                    Ok(file) => left.push(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed(e)),
                }
            }
        }
    }
    left.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(left)
}

/// Removes a temporary file that nobody has written to since it was found. Its writer, if it lives
/// after all, fails when it is to give the file its name, and with it its backup; nothing else is lost.
pub fn remove_left_file(file: &LeftFile) -> Result<()> {
    let failed = |e| Error::io(format!("cannot remove {}", file.path.display()), e);
    let found = match fs::symlink_metadata(&file.path) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let same = (found.dev(), found.ino()) == file.identity && found.len() == file.length;
    if !same {
        return Err(failed(io::Error::other(
            "it is not the file any more that was found",
        )));
    }
    fs::remove_file(&file.path).map_err(failed)
}

fn about(entry: &DirEntry, process: u32, now: i64) -> io::Result<LeftFile> {
    let found = entry.metadata()?;
    Ok(LeftFile {
        path: entry.path(),
        process,
        length: found.len(),
        age: u64::try_from(now.saturating_sub(found.mtime())).unwrap_or(0),
        identity: (found.dev(), found.ino()),
    })
}

/// The process whose temporary file has this name.
fn writer(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(TEMPORARY)?;
    let rest = rest.strip_suffix(LIKE_AN_ARCHIVE).unwrap_or(rest);
    let (process, number) = rest.split_once('-')?;
    number.parse::<u64>().ok()?;
    process.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let found = left_files(root, 0).expect("a repository");
        let name = |file: &LeftFile| file.path.strip_prefix(root).expect("below").to_owned();
        let names = found.iter().map(|f| name(f).to_string_lossy().into_owned());
        names.collect()
    }

    #[test]
    fn temporary_files_of_writers_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let missing = left_files(root, 0).expect_err("none");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        for made in ["packs/ab", "snapshots/main/vm/web", "photos"] {
            fs::create_dir_all(root.join(made)).expect("room");
        }
        for (name, bytes) in [
            ("config", 1),
            (".put-7-0", 5),
            (".put-7-1-2001-01-01T00:00:00Z-0000000000000000", 0),
            ("packs/ab/.put-8-12", 0),
            ("snapshots/main/vm/web/.put-9-1", 3),
            ("packs/ab/.put-8", 1),
            ("packs/ab/.put-8-x", 1),
            ("packs/ab/.nfs0001", 1),
            ("packs/ab/pack", 1),
            ("photos/.put-1-1", 1),
        ] {
            fs::write(root.join(name), vec![0; bytes]).expect("room");
        }
        std::os::unix::fs::symlink(root.join("config"), root.join(".put-1-1")).expect("room");
        let found = names(root);
        let wanted = [
            ".put-7-0",
            ".put-7-1-2001-01-01T00:00:00Z-0000000000000000",
            "packs/ab/.put-8-12",
            "snapshots/main/vm/web/.put-9-1",
        ];
        assert_eq!(found, wanted);
        let found = left_files(root, 0).expect("a repository");
        assert_eq!((found[0].process, found[0].length), (7, 5));
        // Another one has its name by now.
        fs::remove_file(&found[0].path).expect("there");
        fs::write(&found[0].path, "longer than it").expect("room");
        remove_left_file(&found[0]).expect_err("another file");
        remove_left_file(&found[1]).expect("the same file");
        remove_left_file(&found[1]).expect("gone is gone");
        assert_eq!(names(root).len(), 3);
    }

    #[test]
    fn the_age_is_what_passed_since_somebody_wrote() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("config"), "").expect("room");
        fs::write(folder.path().join(".put-1-1"), "").expect("room");
        let file = fs::metadata(folder.path().join(".put-1-1")).expect("there");
        let age = |now| left_files(folder.path(), now).expect("a repository")[0].age;
        assert_eq!(age(file.mtime() + 3600), 3600);
        assert_eq!(age(i64::MIN), 0);
    }
}
