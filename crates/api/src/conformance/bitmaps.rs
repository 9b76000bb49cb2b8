//! Properties of incremental backups, and of the trust in dirty bitmaps.

use super::disk::{CLUSTER, Disk, Fault, GRANULARITY};
use super::drive::{GUEST, START, back_up, bitmap, expect_disks, name, offer, run, start, text};
use super::{Check, Factory};
use crate::{ArchiveName, BitmapInfo, BitmapRequest, Incarnation, Process, Provider};

const MIB: usize = 1 << 20;

fn disk() -> Disk {
    Disk::new("drive-scsi0", MIB + 512, 1)
}

/// A first backup of the disk.
fn base(provider: &dyn Provider, disk: &Disk) -> Result<ArchiveName, String> {
    back_up(provider, GUEST, &[disk], None, Fault::None)?.archive()
}

/// Backs the disk up over a base; its archive, which equals the disk.
fn increment(provider: &dyn Provider, disk: &Disk, base: &ArchiveName) -> Check {
    let next = back_up(provider, GUEST, &[disk], Some(base), Fault::None)?.archive()?;
    expect_disks(provider, &next, &[disk])
}

pub(super) fn an_incremental_equals_the_disk(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = disk();
    let first = disk.clone();
    let base = base(&*provider, &disk)?;
    disk.fill(5, 10, 1);
    disk.fill(MIB / 2, 2 * CLUSTER, 0);
    disk.fill(MIB, 512, 2);
    increment(&*provider, &disk, &base)?;
    expect_disks(&*provider, &base, &[&first])
}

pub(super) fn a_clean_bitmap_reads_nothing(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let base = base(&*provider, &disk)?;
    let next = back_up(&*provider, GUEST, &[&disk], Some(&base), Fault::None)?;
    if next.seen.reused == 1 && next.ran.as_ref().is_ok_and(|stats| stats.read != 0) {
        return Err("bytes were counted as read".to_owned());
    }
    expect_disks(&*provider, &next.archive()?, &[&disk])
}

pub(super) fn only_dirty_regions_are_read(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = disk();
    let base = base(&*provider, &disk)?;
    disk.fill(3 * CLUSTER, 1, 3);
    disk.fill(7 * CLUSTER, 1, 7);
    let next = back_up(&*provider, GUEST, &[&disk], Some(&base), Fault::None)?;
    if next.seen.reused == 1 && next.ran.as_ref().is_ok_and(|s| s.read > 2 * GRANULARITY) {
        return Err("more than the dirty regions were counted as read".to_owned());
    }
    expect_disks(&*provider, &next.archive()?, &[&disk])
}

pub(super) fn nothing_is_discarded_before_it_was_read(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = Disk::new("drive-scsi0", 3 * MIB, 2);
    let base = base(&*provider, &disk)?;
    expect_disks(&*provider, &base, &[&disk])?;
    disk.fill(0, 2 * MIB, 9);
    increment(&*provider, &disk, &base)
}

pub(super) fn what_was_read_is_discarded(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = disk();
    let full = back_up(&*provider, GUEST, &[&disk], None, Fault::None)?;
    let kept = full.seen.kept;
    let base = full.archive()?;
    disk.fill(3 * CLUSTER, 1, 3);
    disk.fill(MIB, 512, 7);
    let next = back_up(&*provider, GUEST, &[&disk], Some(&base), Fault::None)?;
    match (kept, next.seen.kept) {
        (0, 0) => expect_disks(&*provider, &next.archive()?, &[&disk]),
        (first, second) => Err(format!(
            "{first} and then {second} bytes were not discarded"
        )),
    }
}

pub(super) fn a_reused_bitmap_is_read_to_its_end(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = disk();
    let base = base(&*provider, &disk)?;
    for at in [None, Some(0), Some(MIB + 511)] {
        if let Some(at) = at {
            disk.fill(at, 1, 0xA7);
        }
        let next = back_up(&*provider, GUEST, &[&disk], Some(&base), Fault::None)?;
        if next.seen.unasked > 0 {
            return Err("a backup was made without knowing the whole bitmap".to_owned());
        }
        expect_disks(&*provider, &next.archive()?, &[&disk])?;
    }
    Ok(())
}

pub(super) fn a_discard_that_fails_costs_nothing(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let archive = back_up(&*provider, GUEST, &[&disk], None, Fault::Discard)?.archive()?;
    expect_disks(&*provider, &archive, &[&disk])
}

