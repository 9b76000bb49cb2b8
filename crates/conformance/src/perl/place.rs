//! The storage of one factory call: a new folder, and what is prepared in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapkeep_api::{Error, ErrorKind, Result};
use tempfile::TempDir;

use super::process::run;
use super::{PerlClass, broken};

/// The driver, so that the installed program has it.
const DRIVER: &str = include_str!("../../../../perl/conformance/driver.pl");

/// A new, empty storage, gone with this value.
#[derive(Debug)]
pub(crate) struct Place {
    /// For the kit: the driver, log files.
    own: TempDir,
    /// `{dir}`
    storage: TempDir,
}

impl Place {
    pub(crate) fn new(class: &PerlClass) -> Result<Self> {
        let failed =
            |e| Error::with_source(ErrorKind::Target, "cannot make a folder for the kit", e);
        let folder = |name: &str| tempfile::Builder::new().prefix(name).tempdir();
        let place = Self {
            own: folder("snapkeep-kit-").map_err(failed)?,
            storage: folder("snapkeep-storage-").map_err(failed)?,
        };
        // The root user of a container's user namespace passes through it.
        fs::set_permissions(place.storage.path(), fs::Permissions::from_mode(0o755))
            .and_then(|()| fs::write(place.driver(), DRIVER))
            .map_err(failed)?;
        for line in &class.prepare {
            place.prepare(line, class)?;
        }
        Ok(place)
    }

    pub(crate) fn driver(&self) -> PathBuf {
        self.own.path().join("driver.pl")
    }

    /// Where a guest's task log is.
    pub(crate) fn log(&self, guest: u64) -> PathBuf {
        self.own.path().join(format!("guest-{guest}.log"))
    }

    /// A text with the storage's folder in the place of `{dir}`.
    pub(crate) fn filled(&self, text: &str) -> Result<String> {
        let path = self.storage.path();
        let path =
            (path.to_str()).ok_or_else(|| broken("the folder for temporary files is no text"))?;
        Ok(text.replace("{dir}", path))
    }

    fn prepare(&self, line: &str, class: &PerlClass) -> Result<()> {
        let mut words = line.split_whitespace();
        let program = words.next();
        let program = program.ok_or_else(|| broken("a command to prepare with is empty"))?;
        let mut command = Command::new(self.filled(program)?);
        for word in words {
            command.arg(self.filled(word)?);
        }
        command.current_dir(Path::new("/"));
        run(command, class.patience).map_err(|why| broken(format!("`{line}`: {why}")))
    }
}
