//! Properties of whole backups of virtual machines, and of what is restored from them.

use std::collections::BTreeMap;

use super::disk::{Disk, Fault};
use super::drive::{GUEST, START, back_up, expect_disks, name, run, start, text};
use super::{Check, Factory};
use crate::{ArchiveName, ErrorKind, GuestKind, Outcome, Provider, VmSource};

const MIB: usize = 1 << 20;

fn disk() -> Disk {
    Disk::new("drive-scsi0", MIB, 1)
}

fn committed(provider: &dyn Provider, guest: &str, disks: &[&Disk]) -> Result<ArchiveName, String> {
    back_up(provider, guest, disks, None, Fault::None)?.archive()
}

pub(super) fn what_was_committed_restores_byte_for_byte(factory: Factory<'_>) -> Check {
    let provider = factory();
    let (one, two) = (disk(), Disk::new("drive-virtio15", 3 * MIB + 1024, 2));
    let archive = committed(&*provider, GUEST, &[&one, &two])?;
    expect_disks(&*provider, &archive, &[&one, &two])?;
    let diskless = committed(&*provider, GUEST, &[])?;
    expect_disks(&*provider, &diskless, &[])
}

pub(super) fn volumes_of_odd_sizes_restore(factory: Factory<'_>) -> Check {
    for size in [512, 528 << 10, MIB + 512, 4 * MIB - 512, 4 * MIB + 512] {
        let provider = factory();
        let mut disk = Disk::new("drive-efidisk0", size, 3);
        disk.fill(size - 512, 512, 0x77);
        let archive = committed(&*provider, GUEST, &[&disk])?;
        expect_disks(&*provider, &archive, &[&disk]).map_err(|e| format!("{size} bytes: {e}"))?;
    }
    Ok(())
}

pub(super) fn odd_device_names_restore(factory: Factory<'_>) -> Check {
    let names = ["-", "...", "odd name; 'quoted' \\ %41 é", "a:b=c,d", "con"];
    let disks: Vec<_> = (4..)
        .zip(names)
        .map(|(s, n)| Disk::new(n, 4096, s))
        .collect();
    let disks: Vec<_> = disks.iter().collect();
    let provider = factory();
    let archive = committed(&*provider, GUEST, &disks)?;
    expect_disks(&*provider, &archive, &disks)
}

fn expect_failure(provider: &dyn Provider, fault: Fault) -> Check {
    let failed = back_up(provider, GUEST, &[&disk()], None, fault)?;
    if failed.ran.is_ok() && fault.is_of_a_list() && !failed.seen.list_failed {
        return expect_disks(provider, &failed.name, &[&disk()]);
    }
    if failed.ran.is_ok() {
        return Err(format!(
            "the backup succeeded in spite of the fault {fault:?}"
        ));
    }
    match provider.open_archive(&failed.name) {
        Ok(_) => Err(format!("archive {} was left behind", failed.name)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("its archive is not missing, but: {}", text(&e))),
    }
}

pub(super) fn a_failed_run_leaves_no_archive(factory: Factory<'_>) -> Check {
    expect_failure(&*factory(), Fault::Read)
}

pub(super) fn one_failing_disk_fails_the_backup_by_its_name(factory: Factory<'_>) -> Check {
    for fault in [Fault::Read, Fault::List, Fault::ListCut, Fault::Size] {
        let provider = factory();
        let mut disks =
            ["drive-scsi0", "drive-scsi1", "drive-virtio2"].map(|device| Disk::new(device, MIB, 8));
        disks[0].spared = true;
        disks[2].spared = true;
        let disks: Vec<_> = disks.iter().collect();
        let failed = back_up(&*provider, GUEST, &disks, None, fault)?;
        if failed.ran.is_ok() && fault.is_of_a_list() && !failed.seen.list_failed {
            expect_disks(&*provider, &failed.name, &disks)?;
            continue;
        }
        let Err(error) = failed.ran else {
            return Err(format!(
                "the backup succeeded in spite of the fault {fault:?}"
            ));
        };
        if !text(&error).contains("drive-scsi1") {
            return Err(format!(
                "{fault:?} does not name its disk: {}",
                text(&error)
            ));
        }
        if provider.open_archive(&failed.name).is_ok() {
            return Err(format!("archive {} was left behind", failed.name));
        }
    }
    Ok(())
}

