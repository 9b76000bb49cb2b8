//! The restore of a container, from the folder that the class shows.

use std::path::Path;
use std::sync::PoisonError;

use snapkeep_api::tree::TreeReader;
use snapkeep_api::{ArchiveName, ContainerRestore, Error, ErrorKind, Result};

use super::{Arg, Call, Returned, STORAGE, Session, info, wrong};
use crate::perl::tree::read;

const INIT: &str = "restore_container_init";

/// A container being restored.
pub(super) struct Restoring {
    session: Session,
    name: ArchiveName,
    /// The folder with its tree.
    folder: String,
}

/// Proxmox VE passes the storage ID here in either dialect.
fn args(name: &ArchiveName) -> Vec<Arg> {
    let volname = format!("backup/{name}");
    vec![Arg::text(volname), Arg::text(STORAGE), info(Vec::new())]
}

impl Restoring {
    pub(super) fn begin(mut session: Session, name: ArchiveName) -> Result<Self> {
        let told = session.call(&Call::scalar(INIT, args(&name)))?;
        let folder = told.get("archive-directory").and_then(Returned::text);
        let folder = folder.ok_or_else(|| wrong(INIT, "no hash with an archive-directory"))?;
        Ok(Self {
            folder: folder.to_owned(),
            session,
            name,
        })
    }
}

impl ContainerRestore for Restoring {
    fn open_tree(&mut self) -> Result<Box<dyn TreeReader>> {
        let shared = &self.session.shared;
        let restored = read(&shared.class.walker, Path::new(&self.folder), None)?;
        let trees = shared.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = trees.get(&self.name).ok_or_else(|| {
            let what = format!("no archive {} was made", self.name);
            Error::new(ErrorKind::NotFound, what)
        })?;
        kept.if_restored(&*restored)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let call = Call::void("restore_container_cleanup", args(&self.name));
        self.session.call(&call).map(drop)
    }
}
