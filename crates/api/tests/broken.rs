//! Providers with one deliberate flaw each: the kit names the property that each one breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use snapkeep_api::conformance::vm_properties;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, BackupStats, BitmapMode, BitmapRequest, ContainerBackup,
    DeviceName, Error, ErrorKind, GuestId, Incarnation, Outcome, Provider, Region, Result,
    SnapshotAccess, UnixTime, VmBackup, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_nbd::{Address, BASE_ALLOCATION, Client, ClientOptions};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    TrustsEveryBitmap,
    CommitsWhatFailed,
    ReadsEverything,
    DiscardsFirst,
    FillsEmptyFirewallConfig,
    WithdrawsAfterFailure,
    SwallowsListErrors,
    FillsWithZeroes,
    AsksForAllocation,
    BelievesAnySize,
    CountsTwice,
    DiscardsNothing,
    KnowsBetter,
    HidesTheDisk,
    /// None, but other than what most do: it reads all of a disk, and asks for no list.
    AsksForNothing,
}

#[derive(Clone)]
struct Broken {
    inner: MemoryProvider,
    flaw: Flaw,
    withdrawn: Arc<Mutex<BTreeSet<ArchiveName>>>,
}

impl Provider for Broken {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        if self.withdrawn.lock().expect("a lock").contains(name) {
            return Err(Error::new(ErrorKind::NotFound, "withdrawn"));
        }
        self.inner.open_archive(name)
    }
}

impl BackupJob for Broken {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        Ok(Box::new(BrokenBackup {
            inner: self.inner.start_vm(guest, start_time)?,
            provider: self.clone(),
        }))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        self.inner.start_container(guest, start_time)
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

struct BrokenBackup {
    inner: Box<dyn VmBackup>,
    provider: Broken,
}

impl VmBackup for BrokenBackup {
    fn archive_name(&self) -> &ArchiveName {
        self.inner.archive_name()
    }

    fn mechanism(&self) -> VmMechanism {
        self.inner.mechanism()
    }

    fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        if self.provider.flaw == Flaw::AsksForNothing {
            return Ok(BTreeMap::new());
        }
        let mut chosen = self.inner.choose_bitmaps(incarnation, volumes)?;
        if self.provider.flaw == Flaw::TrustsEveryBitmap {
            for (device, volume) in volumes {
                if let Some(bitmap) = volume.bitmaps.first() {
                    chosen.insert(device.clone(), BitmapRequest::Use(bitmap.name.clone()));
                }
            }
        }
        Ok(chosen)
    }

