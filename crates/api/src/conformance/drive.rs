//! Drives a provider through a backup and a restore, as a host does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Check;
use super::disk::{Disk, Fault, Trap};
use super::export::Exports;
use crate::{
    ArchiveName, BackupJob, BackupStats, BitmapInfo, BitmapMode, BitmapName, BitmapRequest,
    DeviceName, Error, ErrorKind, GuestId, Incarnation, Outcome, Part, Provider, Region, Result,
    SnapshotAccess, UnixTime, VmBackup, VmMechanism, VmSource, Volume, VolumeInfo, VolumeReader,
};

/// When all backups of the kit begin: in the same second.
pub(super) const START: UnixTime = UnixTime(1_700_000_000);
/// The guest of most properties.
pub(super) const GUEST: &str = "100";
/// The configuration of guests whose configuration does not matter.
const CONFIG: &[u8] = b"memory: 512\n";
/// Volumes are read back this many bytes at a time; not a power of two on purpose.
const READ_SIZE: usize = 100_000;

/// What a backup left behind: the name its archive would have, and how its run ended.
pub(super) struct Finished {
    pub(super) name: ArchiveName,
    pub(super) ran: Result<BackupStats>,
    pub(super) seen: Seen,
}

/// What a provider did with the disks it was given, all of them together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The devices whose bitmap was reused.
    pub(super) reused: usize,
    /// Bytes that were read and not discarded.
    pub(super) kept: u64,
    /// The devices with a reused bitmap of which the provider does not know the whole: the list of
    /// regions was not taken to its end, or block status not asked for all of the export.
    pub(super) unasked: usize,
    /// Whether a list of regions, or of a bitmap's bits, was asked for where it fails. Who reads all
    /// of a disk without asking is right, too.
    pub(super) list_failed: bool,
}

impl Finished {
    /// The archive's name, if the run succeeded.
    pub(super) fn archive(self) -> std::result::Result<ArchiveName, String> {
        match self.ran {
            Ok(_) => Ok(self.name),
            Err(error) => Err(format!("the backup failed: {}", error.chain())),
        }
    }
}

/// The text of an error of the contract, for a failure's message.
pub(super) fn text(error: &Error) -> String {
    error.chain()
}

/// A device or guest or bitmap name from a text known to be valid.
pub(super) fn name<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<T> {
    text.parse()
}

/// A whole backup of these disks, each offered a bitmap relative to this archive.
pub(super) fn back_up(
    provider: &dyn Provider,
    guest: &str,
    disks: &[&Disk],
    base: Option<&ArchiveName>,
    fault: Fault,
) -> std::result::Result<Finished, String> {
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, guest)?;
    let name = backup.archive_name().clone();
    let volumes = offer(disks, base).map_err(|e| text(&e))?;
    let chosen = backup
        .choose_bitmaps(&Incarnation::default(), &volumes)
        .map_err(|e| text(&e))?;
    let (ran, seen) = run(&mut *backup, disks, &chosen, fault)?;
    let outcome = match &ran {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(error.chain()),
    };
    backup.finish(&outcome).map_err(|e| text(&e))?;
    job.finish(&outcome).map_err(|e| text(&e))?;
    Ok(Finished { name, ran, seen })
}

/// Starts the backup of a guest.
pub(super) fn start(
    job: &mut dyn BackupJob,
    guest: &str,
) -> std::result::Result<Box<dyn VmBackup>, String> {
    let guest: GuestId = name(guest).map_err(|e| text(&e))?;
    job.start_vm(&guest, START).map_err(|e| text(&e))
}

/// The volumes as offered to `choose_bitmaps`.
pub(super) fn offer(
    disks: &[&Disk],
    base: Option<&ArchiveName>,
) -> Result<BTreeMap<DeviceName, VolumeInfo>> {
    let mut volumes = BTreeMap::new();
    for disk in disks {
        let mut bitmaps = Vec::new();
        if let Some(base) = base {
            bitmaps.push(BitmapInfo {
                name: bitmap()?,
                base: Some(base.clone()),
            });
        }
        let size = disk.size();
        volumes.insert(name(disk.device)?, VolumeInfo { size, bitmaps });
    }
    Ok(volumes)
}

/// The one bitmap that the kit's disks have, named as Proxmox VE names that of a storage
/// `conformance`.
pub(super) fn bitmap() -> Result<BitmapName> {
    name("snapshot-access:conformance")
}

