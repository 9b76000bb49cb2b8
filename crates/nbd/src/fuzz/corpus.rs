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

/// The corpus of the target of this name, in the order of the files' names.
///
/// # Errors
/// If there is none, or more or longer inputs than [`limits::MAX_CORPUS_FILES`] and
/// [`limits::MAX_FUZZ_INPUT_BYTES`] allow.
pub fn corpus(target: &str) -> io::Result<Vec<Kept>> {
    let folder = corpus_folder(target);
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| named(error, &folder))? {
        paths.push(entry?.path());
        if paths.len() > limits::MAX_CORPUS_FILES {
            let most = limits::MAX_CORPUS_FILES;
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
        if input.len() > limits::MAX_FUZZ_INPUT_BYTES {
            let message = format!("{} has {} bytes", path.display(), input.len());
            return Err(io::Error::other(message));
        }
        Ok(Kept { path, input })
    };
    paths.into_iter().map(read).collect()
}

/// Where the corpus of the target of this name is.
pub fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}