pub(super) fn a_failed_run_harms_no_earlier_archive(factory: Factory<'_>) -> Check {
    let provider = factory();
    let (mine, other) = (disk(), Disk::new("drive-scsi0", MIB, 9));
    let first = committed(&*provider, GUEST, &[&mine])?;
    let second = committed(&*provider, "101", &[&other])?;
    expect_failure(&*provider, Fault::Read)?;
    expect_disks(&*provider, &first, &[&mine])?;
    expect_disks(&*provider, &second, &[&other])
}

pub(super) fn an_archive_outlives_a_failed_finish(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, GUEST)?;
    let (ran, _) = run(&mut *backup, &[&disk], &BTreeMap::new(), Fault::None)?;
    ran.map_err(|e| text(&e))?;
    let archive = backup.archive_name().clone();
    expect_disks(&*provider, &archive, &[&disk])?;
    let outcome = Outcome::Failure("setting the notes failed".to_owned());
    backup.finish(&outcome).map_err(|e| text(&e))?;
    job.finish(&outcome).map_err(|e| text(&e))?;
    expect_disks(&*provider, &archive, &[&disk])
}

/// Backs up these configurations and compares what the archive says.
fn expect_configs(provider: &dyn Provider, config: &[u8], firewall: Option<&[u8]>) -> Check {
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, GUEST)?;
    let vm = VmSource {
        guest_config: config.to_vec(),
        firewall_config: firewall.map(<[u8]>::to_vec),
        bandwidth_limit: None,
        volumes: BTreeMap::new(),
    };
    backup.run(vm).map_err(|e| text(&e))?;
    let archive = backup.archive_name().clone();
    backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
    let opened = provider.open_archive(&archive).map_err(|e| text(&e))?;
    let found = opened.guest_config().map_err(|e| text(&e))?;
    if found != config {
        return Err(format!(
            "guest configuration {config:?} came back as {found:?}"
        ));
    }
    let found = opened.firewall_config().map_err(|e| text(&e))?;
    if found.as_deref() != firewall.filter(|config| !config.is_empty()) {
        return Err(format!(
            "firewall configuration {firewall:?} came back as {found:?}"
        ));
    }
    Ok(())
}

pub(super) fn configurations_are_kept_byte_for_byte(factory: Factory<'_>) -> Check {
    let config = b"name: caf\xC3\xA9\r\n\xFF\0#qmdump#map:scsi0:drive-scsi0:local::\n\n no newline";
    let provider = factory();
    expect_configs(&*provider, config, Some(b"[OPTIONS]\n\xFE\renable: 1"))?;
    expect_configs(&*provider, b"", None)
}

pub(super) fn an_empty_firewall_configuration_is_none(factory: Factory<'_>) -> Check {
    let provider = factory();
    expect_configs(&*provider, b"memory: 1\n", Some(b""))?;
    expect_configs(&*provider, b"memory: 1\n", None)?;
    expect_configs(&*provider, b"memory: 1\n", Some(b"\n"))
}

