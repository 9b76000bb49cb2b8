//! Files and folders whose names outlast a power cut.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::failure::{Code, fault};

/// The folder that a file lies in.
pub(crate) fn folder_of(file: &Path) -> &Path {
    (file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty()))
    .unwrap_or(Path::new("."))
}

/// Makes a new file's name durable; its content is synced by itself.
pub(crate) fn sync_name(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

/// Makes a folder and those above it that are missing, each with a durable name. One that is there
/// may be what a killed run left that had not synced it.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = (folder.ancestors())
        .take_while(|f| !f.as_os_str().is_empty() && fs::symlink_metadata(f).is_err())
        .collect();
    fs::create_dir_all(folder)?;
    if missing.is_empty() {
        return match sync_name(folder) {
            // Whoever may not even open the parent has not made a folder in it.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    missing.iter().rev().try_for_each(|made| sync_name(made))
}

/// Writes a whole file or none, its owner's alone, with a durable name.
pub(crate) fn write_whole<T>(
    path: &Path,
    overwrite: bool,
    content: impl FnOnce(&mut File) -> Result<T>,
) -> Result<T> {
    let cannot = || format!("cannot write {}", path.display());
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(cannot),
        // A new file would take the place of a device, and a link that of where it leads.
        Ok(found) if !found.is_file() => {
            let what = format!("{} is there and no regular file", path.display());
            return Err(fault(Code::Failed, what));
        }
        Ok(_) if !overwrite => {
            let what = format!("{} exists; --overwrite replaces it", path.display());
            return Err(fault(Code::Failed, what));
        }
        Ok(_) => {}
    }
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path)).with_context(cannot)?;
    let written = content(file.as_file_mut()).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    let named = if overwrite {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    named.with_context(cannot)?;
    sync_name(path).with_context(cannot)?;
    Ok(written)
}