/// Hands these disks over, by the mechanism that was asked for and by what was chosen of their
/// bitmaps: how the run ended, and what was seen of it. Fails if the provider did what it
/// must not do.
pub(super) fn run(
    backup: &mut dyn VmBackup,
    disks: &[&Disk],
    chosen: &BTreeMap<DeviceName, BitmapRequest>,
    fault: Fault,
) -> std::result::Result<(Result<BackupStats>, Seen), String> {
    let source = VmSource {
        guest_config: CONFIG.to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::new(),
    };
    let modes = modes(disks, chosen).map_err(|e| text(&e))?;
    let reused = modes.iter().filter(|(_, mode)| *mode == BitmapMode::Reuse);
    let reused = reused.count();
    match backup.mechanism() {
        VmMechanism::FileHandle => {
            let (volumes, traps) = by_file_handle(&modes, fault).map_err(|e| text(&e))?;
            let ran = backup.run(VmSource { volumes, ..source });
            let mut seen = Seen {
                reused,
                ..Seen::default()
            };
            for ((_, mode), trap) in modes.iter().zip(traps) {
                seen.kept += trap.kept().map_err(|e| text(&e))?;
                seen.unasked += usize::from(*mode == BitmapMode::Reuse && !trap.was_listed());
                seen.list_failed |= trap.has_failed();
            }
            Ok((ran, seen))
        }
        VmMechanism::Nbd => {
            let bitmap = bitmap().map_err(|e| text(&e))?;
            let exports = Exports::serve(&modes, &bitmap, fault).map_err(|e| text(&e))?;
            let volumes = by_nbd(&modes, &exports, &bitmap).map_err(|e| text(&e))?;
            let ran = backup.run(VmSource { volumes, ..source });
            exports.verdict()?;
            let bytes = exports.bytes_read();
            let counted = (ran.as_ref().ok()).filter(|stats| !stats.uncounted);
            if let Some(counted) = counted.map(|stats| stats.read)
                && counted != bytes
            {
                return Err(format!("{bytes} bytes were read, but counted as {counted}"));
            }
            let (kept, unasked) = (exports.bytes_kept(), exports.unasked());
            let seen = Seen {
                reused,
                kept,
                unasked,
                list_failed: exports.list_failed(),
            };
            Ok((ran, seen))
        }
    }
}

/// What becomes of each disk's bitmap.
fn modes<'a>(
    disks: &[&'a Disk],
    chosen: &BTreeMap<DeviceName, BitmapRequest>,
) -> Result<Vec<(&'a Disk, BitmapMode)>> {
    let mut modes = Vec::new();
    for disk in disks {
        let mode = match chosen.get(&name(disk.device)?) {
            None => BitmapMode::None,
            Some(BitmapRequest::Use(name)) if *name == bitmap()? => BitmapMode::Reuse,
            // A bitmap that is not there is created.
            Some(BitmapRequest::New | BitmapRequest::Use(_)) => BitmapMode::New,
        };
        modes.push((*disk, mode));
    }
    Ok(modes)
}

fn by_file_handle(
    disks: &[(&Disk, BitmapMode)],
    fault: Fault,
) -> Result<(BTreeMap<DeviceName, Volume>, Vec<Trap>)> {
    let mut volumes = BTreeMap::new();
    let mut traps = Vec::new();
    for (disk, mode) in disks {
        let (volume, trap) = disk.volume(*mode, fault)?;
        volumes.insert(name(disk.device)?, volume);
        traps.push(trap);
    }
    Ok((volumes, traps))
}

fn by_nbd(
    disks: &[(&Disk, BitmapMode)],
    exports: &Exports,
    bitmap: &BitmapName,
) -> Result<BTreeMap<DeviceName, Volume>> {
    let volume = |disk: &Disk, mode| Volume {
        size: disk.size(),
        bitmap: mode,
        access: SnapshotAccess::Nbd {
            socket: exports.socket.clone(),
            bitmap: (mode != BitmapMode::None).then(|| bitmap.clone()),
        },
    };
    let volumes = disks.iter();
    let volumes = volumes.map(|(disk, mode)| Ok((name(disk.device)?, volume(disk, *mode))));
    volumes.collect()
}

