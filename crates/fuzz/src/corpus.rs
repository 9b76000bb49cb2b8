//! The inputs that are kept, one a file.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::limits;

/// An input and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub input: Vec<u8>,
}

/// A target's corpus: all that is in this folder, in the order of the files' names.
///
/// # Errors
/// If there is none, or more than 256 inputs, or one of more than 64 KiB.
pub fn corpus(folder: &Path) -> io::Result<Vec<Kept>> {
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| named(error, folder))? {
        paths.push(entry?.path());
        if paths.len() > limits::CORPUS_FILES_MAX {
            let most = limits::CORPUS_FILES_MAX;
            let message = format!("{} has more than {most} files", folder.display());
            return Err(io::Error::other(message));
        }
    }
    if paths.is_empty() {
        let message = format!("{} has no file", folder.display());
        return Err(io::Error::other(message));
    }
    paths.sort();
    let read = |path: PathBuf| {
        let input = fs::read(&path).map_err(|error| named(error, &path))?;
        if input.len() > limits::INPUT_BYTES_MAX {
            let message = format!("{} has {} bytes", path.display(), input.len());
            return Err(io::Error::other(message));
        }
        Ok(Kept { path, input })
    };
    paths.into_iter().map(read).collect()
}
