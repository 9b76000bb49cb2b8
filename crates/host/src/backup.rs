//! The backup of a virtual machine that runs in QEMU, by any provider.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use snapkeep_api::{
    ArchiveName, BackupJob, BackupStats, BitmapMode, BitmapName, BitmapRequest, DeviceName, Error,
    ErrorKind, GuestId, Level, Outcome, Result, SnapshotAccess, TaskLog, UnixTime, VmBackup,
    VmMechanism, VmSource, Volume, VolumeInfo,
};

use crate::disks::Disk;
use crate::fleecing::Folder;
use crate::freeze::{Plan, freeze};
use crate::leftovers;
use crate::limits::GENERATIONS_MAX;
use crate::qemu::Qemu;
use crate::teardown::{clear, recover};
use crate::{names, obstacles, qmp};

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct VmRequest {
    /// The guest, as the provider knows it.
    pub guest: GuestId,
    /// The disks; `None` is all that are neither read-only, nor removable, nor the firmware's.
    pub disks: Option<Vec<DeviceName>>,
    /// Where old data goes that the guest overwrites while the backup reads: at most as much as
    /// the disks have. QEMU must reach the folder by the same path.
    pub fleecing_folder: PathBuf,
    /// Read what changed since an earlier backup, where that is known. If not, all is read.
    pub incremental: bool,
    /// Kept byte for byte with the archive.
    pub guest_config: Vec<u8>,
    /// Kept byte for byte with the archive.
    pub firewall_config: Option<Vec<u8>>,
    /// Bytes per second; `None` is no limit.
    pub bandwidth_limit: Option<NonZeroU64>,
}

/// A backup that has its archive.
#[derive(Debug)]
pub struct Finished {
    /// The archive, which is committed.
    pub archive: ArchiveName,
    /// As the provider counted.
    pub stats: BackupStats,
    /// How long the guest stood still so that all its disks are of one instant.
    pub paused: Duration,
    /// How each disk was read.
    pub bitmaps: BTreeMap<DeviceName, BitmapMode>,
    /// Why something of the backup is still in QEMU; [`recover`] takes it back.
    pub left: Option<Error>,
}

