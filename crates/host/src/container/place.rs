//! Where a machine keeps what others must know of the backup of one container.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, Result};

use super::lines::{shown, shown_path};

/// Where the lock and the journal of one container are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    stem: String,
}

impl Place {
    /// Of what is backed up, in a folder of states, which is made if it is not there.
    pub(super) fn new(folder: &Path, label: &str, path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| cannot("make", folder, e))?;
        check_safe(folder)?;
        check_above(folder)?;
        let label: String = (label.chars())
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .take(64)
            .collect();
        let stem = format!("{label}-{:016x}", hash(path.as_os_str().as_bytes()));
        let folder = std::path::absolute(folder).map_err(|e| cannot("use", folder, e))?;
        Ok(Self { folder, stem })
    }

    /// One that another process of ours named; its folder is there.
    pub(super) fn named(folder: &Path, stem: &str) -> Result<Self> {
        check_safe(folder)?;
        if !(stem.bytes()).all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            let what = format!("{:?} is no container's state", shown(stem.as_bytes()));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self {
            folder: folder.to_owned(),
            stem: stem.to_owned(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.folder.join(format!("{}.journal", self.stem))
    }

    /// What a guard wrote down that had nobody to tell it.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.stem))
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.stem))
    }
}

/// The programs that a journal names are run: nobody else may write here.
fn check_safe(folder: &Path) -> Result<()> {
    let about = std::fs::metadata(folder).map_err(|e| cannot("use", folder, e))?;
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own || about.mode() & 0o022 != 0 {
        let what = format!(
            "the folder {} keeps what a later backup does as this user: it must be this user's, and nobody \
             else may write there",
            shown_path(folder)
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

/// Nor may anybody else put another folder in its place.
fn check_above(folder: &Path) -> Result<()> {
    let folder = folder
        .canonicalize()
        .map_err(|e| cannot("use", folder, e))?;
    let Some(above) = folder.parent() else {
        return Ok(());
    };
    let about = std::fs::metadata(above).map_err(|e| cannot("use", above, e))?;
    let own = rustix::process::geteuid().as_raw();
    let is_open = about.mode() & 0o022 != 0 && about.mode() & 0o1000 == 0;
    if is_open || ![0, own].contains(&about.uid()) {
        let what = format!(
            "the folder {} holds {}, which nobody else may replace: it must be this user's or root's, and \
             nobody else may write there",
            shown_path(above),
            shown_path(&folder)
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

pub(super) fn cannot(doing: &str, path: &Path, e: io::Error) -> Error {
    let what = format!("cannot {doing} {}", shown_path(path));
    Error::with_source(ErrorKind::Target, what, e)
}

/// FNV-1a, which is the same in every version of this program.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_another_process_names_is_not_made() {
        let folder = tempfile::TempDir::new().unwrap();
        let absent = folder.path().join("absent");
        Place::named(&absent, "web-1").unwrap_err();
        assert!(!absent.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let kept = |folder: &Path| Place::new(folder, "web", Path::new("/a")).map(drop);
        assert!(kept(folder.path()).is_err());
        // Nor may they put another in its place.
        let inside = folder.path().join("inside");
        let said = kept(&inside).unwrap_err().chain();
        assert!(said.contains("nobody else may replace"), "{said}");
        let sticky = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(folder.path(), sticky).unwrap();
        kept(&inside).unwrap();
    }
}
