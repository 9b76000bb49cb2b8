//! Mounts of killed restores and of `mount`, and the folders of the plugin for Proxmox VE.

use std::path::Path;

use snapkeep_api::{Error, ErrorKind};
use snapkeep_bridge::{FoundFolder, remove_run_folder, run_folders};
use snapkeep_host::doctor::{Finding, Owner};
use snapkeep_mount::{Found, Service, cleanup, found};

/// What this module finds.
const KIND: &str = "mount";

/// What restores for Proxmox VE left: a folder of each process, with what that had mounted.
pub(super) fn in_run_folder(run: &Path) -> Vec<Finding> {
    let folders = match run_folders(run) {
        Ok(folders) => folders,
        Err(e) if e.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(e) => return vec![Finding::unseen(KIND, run.display(), &e)],
    };
    folders.into_iter().map(of_process).collect()
}

fn of_process(folder: FoundFolder) -> Finding {
    let place = folder.path.display();
    let FoundFolder { process, lives, .. } = folder;
    let owner = Owner::ours("restore for Proxmox VE");
    if lives {
        let what = "the folder of a restore for Proxmox VE";
        let owner = owner.with_process(Some(process));
        return Finding::in_use(KIND, what, place, owner);
    }
    let what = format!(
        "the folder of a restore for Proxmox VE whose process {process} is gone, with what it mounted"
    );
    let finding = Finding::stale(KIND, what, place, owner)
        .costs("who looks into it gets an error; the next restore removes it")
        .heals_by("what nobody serves is unmounted, and the folder is removed");
    finding.with_remedy(move |_, _| {
        remove_run_folder(&folder)?;
        Ok("it is unmounted and removed".to_owned())
    })
}

/// All other mounts of ours.
pub(super) fn elsewhere(run: &Path, below: &Path) -> Vec<Finding> {
    match found(below) {
        Ok(mounts) => {
            let others = mounts.into_iter().filter(|m| !m.path.starts_with(run));
            others.map(of_mount).collect()
        }
        Err(e) => vec![Finding::unseen(KIND, "/proc/self/mountinfo", &e)],
    }
}

fn of_mount(mount: Found) -> Finding {
    let place = mount.path.display();
    let owner = Owner::ours("mount of archives");
    match mount.service {
        Service::Served => {
            let finding = Finding::in_use(KIND, "a mount of archives", place, owner);
            finding.costs("nothing: it is gone when it is unmounted, or its program ends")
        }
        Service::Unknown(why) => {
            let error = Error::new(
                ErrorKind::Unavailable,
                format!("a mount of archives: {why}"),
            );
            Finding::unseen(KIND, place, &error)
        }
        Service::Stale => {
            let what = "a mount of archives whose program is gone";
            let finding = Finding::stale(KIND, what, place, owner)
                .costs("who looks into it gets an error, and nothing else can be mounted there")
                .heals_by("it is unmounted, as umount --lazy does");
            finding.with_remedy(move |_, _| {
                Ok(if cleanup(&mount.path)? {
                    "it is unmounted".to_owned()
                } else {
                    "it was gone".to_owned()
                })
            })
        }
    }
}
