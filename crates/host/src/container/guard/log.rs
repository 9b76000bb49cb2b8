//! What a guard says when its backup is dead, and nobody may listen any more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use snapkeep_api::{Level, TaskLog};

use crate::container::limits::GUARD_LOG_BYTES_MAX;

/// A file of the last guard's words, which has a limit.
pub(super) struct FileLog(Mutex<Option<Open>>);

struct Open {
    file: File,
    left: usize,
}

impl FileLog {
    /// Begins the file anew. A guard does its work also where nothing can be written.
    pub(super) fn new(path: &Path) -> Self {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path);
        let left = GUARD_LOG_BYTES_MAX;
        Self(Mutex::new(file.ok().map(|file| Open { file, left })))
    }
}

impl TaskLog for FileLog {
    fn log(&self, level: Level, message: &str) {
        let Ok(mut open) = self.0.lock() else {
            return;
        };
        let Some(Open { file, left }) = &mut *open else {
            return;
        };
        let line = format!("{level:?}: {message}\n");
        match left.checked_sub(line.len()) {
            Some(rest) if file.write_all(line.as_bytes()).is_ok() => *left = rest,
            Some(_) | None => *open = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_words_begins_anew_and_has_an_end() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("web.log");
        FileLog::new(&path).log(Level::Warn, "of an earlier guard");
        let log = FileLog::new(&path);
        for _ in 0..GUARD_LOG_BYTES_MAX {
            log.log(Level::Error, "it fails");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("Error: it fails\n") && text.ends_with("fails\n"));
        assert!(text.len() <= GUARD_LOG_BYTES_MAX && text.len() > GUARD_LOG_BYTES_MAX / 2);
    }
}
