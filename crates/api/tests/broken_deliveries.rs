//! Providers whose archives deliver a disk wrongly: the kit finds each.

use std::collections::BTreeMap;

use snapkeep_api::conformance::vm_properties;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, DeviceName, GuestKind, Part, Provider, Region, Result, Take,
    UnixTime, VmMechanism, VmRestore, VolumeInfo, VolumeReader,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    LeavesOutData,
    TellsZeroesTwice,
    TellsZeroesForData,
    TellsAllWhateverIsAsked,
}

struct Broken(MemoryProvider, Flaw);

impl Provider for Broken {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn start_job(&self, start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        self.0.start_job(start_time)
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        Ok(Box::new(BrokenArchive(self.0.open_archive(name)?, self.1)))
    }
}

struct BrokenArchive(Box<dyn Archive>, Flaw);

impl Archive for BrokenArchive {
    fn guest_kind(&self) -> GuestKind {
        self.0.guest_kind()
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        self.0.guest_config()
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        self.0.firewall_config()
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        Ok(Box::new(BrokenRestore(self.0.restore_vm()?, self.1)))
    }
}

struct BrokenRestore(Box<dyn VmRestore>, Flaw);

impl VmRestore for BrokenRestore {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        self.0.volumes()
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        Ok(Box::new(BrokenVolume(self.0.open_volume(device)?, self.1)))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}

struct BrokenVolume(Box<dyn VolumeReader>, Flaw);

impl VolumeReader for BrokenVolume {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        self.0.next_data(offset)
    }

    fn deliver(&self, range: Region, threads: usize, take: Take<'_>) -> Result<()> {
        let flaw = self.1;
        let range = match flaw {
            Flaw::TellsAllWhateverIsAsked => Region::new(0, self.size())?,
            Flaw::LeavesOutData | Flaw::TellsZeroesTwice | Flaw::TellsZeroesForData => range,
        };
        let wrong = |part: Part<'_>| match (flaw, part) {
            (Flaw::LeavesOutData, Part::Data { .. }) => Ok(()),
            (Flaw::TellsZeroesTwice, Part::Zeroes(_)) => take(part).and_then(|()| take(part)),
            (Flaw::TellsZeroesForData, Part::Data { offset, .. }) => {
                take(Part::Zeroes(Region::new(offset, part.length())?))
            }
            (_, part) => take(part),
        };
        self.0.deliver(range, threads, &wrong)
    }
}

#[test]
fn a_wrong_delivery_is_caught() {
    let properties = vm_properties();
    let name = "what_was_committed_restores_byte_for_byte";
    let (_, property) = (properties.iter().find(|(known, _)| *known == name)).expect("it is there");
    for flaw in [
        Flaw::LeavesOutData,
        Flaw::TellsZeroesTwice,
        Flaw::TellsZeroesForData,
        Flaw::TellsAllWhateverIsAsked,
    ] {
        let check = property(&|| Box::new(Broken(MemoryProvider::new(VmMechanism::Nbd), flaw)));
        let found = check.expect_err("it is found");
        assert!(
            found.contains("deliver") || found.contains("told"),
            "{flaw:?}: {found}"
        );
    }
}
