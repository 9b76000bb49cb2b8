//! The guest at hand.

use serde_json::{Map, Value, json};
use snapkeep_api::{
    ArchiveName, BackupJob, BackupStats, BitmapName, BitmapRequest, Error, ErrorKind, GuestId,
    GuestKind, Outcome, Result, UnixTime, VmMechanism,
};

use crate::call::{BackupContainer, BackupVm, ContainerPrepare, QueryIncremental, VmRegions};
use crate::container::Container;
use crate::incarnation::incarnation;
use crate::interrupt::Interrupt;
use crate::process::Process;
use crate::vm::Vm;

/// A guest's backup, from its name to its cleanup.
pub(crate) struct Guest {
    id: GuestId,
    archive: ArchiveName,
    running: Running,
    committed: Option<BackupStats>,
    /// Why nothing was committed.
    failed: Option<String>,
}

enum Running {
    Vm(Vm),
    Container(Container),
}

impl Guest {
    /// Begins a backup.
    pub(crate) fn start(
        job: &mut dyn BackupJob,
        id: &GuestId,
        kind: GuestKind,
        time: UnixTime,
    ) -> Result<Self> {
        let (archive, running) = match kind {
            GuestKind::Qemu => {
                let backup = job.start_vm(id, time)?;
                (backup.archive_name().clone(), Running::Vm(Vm::new(backup)))
            }
            GuestKind::Lxc => {
                let backup = job.start_container(id, time)?;
                let archive = backup.archive_name().clone();
                (archive, Running::Container(Container::new(backup)))
            }
        };
        Ok(Self {
            id: id.clone(),
            archive,
            running,
            committed: None,
            failed: None,
        })
    }

    pub(crate) fn id(&self) -> &GuestId {
        &self.id
    }

    pub(crate) fn archive(&self) -> &ArchiveName {
        &self.archive
    }

    /// What was committed.
    pub(crate) fn committed(&self) -> Option<BackupStats> {
        self.committed
    }

    /// Why nothing was committed.
    pub(crate) fn why_not(&self) -> &str {
        let never = "its data was never handed over, or the process that did it is gone";
        self.failed.as_deref().unwrap_or(never)
    }

    /// How its data is to be handed over.
    pub(crate) fn mechanism(&mut self, kind: GuestKind) -> Result<&'static str> {
        match (&self.running, kind) {
            (Running::Vm(vm), GuestKind::Qemu) => Ok(match vm.mechanism() {
                VmMechanism::FileHandle => "file-handle",
                VmMechanism::Nbd => "nbd",
            }),
            (Running::Container(_), GuestKind::Lxc) => Ok("directory"),
            (Running::Vm(_), GuestKind::Lxc) | (Running::Container(_), GuestKind::Qemu) => {
                Err(other_kind(&self.id))
            }
        }
    }

    /// Which bitmaps to use.
    pub(crate) fn query_incremental(
        &mut self,
        args: &QueryIncremental,
        bitmap: &BitmapName,
    ) -> Result<Value> {
        let incarnation = incarnation(&self.id);
        let requests = self.vm()?.choose_bitmaps(&incarnation, args, bitmap)?;
        let words = requests.into_iter().map(|(device, request)| {
            let word = match request {
                BitmapRequest::New => "new",
                BitmapRequest::Use(_) => "use",
            };
            (device.as_str().to_owned(), json!(word))
        });
        Ok(Value::Object(words.collect::<Map<_, _>>()))
    }

    /// Takes a part of the list of dirty regions.
    pub(crate) fn add_regions(&mut self, args: &VmRegions) -> Result<()> {
        self.vm()?.add_regions(args)
    }

    /// Reads a virtual machine and commits its archive.
    pub(crate) fn run_vm(&mut self, args: BackupVm, starter: &Process) -> Result<BackupStats> {
        self.failed = Some("it ended in a panic".to_owned());
        let result = self.vm().and_then(|vm| vm.run(args, starter));
        self.ran(result)
    }

    fn vm(&mut self) -> Result<&mut Vm> {
        match &mut self.running {
            Running::Vm(vm) => Ok(vm),
            Running::Container(_) => Err(other_kind(&self.id)),
        }
    }

    fn container(&mut self) -> Result<&mut Container> {
        match &mut self.running {
            Running::Container(container) => Ok(container),
            Running::Vm(_) => Err(other_kind(&self.id)),
        }
    }

    /// Takes what a container's backup needs of the host.
    pub(crate) fn prepare(&mut self, args: ContainerPrepare, starter: &Process) -> Result<()> {
        self.container()?.prepare(args, starter)
    }

    /// Reads a container and commits its archive.
    pub(crate) fn run_container(
        &mut self,
        args: &BackupContainer,
        interrupt: &Interrupt,
    ) -> Result<BackupStats> {
        self.failed = Some("it ended in a panic".to_owned());
        let result = self
            .container()
            .and_then(|container| container.run(args, interrupt));
        self.ran(result)
    }

    fn ran(&mut self, result: Result<BackupStats>) -> Result<BackupStats> {
        match &result {
            Ok(stats) => self.committed = Some(*stats),
            Err(error) => self.failed = Some(error.chain()),
        }
        result
    }

    /// Ends the backup.
    pub(crate) fn finish(self, outcome: &Outcome) -> Result<()> {
        match self.running {
            Running::Vm(vm) => vm.finish(outcome),
            Running::Container(container) => container.finish(outcome),
        }
    }
}

fn other_kind(id: &GuestId) -> Error {
    let what = format!("the backup of guest {id} was begun as one of the other type");
    Error::new(ErrorKind::Protocol, what)
}
