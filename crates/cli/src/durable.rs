//! Files whose names outlast a power cut.

use std::fs::File;
use std::io;
use std::path::Path;

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