    fn run(&mut self, mut vm: VmSource) -> Result<BackupStats> {
        let flaw = self.provider.flaw;
        if flaw == Flaw::FillsEmptyFirewallConfig {
            let empty = vm.firewall_config.as_mut().filter(|c| c.is_empty());
            if let Some(config) = empty {
                config.push(b'\n');
            }
        }
        for (device, volume) in &mut vm.volumes {
            match &volume.access {
                SnapshotAccess::FileHandle { .. } => by_file_handle(flaw, volume),
                SnapshotAccess::Nbd { .. } => by_nbd(flaw, device, volume),
            }
        }
        let empty = VmSource {
            guest_config: vm.guest_config.clone(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::new(),
        };
        let mut ran = self.inner.run(vm);
        if let (Ok(stats), Flaw::CountsTwice) = (&mut ran, flaw) {
            stats.read *= 2;
        }
        if flaw == Flaw::HidesTheDisk {
            ran = ran.map_err(|e| Error::new(e.kind(), "a disk cannot be read"));
        }
        if ran.is_err() && flaw == Flaw::CommitsWhatFailed {
            self.inner.run(empty)?;
        }
        ran
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        let provider = &self.provider;
        if provider.flaw == Flaw::WithdrawsAfterFailure && *outcome != Outcome::Success {
            let name = self.inner.archive_name().clone();
            provider.withdrawn.lock().expect("a lock").insert(name);
        }
        self.inner.finish(outcome)
    }
}

fn by_file_handle(flaw: Flaw, volume: &mut Volume) {
    let SnapshotAccess::FileHandle { file, dirty } = &mut volume.access else {
        return;
    };
    let whole = Region::new(0, volume.size);
    if flaw == Flaw::ReadsEverything && volume.bitmap == BitmapMode::Reuse {
        *dirty = Box::new([whole].into_iter());
    } else if flaw == Flaw::DiscardsFirst {
        zero(file, volume.size);
    } else if flaw == Flaw::SwallowsListErrors {
        let regions: Vec<_> = dirty.by_ref().flatten().map(Ok).collect();
        *dirty = Box::new(regions.into_iter());
    } else if flaw == Flaw::DiscardsNothing {
        // Punching holes takes a file that is open for writing.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        *file = File::open(path).expect("a file");
    } else if flaw == Flaw::KnowsBetter && volume.bitmap == BitmapMode::Reuse {
        *dirty = Box::new(std::iter::empty());
    } else if flaw == Flaw::BelievesAnySize {
        volume.size = file.metadata().expect("a file").len();
        let whole = Region::new(0, volume.size);
        *dirty = Box::new([whole].into_iter());
    }
}

fn by_nbd(flaw: Flaw, device: &DeviceName, volume: &mut Volume) {
    let SnapshotAccess::Nbd { socket, .. } = &volume.access else {
        return;
    };
    let client = || {
        let options = ClientOptions {
            export: device.as_str().to_owned(),
            contexts: vec![BASE_ALLOCATION.to_owned()],
            ..ClientOptions::default()
        };
        Client::connect(&Address::Unix(socket.clone()), &options).expect("the kit's server")
    };
    if flaw == Flaw::ReadsEverything {
        volume.bitmap = BitmapMode::New;
    } else if flaw == Flaw::DiscardsFirst {
        // What comes of it is not the point.
        drop(client().trim(0, volume.size.min(512)));
    } else if flaw == Flaw::AsksForAllocation && volume.bitmap == BitmapMode::Reuse {
        drop(client().block_status(BASE_ALLOCATION, 0, volume.size));
    } else if flaw == Flaw::BelievesAnySize {
        volume.size = client().size();
    } else if flaw == Flaw::KnowsBetter && volume.bitmap == BitmapMode::Reuse {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(volume.size).expect("a file");
        let dirty = Box::new(std::iter::empty());
        volume.access = SnapshotAccess::FileHandle { file, dirty };
    } else if matches!(flaw, Flaw::FillsWithZeroes | Flaw::DiscardsNothing)
        && volume.bitmap != BitmapMode::Reuse
    {
        volume.access = copied(&client(), volume.size);
    } else if flaw == Flaw::AsksForNothing {
        volume.access = read_whole(&client(), volume.size);
    }
}

/// A copy of an export in which zeroes stand for what cannot be read.
fn copied(client: &Client, size: u64) -> SnapshotAccess {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(size).expect("a file");
    for offset in (0..size.min(client.size())).step_by(4096) {
        let mut block =
            vec![0; usize::try_from((client.size() - offset).min(4096)).expect("short")];
        if client.read_at(offset, &mut block).is_ok() {
            file.write_all_at(&block, offset).expect("a file");
        }
    }
    let whole = (size > 0).then(|| Region::new(0, size));
    SnapshotAccess::FileHandle {
        file,
        dirty: Box::new(whole.into_iter()),
    }
}

/// A copy of an export that ends where that cannot be read.
fn read_whole(client: &Client, size: u64) -> SnapshotAccess {
    let file = tempfile::tempfile().expect("a file");
    for offset in (0..client.size()).step_by(4096) {
        let mut block =
            vec![0; usize::try_from((client.size() - offset).min(4096)).expect("short")];
        if client.read_at(offset, &mut block).is_err() {
            break;
        }
        file.write_all_at(&block, offset).expect("a file");
    }
    let whole = (size > 0).then(|| Region::new(0, size));
    SnapshotAccess::FileHandle {
        file,
        dirty: Box::new(whole.into_iter()),
    }
}

/// What a discard leaves.
fn zero(file: &File, size: u64) {
    let zeroes = vec![0; usize::try_from(size).expect("a small disk")];
    // A disk that discards nothing, as one property has, keeps its bytes.
    drop(file.write_all_at(&zeroes, 0));
}

/// By this mechanism the kit finds the flaw by these properties, if by others too.
fn expect_caught(mechanism: VmMechanism, flaw: Flaw, names: &[&str]) {
    let properties = vm_properties();
    for name in names {
        let found = properties.iter().find(|(known, _)| known == name);
        let (_, property) = found.expect("a property of the kit");
        let check = property(&|| {
            Box::new(Broken {
                inner: MemoryProvider::new(mechanism),
                flaw,
                withdrawn: Arc::default(),
            })
        });
        assert!(check.is_err(), "{name} holds in spite of {flaw:?}");
    }
}

#[test]
fn trusting_every_bitmap_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::TrustsEveryBitmap,
        &[
            "a_bitmap_of_an_unknown_base_is_not_used",
            "a_bitmap_of_an_uncommitted_base_is_not_used",
            "a_bitmap_of_another_guest_is_not_used",
            "a_bitmap_of_another_device_is_not_used",
            "a_bitmap_of_another_size_is_not_used",
            "a_nameless_base_is_not_trusted_across_incarnations",
        ],
    );
}

