//! Providers with one deliberate flaw each: the kit names the property that each one breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use snapkeep_api::conformance::failing_vm_properties;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, BackupStats, BitmapMode, BitmapRequest, ContainerBackup,
    DeviceName, Error, ErrorKind, GuestId, Incarnation, Outcome, Provider, Region, Result,
    SnapshotAccess, UnixTime, VmBackup, VmMechanism, VmSource, VolumeInfo,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    TrustsEveryBitmap,
    CommitsWhatFailed,
    ReadsEverything,
    DiscardsFirst,
    DropsEmptyFirewallConfig,
    WithdrawsAfterFailure,
    SwallowsListErrors,
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
        if flaw == Flaw::DropsEmptyFirewallConfig {
            vm.firewall_config = vm.firewall_config.filter(|config| !config.is_empty());
        }
        for volume in vm.volumes.values_mut() {
            let SnapshotAccess::FileHandle { file, dirty } = &mut volume.access else {
                panic!("the kit hands over file handles");
            };
            let whole = Region::new(0, volume.size);
            if flaw == Flaw::ReadsEverything && volume.bitmap == BitmapMode::Reuse {
                *dirty = Box::new([whole].into_iter());
            } else if flaw == Flaw::DiscardsFirst {
                zero(file, volume.size);
            } else if flaw == Flaw::SwallowsListErrors {
                let regions: Vec<_> = dirty.by_ref().flatten().map(Ok).collect();
                *dirty = Box::new(regions.into_iter());
            }
        }
        let empty = VmSource {
            guest_config: vm.guest_config.clone(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::new(),
        };
        let ran = self.inner.run(vm);
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

/// What a discard leaves.
fn zero(file: &File, size: u64) {
    let zeroes = vec![0; usize::try_from(size).expect("a small disk")];
    file.write_all_at(&zeroes, 0).expect("a writable disk");
}

/// The kit finds the flaw by these properties, if by others too.
fn expect_caught(flaw: Flaw, properties: &[&str]) {
    let failures = failing_vm_properties(&|| {
        Box::new(Broken {
            inner: MemoryProvider::new(VmMechanism::FileHandle),
            flaw,
            withdrawn: Arc::default(),
        })
    });
    let names: Vec<_> = failures.iter().map(|(name, _)| *name).collect();
    for property in properties {
        assert!(names.contains(property), "{property} holds: {failures:?}");
    }
}

#[test]
fn trusting_every_bitmap_is_caught() {
    expect_caught(
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
        Flaw::DiscardsFirst,
        &["nothing_is_discarded_before_it_was_read"],
    );
}

#[test]
fn an_empty_firewall_configuration_taken_for_none_is_caught() {
    expect_caught(
        Flaw::DropsEmptyFirewallConfig,
        &["an_empty_firewall_configuration_is_not_none"],
    );
}

#[test]
fn withdrawing_a_committed_archive_is_caught() {
    expect_caught(
        Flaw::WithdrawsAfterFailure,
        &["an_archive_outlives_a_failed_finish"],
    );
}

#[test]
fn swallowing_errors_of_the_region_list_is_caught() {
    expect_caught(
        Flaw::SwallowsListErrors,
        &["a_failed_incremental_harms_nothing"],
    );
}
