//! What a conversation is about: the provider, a job and restores, and which of them a call is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::{Value, json};
use snapkeep_api::{
    Archive, BitmapName, Error, ErrorKind, GuestKind, Level, Outcome, Provider, Result, TaskLog,
};

use crate::backend::{Backend, ContainerMechanism, Hello, StorageCall};
use crate::call::{BackupInit, Call};
use crate::conversation::said;
use crate::guest::Guest;
use crate::interrupt::Interrupt;
use crate::job::Jobs;
use crate::log::Log;
use crate::message::encode;
use crate::process::Process;
use crate::restore::Restores;

/// The version of the conversation.
const VERSION: u32 = 1;

pub(crate) struct Session {
    backend: Arc<dyn Backend>,
    log: Arc<Log>,
    interrupt: Arc<Interrupt>,
    greeted: Option<Greeted>,
    provider: Option<Box<dyn Provider>>,
    jobs: Jobs,
    restores: Restores,
}

/// What `hello` said.
struct Greeted {
    starter: Arc<Process>,
    /// The name of the bitmaps that Proxmox VE keeps for this storage.
    bitmap: BitmapName,
}

impl Session {
    pub(crate) fn new(backend: Arc<dyn Backend>, log: Arc<Log>, interrupt: Arc<Interrupt>) -> Self {
        Self {
            jobs: Jobs::new(Arc::clone(&log)),
            restores: Restores::new(Arc::clone(&backend), Arc::clone(&log)),
            backend,
            log,
            interrupt,
            greeted: None,
            provider: None,
        }
    }

    /// The process that `hello` named.
    pub(crate) fn starter(&self) -> Option<Arc<Process>> {
        let greeted = self.greeted.as_ref();
        greeted.map(|greeted| Arc::clone(&greeted.starter))
    }

    pub(crate) fn warn(&self, message: &str) {
        self.log.log(Level::Warn, message);
    }