/// Restores an archive and compares it with these disks; nothing else may be in it.
pub(super) fn expect_disks(
    provider: &dyn Provider,
    archive: &ArchiveName,
    disks: &[&Disk],
) -> Check {
    let opened = provider.open_archive(archive).map_err(|e| text(&e))?;
    let mut restore = opened.restore_vm().map_err(|e| text(&e))?;
    let found: Vec<_> = restore.volumes().keys().cloned().collect();
    if found.len() != disks.len() {
        return Err(format!("the archive has the volumes {found:?}"));
    }
    for disk in disks {
        let device: DeviceName = name(disk.device).map_err(|e| text(&e))?;
        let announced = restore.volumes().get(&device).map(|info| info.size);
        if announced != Some(disk.size()) {
            return Err(format!(
                "device {device} of {} bytes is listed as {announced:?}",
                disk.size()
            ));
        }
        let volume = restore.open_volume(&device).map_err(|e| text(&e))?;
        if volume.size() != disk.size() {
            return Err(format!("device {device} has {} bytes", volume.size()));
        }
        for (number, expected) in disk.content.chunks(READ_SIZE).enumerate() {
            let mut got = vec![0xEE; expected.len()];
            let offset = (number * READ_SIZE) as u64;
            volume.read_at(offset, &mut got).map_err(|e| text(&e))?;
            if let Some(at) = got.iter().zip(expected).position(|(a, b)| a != b) {
                let at = offset + at as u64;
                return Err(format!("device {device} differs at offset {at}"));
            }
        }
        expect_holes_are_zero(&*volume, disk)?;
        expect_all_is_delivered(&*volume, disk)?;
    }
    restore.finish().map_err(|e| text(&e))
}

/// What is told part by part is the disk, each byte of it once: of all, and of what lies within.
fn expect_all_is_delivered(volume: &dyn VolumeReader, disk: &Disk) -> Check {
    let size = disk.size();
    let (from, to) = (size / 3, size - size / 5);
    for (from, to) in [(0, size), (from, to)] {
        if from == to {
            continue;
        }
        let range = Region::new(from, to - from).map_err(|e| text(&e))?;
        let told = Mutex::new(vec![None; disk.content.len()]);
        let take = |part: Part<'_>| {
            let start = match part {
                Part::Zeroes(region) => region.offset(),
                Part::Data { offset, .. } => offset,
            };
            let places = usize::try_from(start).ok().and_then(|start| {
                let end = start.checked_add(usize::try_from(part.length()).ok()?)?;
                Some(start..end)
            });
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let places = places.and_then(|places| told.get_mut(places));
            let wrong = |what: &str| {
                let what = format!("{} bytes from {start} on were told {what}", part.length());
                Error::new(ErrorKind::Protocol, what)
            };
            for (number, place) in places
                .ok_or_else(|| wrong("past the end"))?
                .iter_mut()
                .enumerate()
            {
                let byte = match part {
                    Part::Zeroes(_) => 0,
                    Part::Data { bytes, .. } => bytes.get(number).copied().unwrap_or_default(),
                };
                if place.replace(byte).is_some() {
                    return Err(wrong("twice"));
                }
            }
            Ok(())
        };
        volume.deliver(range, 2, &take).map_err(|e| text(&e))?;
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (at, (told, byte)) in (0u64..).zip(told.iter().zip(&disk.content)) {
            let wanted = (from..to).contains(&at).then_some(*byte);
            if *told != wanted {
                let device = disk.device;
                return Err(format!(
                    "device {device}: {told:?} was delivered at offset {at}, and not {wanted:?}"
                ));
            }
        }
    }
    Ok(())
}

fn expect_holes_are_zero(volume: &dyn VolumeReader, disk: &Disk) -> Check {
    let mut offset = 0;
    while offset < disk.size() {
        let data = volume.next_data(offset).map_err(|e| text(&e))?;
        let (start, end) = match data {
            Some(region) => (region.offset(), region.end()),
            None => (disk.size(), disk.size()),
        };
        if start < offset || end > disk.size() {
            return Err(format!("data from {start} to {end} told from {offset} on"));
        }
        let hole = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(start).ok())
            .and_then(|(from, to)| disk.content.get(from..to));
        if hole.is_none_or(|bytes| bytes.iter().any(|&byte| byte != 0)) {
            return Err(format!("data told to be a hole from {offset} to {start}"));
        }
        offset = end;
    }
    Ok(())
}