/// Backs up the disks of a running guest as they are at one instant.
///
/// First takes back what a killed backup left in this QEMU. The guest goes on while its disks are
/// read; it stands still only while the snapshot is made. An error leaves no archive and nothing in
/// QEMU; if QEMU does not answer, a later backup, or [`recover`], takes back what is left.
pub fn back_up_vm(
    qemu: &mut Qemu,
    job: &mut dyn BackupJob,
    request: VmRequest,
    start_time: UnixTime,
    log: &dyn TaskLog,
) -> Result<Finished> {
    recover(qemu, log)?;
    leftovers::sweep(&request.fleecing_folder, log);
    let disks = select(qemu.disks()?, request.disks.as_deref(), log)?;
    if !qemu.is_storage_daemon() {
        for device in obstacles::unseen(qemu)? {
            let line =
                format!("{device} is not backed up: QEMU's block layer does not see its storage");
            log.log(Level::Warn, &line);
        }
    }
    if disks.is_empty() {
        let what = format!("guest {} has no disk to back up", request.guest);
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let mut backup = job.start_vm(&request.guest, start_time)?;
    let done = with_provider(qemu, &mut *backup, disks, request, log);
    let outcome = match &done {
        Ok(_) => Outcome::Success,
        Err(e) => Outcome::Failure(e.chain()),
    };
    let ended = backup.finish(&outcome);
    if let (Ok(finished), Err(e)) = (&done, &ended) {
        // The archive is there, whatever its provider says afterwards.
        let line = format!(
            "archive {} is complete, but: {}",
            finished.archive,
            e.chain()
        );
        log.log(Level::Warn, &line);
    }
    done
}

/// The disks to back up.
fn select(disks: Vec<Disk>, wanted: Option<&[DeviceName]>, log: &dyn TaskLog) -> Result<Vec<Disk>> {
    let selected: Vec<Disk> = match wanted {
        None => (disks.into_iter())
            .filter(|disk| {
                if let Some(why) = &disk.unwanted {
                    log.log(Level::Info, &format!("{} is left out: {why}", disk.device));
                }
                disk.unwanted.is_none()
            })
            .collect(),
        Some(wanted) => {
            if let Some(missing) =
                (wanted.iter()).find(|name| disks.iter().all(|d| d.device != **name))
            {
                let there: Vec<_> = disks.iter().map(|disk| disk.device.as_str()).collect();
                let what = format!(
                    "the guest has no disk {missing}; it has {}",
                    there.join(", ")
                );
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            (disks.into_iter())
                .filter(|disk| wanted.contains(&disk.device))
                .collect()
        }
    };
    for disk in &selected {
        if let Some(why) = &disk.obstacle {
            let what = format!("device {} cannot be backed up", disk.device);
            return Err(Error::with_source(why.kind(), what, why.clone()));
        }
    }
    Ok(selected)
}

fn with_provider(
    qemu: &mut Qemu,
    backup: &mut dyn VmBackup,
    disks: Vec<Disk>,
    request: VmRequest,
    log: &dyn TaskLog,
) -> Result<Finished> {
    if backup.mechanism() != VmMechanism::Nbd {
        let what = "the provider asks for file handles; a running QEMU has NBD exports only";
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let plans = plan(qemu, backup, disks, request.incremental)?;
    let folder = Folder::make(&request.fleecing_folder, qemu.owner())?;
    let frozen = freeze(qemu, &folder, &plans);
    let (paused, ran) = match frozen {
        Ok(frozen) => {
            let volumes = plans
                .iter()
                .map(|plan| (plan.disk.device.clone(), volume(plan, &frozen.socket)));
            let source = VmSource {
                guest_config: request.guest_config,
                firewall_config: request.firewall_config,
                bandwidth_limit: request.bandwidth_limit,
                volumes: volumes.collect(),
            };
            (frozen.paused, caught(|| backup.run(source)))
        }
        Err(e) => (Duration::ZERO, Err(e)),
    };
    let left = take_back(qemu, folder, &plans, ran.is_ok(), log);
    let stats = ran?;
    Ok(Finished {
        archive: backup.archive_name().clone(),
        stats,
        paused,
        bitmaps: plans
            .iter()
            .map(|plan| (plan.disk.device.clone(), plan.mode()))
            .collect(),
        left,
    })
}

/// Runs a provider that may panic: what was made for its backup must be taken back.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let ran = catch_unwind(AssertUnwindSafe(run));
    ran.unwrap_or_else(|_| Err(Error::new(ErrorKind::Target, "the provider panicked")))
}

/// Asks the provider which bitmaps to use.
fn plan(
    qemu: &Qemu,
    backup: &mut dyn VmBackup,
    disks: Vec<Disk>,
    incremental: bool,
) -> Result<Vec<Plan>> {
    let infos = disks.iter().map(|disk| {
        let bitmaps = if incremental {
            disk.offers()
        } else {
            Vec::new()
        };
        let size = disk.size;
        (disk.device.clone(), VolumeInfo { size, bitmaps })
    });
    let infos: BTreeMap<_, _> = infos.collect();
    let requests = backup.choose_bitmaps(qemu.incarnation(), &infos)?;
    let archive = backup.archive_name();
    let mut plans = Vec::new();
    for disk in disks {
        let request = requests.get(&disk.device);
        let old = match request {
            None | Some(BitmapRequest::New) => None,
            Some(BitmapRequest::Use(name)) => {
                let offered = infos.get(&disk.device).map(|info| &info.bitmaps);
                let known =
                    offered.is_some_and(|list| list.iter().any(|bitmap| bitmap.name == *name));
                if !known {
                    let what = format!(
                        "device {}: the provider asks for the bitmap {name}, which was not offered",
                        disk.device
                    );
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
                Some(name.clone())
            }
        };
        let new = match request {
            None => None,
            Some(_) => Some(names::generation(archive, disk.size, &disk.device)?),
        };
        plans.push(Plan { disk, old, new });
    }
    Ok(plans)
}

fn volume(plan: &Plan, socket: &std::path::Path) -> Volume {
    Volume {
        size: plan.disk.size,
        bitmap: plan.mode(),
        access: SnapshotAccess::Nbd {
            socket: socket.to_owned(),
            bitmap: plan.old.clone(),
        },
    }
}

/// Takes everything back but the bitmaps of the future. What could not be taken back.
fn take_back(
    qemu: &mut Qemu,
    folder: Folder,
    plans: &[Plan],
    committed: bool,
    log: &dyn TaskLog,
) -> Option<Error> {
    let cleared = clear(qemu, folder.path(), log);
    if let Err(e) = cleared {
        if qemu.owner().has_ended() {
            log.log(Level::Warn, "the guest's QEMU ended while it was backed up");
            return None;
        }
        log.log(Level::Error, &what_is_left(qemu, &folder, plans, &e));
        folder.keep();
        return Some(e);
    }
    for plan in plans {
        if let Err(e) = retire(qemu, plan, committed) {
            // A bitmap too many costs time, never data.
            let line = format!(
                "{}: a dirty bitmap that is not needed any more stays: {}",
                plan.disk.device,
                e.chain()
            );
            log.log(Level::Warn, &line);
        }
    }
    None
}

fn what_is_left(qemu: &Qemu, folder: &Folder, plans: &[Plan], why: &Error) -> String {
    let devices: Vec<_> = plans.iter().map(|p| p.disk.device.as_str()).collect();
    let paused = if qemu.paused {
        ", and the guest may stand still (cont, on a monitor, lets it go on)"
    } else {
        ""
    };
    format!(
        "what the backup made in the QEMU at {} could not be taken back: filters may be left before {}, which \
         copy what the guest overwrites to {}{paused}; the next backup of this guest takes them back first: {}",
        qemu.socket().display(),
        devices.join(", "),
        folder.path().display(),
        why.chain()
    )
}

/// After a success the old bitmap goes, after a failure the new one: the other has recorded all the
/// time. Also goes what is of no use, and the oldest if there are too many.
fn retire(qemu: &mut Qemu, plan: &Plan, committed: bool) -> Result<()> {
    let mut gone: Vec<&str> = plan.disk.useless.iter().map(String::as_str).collect();
    let over = if committed { &plan.old } else { &plan.new };
    gone.extend(over.as_ref().map(BitmapName::as_str));
    let stay = plan.disk.bitmaps.iter().map(|bitmap| bitmap.name.as_str());
    let stay: Vec<&str> = stay.filter(|name| !gone.contains(name)).collect();
    let new = usize::from(committed && plan.new.is_some());
    gone.extend(stay.into_iter().skip(GENERATIONS_MAX.saturating_sub(new)));
    for name in gone {
        let bitmap = json!({"node": plan.disk.node, "name": name});
        match qemu.execute("block-dirty-bitmap-remove", bitmap) {
            Ok(_) => {}
            // It was never made, or is gone.
            Err(qmp::Failure::Refused(_)) if !is_there(qemu, plan, name)? => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(())
}

fn is_there(qemu: &mut Qemu, plan: &Plan, name: &str) -> Result<bool> {
    let graph = crate::graph::Graph::query(qemu)?;
    let node = graph.nodes.get(&plan.disk.node);
    Ok(node.is_some_and(|node| node.dirty_bitmaps.iter().any(|bitmap| bitmap.name == name)))
}