pub(super) fn archive_names_are_valid_and_unique_within_a_second(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(committed(&*provider, GUEST, &[&disk])?);
    }
    names.push(back_up(&*provider, GUEST, &[&disk], None, Fault::Read)?.name);
    names.push(committed(&*provider, "web-1.example_org", &[&disk])?);
    for name in &names {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".+=_/:-".contains(&b);
        if name.as_str().is_empty() || !name.as_str().bytes().all(fits) {
            return Err(format!("{name:?} is no name for an archive"));
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    if names.len() != count {
        return Err("two backups that began in the same second have one name".to_owned());
    }
    Ok(())
}

pub(super) fn two_guests_at_once_do_not_mix(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disks = [
        Disk::new("drive-scsi0", 2 * MIB, 5),
        Disk::new("drive-scsi0", 2 * MIB, 6),
    ];
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backups = [start(&mut *job, "100")?, start(&mut *job, "101")?];
    let results: Vec<Check> = std::thread::scope(|scope| {
        let running: Vec<_> = backups
            .iter_mut()
            .zip(&disks)
            .map(|(backup, disk)| {
                scope.spawn(move || {
                    let (ran, _) = run(&mut **backup, &[disk], &BTreeMap::new(), Fault::None)?;
                    ran.map(|_| ()).map_err(|e| text(&e))
                })
            })
            .collect();
        let joined = running.into_iter().map(|thread| {
            let panicked = |_| Err("a backup panicked".to_owned());
            thread.join().unwrap_or_else(panicked)
        });
        joined.collect()
    });
    results.into_iter().collect::<Check>()?;
    for (backup, disk) in backups.into_iter().zip(&disks) {
        let archive = backup.archive_name().clone();
        backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
        expect_disks(&*provider, &archive, &[disk])?;
    }
    job.finish(&Outcome::Success).map_err(|e| text(&e))
}

pub(super) fn a_truncated_region_list_fails(factory: Factory<'_>) -> Check {
    expect_failure(&*factory(), Fault::ListCut)
}

pub(super) fn a_failing_region_list_fails(factory: Factory<'_>) -> Check {
    expect_failure(&*factory(), Fault::List)
}

pub(super) fn a_wrong_announced_size_fails(factory: Factory<'_>) -> Check {
    expect_failure(&*factory(), Fault::Size)
}

pub(super) fn an_unknown_archive_is_not_found(factory: Factory<'_>) -> Check {
    let unknown = name("no/such/archive").map_err(|e| text(&e))?;
    match factory().open_archive(&unknown) {
        Ok(_) => Err("an archive that was never made could be opened".to_owned()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("not of kind NotFound: {}", text(&e))),
    }
}

pub(super) fn reading_past_the_end_of_a_volume_fails(factory: Factory<'_>) -> Check {
    let provider = factory();
    let disk = disk();
    let archive = committed(&*provider, GUEST, &[&disk])?;
    let opened = provider.open_archive(&archive).map_err(|e| text(&e))?;
    let mut restore = opened.restore_vm().map_err(|e| text(&e))?;
    let device = name(disk.device).map_err(|e| text(&e))?;
    let volume = restore.open_volume(&device).map_err(|e| text(&e))?;
    for offset in [disk.size() - 1, disk.size(), u64::MAX - 1] {
        match volume.read_at(offset, &mut [0; 2]) {
            Ok(()) => return Err(format!("2 bytes at offset {offset} could be read")),
            Err(e) if e.kind() == ErrorKind::Protocol => {}
            Err(e) => return Err(format!("not of kind Protocol: {}", text(&e))),
        }
    }
    let absent = name("drive-absent").map_err(|e| text(&e))?;
    match restore.open_volume(&absent) {
        Ok(_) => Err("a volume that is not in the archive could be opened".to_owned()),
        Err(_) => restore.finish().map_err(|e| text(&e)),
    }
}

pub(super) fn the_wrong_kind_of_guest_is_unsupported(factory: Factory<'_>) -> Check {
    let provider = factory();
    let archive = committed(&*provider, GUEST, &[])?;
    let opened = provider.open_archive(&archive).map_err(|e| text(&e))?;
    if opened.guest_kind() != GuestKind::Qemu {
        return Err("a virtual machine's archive is not of kind qemu".to_owned());
    }
    match opened.restore_container() {
        Ok(_) => return Err("a virtual machine could be restored as a container".to_owned()),
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        Err(e) => return Err(format!("not of kind Unsupported: {}", text(&e))),
    }
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let guest = name("200").map_err(|e| text(&e))?;
    match job.start_container(&guest, START) {
        Ok(backup) => backup
            .finish(&Outcome::Failure("not wanted".to_owned()))
            .map_err(|e| text(&e)),
        Err(e) if e.kind() == ErrorKind::Unsupported => Ok(()),
        Err(e) => Err(format!("not of kind Unsupported: {}", text(&e))),
    }
}
