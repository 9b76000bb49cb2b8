//! What is remembered outside of a repository: a small file for each guest. The heads that a cluster
//! remembers lie in a folder that all of its hosts see; on Proxmox VE that is below `/etc/pve`, which
//! knows neither links nor files without a name, so a file is written beside and renamed. What a host
//! remembers of archives ([`crate::past`]) lies in its own state folder.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, Result};
use snapkeep_provider::HeadMemory;

use crate::durable::sync_name;

/// How the name of a file ends that is being written. No guest's or storage's name does.
pub(crate) const NEW: &str = ".new";
/// More bytes than the name of a head or an archive has.
const HEAD_MAX: u64 = 1024;

/// A folder of what is remembered.
#[derive(Debug)]
pub(crate) struct MemoryFolder(PathBuf);

impl MemoryFolder {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The places below one that something is remembered at, in order.
    pub(crate) fn below(&self, place: &str) -> Result<Vec<String>> {
        let start = format!("{}+", place.replace('/', "+"));
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(|error| failed("list", &self.0, error))?,
        };
        for entry in entries {
            let name = entry
                .map_err(|error| failed("list", &self.0, error))?
                .file_name();
            let place = name.to_str().filter(|name| name.starts_with(&start));
            // One that is being written has another name.
            found.extend(
                place
                    .filter(|name| !name.ends_with(NEW))
                    .map(|name| name.replace('+', "/")),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Remembers nothing at a place.
    pub(crate) fn forget(&self, place: &str) -> Result<()> {
        let path = self.file(place);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, error))
            }
            Ok(()) | Err(_) => sync_name(&path).map_err(|error| failed("remove", &path, error)),
        }
    }

    /// `heads/NAMESPACE/KIND/GUEST/STORAGE` without its first part; no name has a `+`.
    fn file(&self, place: &str) -> PathBuf {
        let place = place.strip_prefix("heads/").unwrap_or(place);
        self.0.join(place.replace('/', "+"))
    }
}

impl HeadMemory for MemoryFolder {
    fn remembered(&self, place: &str) -> Result<Option<String>> {
        let path = self.file(place);
        let read = || -> io::Result<String> {
            let mut text = String::new();
            let file = File::open(&path)?;
            file.take(HEAD_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, error)),
        }
    }

    fn remember(&self, place: &str, head: &str) -> Result<()> {
        let path = self.file(place);
        (fs::DirBuilder::new().recursive(true).mode(0o700))
            .create(&self.0)
            .map_err(|error| failed("make the folder of", &path, error))?;
        write(&path, head).map_err(|error| failed("write", &path, error))
    }
}

/// Under a name of its own first, which the next one takes again should this one be killed.
#[expect(clippy::disallowed_methods, reason = "it is no file of a repository")]
fn write(path: &Path, head: &str) -> io::Result<()> {
    let new = PathBuf::from(format!("{}{NEW}", path.display()));
    let mut file = (File::options().write(true).create(true).truncate(true))
        .mode(0o600)
        .open(&new)?;
    writeln!(file, "{head}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_name(path)
}

fn failed(doing: &str, path: &Path, error: impl Into<anyhow::Error>) -> Error {
    let what = format!(
        "cannot {doing} {}, which remembers what the repository had: {:#}",
        path.display(),
        error.into()
    );
    Error::new(ErrorKind::Target, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "heads/pve/vm/100/store.0123456789abcdef";

    #[test]
    fn the_last_head_of_each_place_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryFolder::new(folder.path().join("not/yet/there"));
        assert_eq!(memory.remembered(PLACE).unwrap(), None);
        for head in ["heads/a/0-1", "heads/a/1-2"] {
            memory.remember(PLACE, head).unwrap();
            assert_eq!(memory.remembered(PLACE).unwrap().unwrap(), head);
        }
        let other = "heads/pve/vm/101/store.0123456789abcdef";
        assert_eq!(memory.remembered(other).unwrap(), None);
        memory.remember(other, "heads/b/0-3").unwrap();
        assert_eq!(memory.remembered(PLACE).unwrap().unwrap(), "heads/a/1-2");
        let left = fs::read_dir(&memory.0).unwrap().count();
        assert_eq!(left, 2, "what was written beside is renamed");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let memory = MemoryFolder::new(file.clone());
        let error = memory.remember(PLACE, "h").unwrap_err();
        assert!(
            error.chain().contains(file.to_str().unwrap()),
            "{}",
            error.chain()
        );
        assert!(memory.remembered(PLACE).is_err());
    }
}