pub(super) fn a_failed_incremental_harms_nothing(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut disk = disk();
    let first = disk.clone();
    let base = base(&*provider, &disk)?;
    disk.fill(0, MIB / 2, 4);
    for fault in [Fault::Read, Fault::List, Fault::Bitmap] {
        let failed = back_up(&*provider, GUEST, &[&disk], Some(&base), fault)?;
        if failed.ran.is_ok() && fault.is_of_a_list() && !failed.seen.list_failed {
            expect_disks(&*provider, &failed.name, &[&disk])?;
            continue;
        }
        if failed.ran.is_ok() {
            return Err(format!("the backup succeeded in spite of {fault:?}"));
        }
        if provider.open_archive(&failed.name).is_ok() {
            return Err(format!("an archive was left after {fault:?}"));
        }
    }
    expect_disks(&*provider, &base, &[&first])?;
    increment(&*provider, &disk, &base)
}

/// Fails if the provider wants to use a bitmap that is relative to this archive.
fn expect_unused(provider: &dyn Provider, guest: &str, disk: &Disk, base: &ArchiveName) -> Check {
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, guest)?;
    let volumes = offer(&[disk], Some(base)).map_err(|e| text(&e))?;
    let chosen = backup
        .choose_bitmaps(&Incarnation::default(), &volumes)
        .map_err(|e| text(&e))?;
    if chosen.values().any(|r| matches!(r, BitmapRequest::Use(_))) {
        return Err(format!("the bitmap relative to {base} is used"));
    }
    Ok(())
}

pub(super) fn a_bitmap_of_an_unknown_base_is_not_used(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    base(&*provider, &disk)?;
    let unknown = name("no/such/archive").map_err(|e| text(&e))?;
    expect_unused(&*provider, GUEST, &disk, &unknown)
}

pub(super) fn a_bitmap_of_an_uncommitted_base_is_not_used(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let failed = back_up(&*provider, GUEST, &[&disk], None, Fault::Read)?;
    expect_unused(&*provider, GUEST, &disk, &failed.name)
}

pub(super) fn a_bitmap_of_another_guest_is_not_used(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let base = base(&*provider, &disk)?;
    expect_unused(&*provider, "101", &disk, &base)
}

pub(super) fn a_bitmap_of_another_device_is_not_used(factory: Factory<'_>) -> Check {
    let provider = factory();
    let base = base(&*provider, &disk())?;
    let other = Disk::new("drive-scsi1", MIB + 512, 1);
    expect_unused(&*provider, GUEST, &other, &base)
}

pub(super) fn a_bitmap_of_another_size_is_not_used(factory: Factory<'_>) -> Check {
    let provider = factory();
    let base = base(&*provider, &disk())?;
    for size in [MIB, 2 * MIB] {
        let other = Disk::new("drive-scsi0", size, 1);
        expect_unused(&*provider, GUEST, &other, &base)?;
    }
    Ok(())
}

pub(super) fn a_nameless_base_is_not_trusted_across_incarnations(factory: Factory<'_>) -> Check {
    let life = |process: Option<(u8, u32)>, generation: Option<u8>| Incarnation {
        process: process.map(|(boot, id)| Process {
            boot: [boot; 16],
            id,
            start: 1000,
        }),
        vmgenid: generation.map(|byte| [byte; 16]),
    };
    // The guest may have gone back in time between the two, or nobody can tell.
    let lives = [
        (life(Some((1, 1)), Some(1)), life(Some((1, 1)), Some(2))),
        (life(Some((1, 1)), Some(1)), life(Some((1, 2)), Some(2))),
        (life(Some((1, 1)), Some(1)), life(None, None)),
        (life(Some((1, 1)), None), life(Some((1, 2)), None)),
        // The same numbers after a reboot, or on another node.
        (life(Some((1, 1)), None), life(Some((2, 1)), None)),
        (life(None, None), life(None, None)),
    ];
    for (first, second) in lives {
        let provider = factory();
        let disk = disk();
        let mut volumes = offer(&[&disk], None).map_err(|e| text(&e))?;
        let fixed = BitmapInfo {
            name: bitmap().map_err(|e| text(&e))?,
            base: None,
        };
        for volume in volumes.values_mut() {
            volume.bitmaps.push(fixed.clone());
        }
        let mut job = provider.start_job(START).map_err(|e| text(&e))?;
        let mut backup = start(&mut *job, GUEST)?;
        let chosen = backup
            .choose_bitmaps(&first, &volumes)
            .map_err(|e| text(&e))?;
        if chosen.values().any(|r| matches!(r, BitmapRequest::Use(_))) {
            return Err("a bitmap is used although there is no archive".to_owned());
        }
        let (ran, _) = run(&mut *backup, &[&disk], &chosen, Fault::None)?;
        ran.map_err(|e| text(&e))?;
        backup
            .finish(&crate::Outcome::Success)
            .map_err(|e| text(&e))?;
        let mut backup = start(&mut *job, GUEST)?;
        let chosen = backup
            .choose_bitmaps(&second, &volumes)
            .map_err(|e| text(&e))?;
        if chosen.values().any(|r| matches!(r, BitmapRequest::Use(_))) {
            return Err(format!("a bitmap of {first:?} is used for {second:?}"));
        }
    }
    Ok(())
}