#[test]
fn committing_what_failed_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::CommitsWhatFailed,
        &[
            "a_failed_run_leaves_no_archive",
            "a_failed_incremental_harms_nothing",
        ],
    );
}

#[test]
fn reading_outside_the_dirty_regions_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::ReadsEverything,
        &[
            "a_clean_bitmap_reads_nothing",
            "only_dirty_regions_are_read",
            "an_incremental_equals_the_disk",
        ],
    );
}

#[test]
fn discarding_before_reading_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::DiscardsFirst,
        &["nothing_is_discarded_before_it_was_read"],
    );
}

#[test]
fn an_empty_firewall_configuration_that_is_not_none_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::FillsEmptyFirewallConfig,
        &["an_empty_firewall_configuration_is_none"],
    );
}

#[test]
fn withdrawing_a_committed_archive_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::WithdrawsAfterFailure,
        &["an_archive_outlives_a_failed_finish"],
    );
}

#[test]
fn swallowing_errors_of_the_region_list_is_caught() {
    expect_caught(
        VmMechanism::FileHandle,
        Flaw::SwallowsListErrors,
        &["a_failed_incremental_harms_nothing"],
    );
}

#[test]
fn zeroes_for_what_cannot_be_read_are_caught() {
    let property = "a_failed_run_leaves_no_archive";
    expect_caught(VmMechanism::Nbd, Flaw::FillsWithZeroes, &[property]);
}

#[test]
fn believing_any_size_is_caught() {
    for mechanism in [VmMechanism::FileHandle, VmMechanism::Nbd] {
        let property = "a_wrong_announced_size_fails";
        expect_caught(mechanism, Flaw::BelievesAnySize, &[property]);
    }
}

#[test]
fn reading_clean_clusters_over_nbd_is_caught() {
    expect_caught(
        VmMechanism::Nbd,
        Flaw::ReadsEverything,
        &[
            "a_clean_bitmap_reads_nothing",
            "only_dirty_regions_are_read",
            "an_incremental_equals_the_disk",
        ],
    );
}

#[test]
fn discarding_over_nbd_before_reading_is_caught() {
    expect_caught(
        VmMechanism::Nbd,
        Flaw::DiscardsFirst,
        &["nothing_is_discarded_before_it_was_read"],
    );
}

#[test]
fn asking_a_clean_export_for_its_allocation_is_caught() {
    expect_caught(
        VmMechanism::Nbd,
        Flaw::AsksForAllocation,
        &[
            "a_clean_bitmap_reads_nothing",
            "only_dirty_regions_are_read",
        ],
    );
}

#[test]
fn counting_what_was_not_read_is_caught() {
    expect_caught(
        VmMechanism::Nbd,
        Flaw::CountsTwice,
        &["what_was_committed_restores_byte_for_byte"],
    );
}

#[test]
fn keeping_what_was_read_is_caught() {
    for mechanism in [VmMechanism::FileHandle, VmMechanism::Nbd] {
        let property = "what_was_read_is_discarded";
        expect_caught(mechanism, Flaw::DiscardsNothing, &[property]);
    }
}

#[test]
fn taking_a_disk_for_unchanged_without_a_look_at_its_bitmap_is_caught() {
    for mechanism in [VmMechanism::FileHandle, VmMechanism::Nbd] {
        let property = "a_reused_bitmap_is_read_to_its_end";
        expect_caught(mechanism, Flaw::KnowsBetter, &[property]);
    }
}

#[test]
fn not_telling_which_disk_failed_is_caught() {
    for mechanism in [VmMechanism::FileHandle, VmMechanism::Nbd] {
        let property = "one_failing_disk_fails_the_backup_by_its_name";
        expect_caught(mechanism, Flaw::HidesTheDisk, &[property]);
    }
}

#[test]
fn reading_a_whole_disk_without_asking_for_a_list_is_right() {
    let names = [
        "what_was_committed_restores_byte_for_byte",
        "a_failed_run_leaves_no_archive",
        "one_failing_disk_fails_the_backup_by_its_name",
        "a_truncated_region_list_fails",
        "a_failing_region_list_fails",
        "a_wrong_announced_size_fails",
        "a_failed_incremental_harms_nothing",
    ];
    let mut properties = vm_properties();
    properties.retain(|(name, _)| names.contains(name));
    assert_eq!(properties.len(), names.len());
    for (name, property) in properties {
        let check = property(&|| {
            Box::new(Broken {
                inner: MemoryProvider::new(VmMechanism::Nbd),
                flaw: Flaw::AsksForNothing,
                withdrawn: Arc::default(),
            })
        });
        assert!(check.is_ok(), "{name}: {check:?}");
    }
}
