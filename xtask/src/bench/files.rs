//! What the files of this machine's system hold, in the order in which a file system would lay
//! them: whole folders, file behind file, each from a block's border on.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::corpus::{BLOCK, Random};

/// The folder whose files are used.
pub(crate) const SYSTEM: &str = "/usr";

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
        let mut folders = vec![folder.to_owned()];
        let mut groups = Vec::new();
        while let Some(folder) = folders.pop() {
            let mut files = Vec::new();
            let cannot = || format!("could not list {}", folder.display());
            for entry in std::fs::read_dir(&folder).with_context(cannot)? {
                let path = entry.with_context(cannot)?.path();
                let found = path.symlink_metadata().with_context(cannot)?;
                if found.is_dir() {
                    folders.push(path);
                } else if found.is_file() && found.nlink() == 1 {
                    files.push(path);
                }
            }
            files.sort();
            groups.push((folder, files));
        }
        groups.sort();
        let mut shuffled = Vec::new();
        while !groups.is_empty() {
            let draw = random.below(groups.len() as u64);
            let drawn = usize::try_from(draw).context("a folder has a small number")?;
            shuffled.extend(groups.swap_remove(drawn).1);
        }
        Ok(Self {
            rest: shuffled.into_iter(),
            open: None,
        })
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
