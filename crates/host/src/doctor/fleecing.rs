//! Folders of backups in a fleecing folder, each with its fleecing images and the NBD server's socket.

use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind};

use super::{Finding, Owner};
use crate::leftovers::{self, Found, Look};

/// What this module finds.
const KIND: &str = "fleecing";
/// What it costs to leave it.
const COST: &str = "its disk space, until a backup uses the same fleecing folder";

/// Looks at a fleecing folder. Folders that were told of with their QEMU are left out.
pub fn fleecing(parent: &Path, told: &[PathBuf]) -> Vec<Finding> {
    let unseen = |place: &Path, e: std::io::Error| {
        let error = Error::with_source(ErrorKind::Unavailable, "it cannot be looked at", e);
        Finding::unseen(KIND, place.display(), &error)
    };
    let folders = match leftovers::folders(parent) {
        Ok(folders) => folders,
        Err(e) => return vec![unseen(parent, e)],
    };
    let news = folders.into_iter().filter(|folder| !told.contains(folder));
    news.filter_map(|folder| match leftovers::look(&folder, Look::Only) {
        Ok(found) => finding(folder, found),
        Err(e) => Some(unseen(&folder, e)),
    })
    .collect()
}

fn finding(folder: PathBuf, found: Found) -> Option<Finding> {
    let place = folder.display();
    let ours = || Owner::ours("backup of a virtual machine");
    match found {
        Found::Nothing => None,
        Found::Running { process, .. } => {
            let what = "the fleecing folder of a backup";
            let owner = ours().with_process(process);
            Some(Finding::in_use(KIND, what, place, owner))
        }
        Found::OfQemu { process } => {
            let of = process.map_or(String::new(), |process| format!(" (process {process})"));
            let what = format!(
                "the fleecing folder of a killed backup, whose QEMU{of} lives and may use it"
            );
            let healing = "look at that QEMU: name its monitor by --qmp; what nothing there uses can be removed by hand, and goes once that QEMU has ended";
            let cost = "its disk space; if QEMU still uses it, each of the guest's writes is first copied there";
            Some(
                Finding::stale(KIND, what, place, ours())
                    .costs(cost)
                    .heals_by(healing),
            )
        }
        Found::Left(left) if left.may_begin() => None,
        Found::Left(left) => {
            let bytes = left.bytes();
            drop(left);
            let what = format!("the fleecing folder of a backup that is dead, with {bytes} bytes");
            let finding = Finding::stale(KIND, what, place, ours())
                .costs(COST)
                .heals_by("the folder is removed");
            Some(finding.with_remedy(move |_, _| remove(&folder)))
        }
    }
}

/// Looks again, and removes it.
fn remove(folder: &Path) -> snapkeep_api::Result<String> {
    let failed = |e| {
        let what = format!("{} is not removed", folder.display());
        Error::with_source(ErrorKind::Target, what, e)
    };
    match leftovers::look(folder, Look::ToRemove).map_err(failed)? {
        Found::Nothing => Ok("it was gone".to_owned()),
        Found::Left(left) => {
            if left.remove().map_err(failed)? {
                return Ok("the folder is removed".to_owned());
            }
            let what = format!("a backup began with {}, or it was gone", folder.display());
            Err(Error::new(ErrorKind::Unavailable, what))
        }
        Found::Running { .. } | Found::OfQemu { .. } => {
            let what = format!("{} is used again, and is not removed", folder.display());
            Err(Error::new(ErrorKind::Unavailable, what))
        }
    }
}
