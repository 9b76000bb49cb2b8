//! What the files of this machine's system hold, in the order in which a file system would lay
//! them: whole folders, file behind file, each from a block's border on.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::random::Random;

/// The block of a file system: a file's content begins at a multiple of it.
pub(crate) const BLOCK: u64 = 4096;

/// The folder whose files are used.
pub(crate) const SYSTEM: &str = "/usr";

/// What is below a folder, links as such: each folder before what is in it, by name.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    list(folder, &mut found)?;
    Ok(found)
}

fn list(folder: &Path, found: &mut Vec<(PathBuf, Metadata)>) -> Result<()> {
    let cannot = || format!("could not list {}", folder.display());
    let paths = std::fs::read_dir(folder).with_context(cannot)?;
    let paths = paths.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>().with_context(cannot)?;
    paths.sort_unstable();
    for path in paths {
        let metadata = path.symlink_metadata().with_context(cannot)?;
        let is_folder = metadata.is_dir();
        found.push((path.clone(), metadata));
        if is_folder {
            list(&path, found)?;
        }
    }
    Ok(())
}

/// The contents of a folder's files, each handed out once.
#[derive(Debug)]
pub(crate) struct Files {
    rest: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
}

impl Files {
    /// The files below a folder. Its folders come in an order that the numbers decide; a file with
    /// several names is left out, for a disk has it once.
    pub(crate) fn below(folder: &Path, random: &mut Random) -> Result<Self> {
        let mut groups = BTreeMap::from([(folder.to_owned(), Vec::new())]);
        for (path, found) in entries(folder)? {
            if found.is_dir() {
                groups.insert(path, Vec::new());
            } else if found.is_file() && found.nlink() == 1 {
                let parent = path.parent().context("a file has a folder")?;
                groups.entry(parent.to_owned()).or_default().push(path);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        let mut shuffled = Vec::new();
        while !groups.is_empty() {
            shuffled.extend(groups.swap_remove(random.index(groups.len())).1);
        }
        Ok(Self {
            rest: shuffled.into_iter(),
            open: None,
        })
    }

    /// The next file, for a reader of its own.
    pub(crate) fn next_path(&mut self) -> Option<PathBuf> {
        self.rest.next()
    }

    /// Fills the buffer with the next so many bytes, a multiple of the block.
    pub(crate) fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
        buffer.clear();
        while buffer.len() < length {
            let file = match self.open.take() {
                Some(file) => file,
                None => File::open(self.rest.next().ok_or_else(too_few)?)?,
            };
            let room = length - buffer.len();
            let got = (&file).take(room as u64).read_to_end(buffer)?;
            if got == room {
                self.open = Some(file); // There may be more of it.
            }
            let block = usize::try_from(BLOCK).map_err(io::Error::other)?;
            buffer.resize(buffer.len().next_multiple_of(block), 0);
        }
        buffer.truncate(length);
        Ok(())
    }
}

fn too_few() -> io::Error {
    io::Error::other(format!(
        "the files below {SYSTEM} are too few for a disk of this size: give a smaller --size-mib"
    ))
}