    /// Makes a call.
    #[expect(clippy::too_many_lines, reason = "it has an arm for each call")]
    pub(crate) fn call(&mut self, call: Call) -> Result<Value> {
        if let Call::Hello(hello) = call {
            return self.hello(&hello);
        }
        let Some(greeted) = &self.greeted else {
            let what = "the first call is hello, and it must succeed";
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        match call {
            Call::Hello(_) => Ok(Value::Null),
            Call::ProviderName => Ok(json!(self.provider()?.name())),
            Call::JobInit(args) => {
                self.jobs.check_none()?;
                let job = self.provider()?.start_job(args.start_time)?;
                self.jobs.start(job);
                Ok(Value::Null)
            }
            Call::JobCleanup(args) => {
                let outcome = args.error.map_or(Outcome::Success, Outcome::Failure);
                self.jobs.finish(&outcome)?;
                Ok(Value::Null)
            }
            Call::BackupInit(args) => self.backup_init(&args),
            Call::BackupCleanup(args) => {
                let size = self.jobs.cleanup(&args)?;
                Ok(size.map_or(Value::Null, |bytes| json!({"archive-size": bytes})))
            }
            Call::BackupGetMechanism(of) => {
                let mechanism = match kind(&of.vmtype) {
                    Ok(kind) => Some(self.jobs.guest(&of.vmid)?.mechanism(kind)?),
                    Err(_) => None,
                };
                Ok(json!({"mechanism": mechanism, "bitmap": null}))
            }
            Call::BackupVmQueryIncremental(args) => {
                let bitmap = greeted.bitmap.clone();
                self.jobs
                    .guest(&args.vmid)?
                    .query_incremental(&args, &bitmap)
            }
            Call::BackupVmRegions(args) => {
                self.jobs.guest(&args.vmid)?.add_regions(&args)?;
                Ok(Value::Null)
            }
            Call::BackupVm(args) => {
                let starter = Arc::clone(&greeted.starter);
                let guest = self.jobs.guest(&args.vmid)?;
                let stats = guest.run_vm(args, &starter)?;
                self.jobs.committed();
                Ok(json!({"archive-size": stats.archive_size}))
            }
            Call::BackupContainerPrepare(args) => {
                let starter = Arc::clone(&greeted.starter);
                self.jobs.guest(&args.vmid)?.prepare(args, &starter)?;
                Ok(Value::Null)
            }
            Call::BackupContainer(args) => {
                let guest = self.jobs.guest(&args.vmid)?;
                let stats = guest.run_container(&args, &self.interrupt)?;
                self.jobs.committed();
                Ok(json!({"archive-size": stats.archive_size}))
            }
            Call::BackupHandleLogFile(args) => {
                self.jobs.keep_log(&args)?;
                Ok(Value::Null)
            }
            Call::ArchiveGetGuestConfig(of) => {
                Ok(json!(encode(&self.archive(&of.volname)?.guest_config()?)))
            }
            Call::ArchiveGetFirewallConfig(of) => {
                let config = self.archive(&of.volname)?.firewall_config()?;
                Ok(json!(config.map(|config| encode(&config))))
            }
            Call::RestoreGetMechanism(of) => {
                let kind = self.archive(&of.volname)?.guest_kind();
                let mechanism = match kind {
                    GuestKind::Qemu => "qemu-img",
                    GuestKind::Lxc => self.backend.container_restore().as_str(),
                };
                Ok(json!([mechanism, kind.as_str()]))
            }
            Call::RestoreVmInit(of) => {
                let restore = self.archive(&of.volname)?.restore_vm()?;
                self.restores.begin_vm(&of.volname, restore)
            }
            Call::RestoreVmVolumeInit(of) => {
                let path = self.restores.open(&of.volname, &of.device)?;
                Ok(json!({"qemu-img-path": path}))
            }
            Call::RestoreVmVolumeCleanup(of) => {
                self.restores.close(&of.volname, &of.device)?;
                Ok(Value::Null)
            }
            Call::RestoreContainerInit(of) => {
                let restore = self.archive(&of.volname)?.restore_container()?;
                let mechanism = self.backend.container_restore();
                let cancel = self.interrupt.all();
                let path =
                    (self.restores).begin_container(&of.volname, restore, mechanism, &cancel)?;
                Ok(match mechanism {
                    ContainerMechanism::Tar => json!({"tar-path": path}),
                    ContainerMechanism::Directory => json!({"archive-directory": path}),
                })
            }
            Call::RestoreVmCleanup(of) | Call::RestoreContainerCleanup(of) => {
                self.restores.end(&of.volname)?;
                Ok(Value::Null)
            }
            Call::Storage(call) => self.storage(call),
        }
    }

    fn hello(&mut self, hello: &Hello) -> Result<Value> {
        if self.greeted.is_some() {
            let what = "hello is said once";
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        if hello.version != VERSION {
            let what = format!(
                "the other end speaks version {} of the conversation, this one {VERSION}: install \
                 the packages of one version",
                hello.version
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let storage: snapkeep_api::StorageId = hello.storage.parse()?;
        let bitmap = format!("snapshot-access:{storage}").parse()?;
        self.backend.greet(hello)?;
        let starter = Arc::new(Process::open(hello.pid)?);
        self.greeted = Some(Greeted { starter, bitmap });
        Ok(json!({"version": VERSION, "program": self.backend.program()}))
    }

    fn backup_init(&mut self, args: &BackupInit) -> Result<Value> {
        let kind = kind(&args.vmtype)?;
        let job = self.jobs.make_room("another guest's backup began")?;
        let guest = Guest::start(job, &args.vmid, kind, args.start_time)?;
        match self.backend.shown_name(guest.archive()) {
            Ok(shown) => {
                self.jobs.begin(guest);
                Ok(json!({"archive-name": shown}))
            }
            Err(error) => {
                guest.finish(&Outcome::Failure(error.chain()))?;
                Err(error)
            }
        }
    }

    fn provider(&mut self) -> Result<&dyn Provider> {
        let provider = if let Some(provider) = self.provider.take() {
            provider
        } else {
            let log = Arc::clone(&self.log);
            self.backend.provider(log, self.interrupt.all())?
        };
        Ok(&**self.provider.insert(provider))
    }

    fn archive(&mut self, shown: &str) -> Result<Box<dyn Archive>> {
        let name = self.backend.archive_name(shown)?;
        self.provider()?.open_archive(&name)
    }

    fn storage(&self, call: StorageCall) -> Result<Value> {
        let log = Arc::clone(&self.log);
        self.backend.storage(call, log, self.interrupt.all())
    }

    /// Takes down what is left.
    pub(crate) fn end(&mut self) {
        let outcome = Outcome::Failure("the process that made the backup is gone".to_owned());
        self.told(|session| session.jobs.finish(&outcome));
        self.told(|session| session.restores.end_all());
    }

    /// Does something whose failure must not keep the rest from being done.
    fn told(&mut self, end: impl FnOnce(&mut Self) -> Result<()>) {
        match catch_unwind(AssertUnwindSafe(|| end(self))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.log.log(Level::Error, &error.chain()),
            Err(panic) => self.log.log(Level::Error, said(&*panic)),
        }
    }
}

/// A kind of guests, as Proxmox VE calls it.
fn kind(vmtype: &str) -> Result<GuestKind> {
    match vmtype {
        "qemu" => Ok(GuestKind::Qemu),
        "lxc" => Ok(GuestKind::Lxc),
        other => {
            let what = format!("guests of the type {other:?} are not backed up");
            Err(Error::new(ErrorKind::Unsupported, what))
        }
    }
}
