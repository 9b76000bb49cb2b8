//! A job and its guests, called in the order of Proxmox VE's vzdump.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapkeep_api::{
    ArchiveName, BackupJob, ContainerBackup, Error, ErrorKind, GuestId, GuestKind, Outcome, Result,
    UnixTime, VmBackup, VmMechanism,
};

use super::Dialect;
use super::calls::{Call, Context, Session, died, info, wrong};
use super::driver::Regions;
use super::value::{Arg, Returned};

mod container;
mod vm;

use container::Container;
use vm::Vm;

/// A job; its guests use its process one after another.
pub(crate) struct Job {
    session: Arc<Mutex<Session>>,
}

impl Job {
    pub(crate) fn start(mut session: Session, start: UnixTime) -> Result<Self> {
        let call = match session.dialect() {
            Dialect::Shipped => Call::void("job_init", vec![time(start)]),
            Dialect::V5 => hook("start", vec![("start-time", time(start))]),
        };
        if let Err(error) = session.call(&call) {
            // As after a job that did some of its guests. What is wrong has been seen.
            end(&mut session, &Outcome::Failure(error.chain())).ok();
            return Err(error);
        }
        let session = Arc::new(Mutex::new(session));
        Ok(Self { session })
    }
}

impl BackupJob for Job {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let guest = Guest::start(&self.session, guest, GuestKind::Qemu, start_time)?;
        Ok(Box::new(Vm::new(guest)?))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let guest = Guest::start(&self.session, guest, GuestKind::Lxc, start_time)?;
        Ok(Box::new(Container::new(guest)?))
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        end(&mut locked(&self.session), outcome)
    }
}

fn end(session: &mut Session, outcome: &Outcome) -> Result<()> {
    let call = match (session.dialect(), outcome) {
        (Dialect::Shipped, _) => Call::void("job_cleanup", Vec::new()),
        (Dialect::V5, Outcome::Success) => hook("end", Vec::new()),
        (Dialect::V5, Outcome::Failure(error)) => hook("abort", vec![("error", Arg::text(error))]),
    };
    session.call(&call).map(drop)
}

fn hook(phase: &str, pairs: Vec<(&str, Arg)>) -> Call {
    Call::void("job_hook", vec![Arg::text(phase), info(pairs)])
}

fn locked(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn time(time: UnixTime) -> Arg {
    Arg::Number(u64::try_from(time.0).unwrap_or(0))
}

/// The number of a guest: its own, or for a name one of those that nobody has.
fn vmid(guest: &GuestId) -> u64 {
    let of_name = |name: &str| {
        let fold = |sum: u64, byte: u8| (sum * 31 + u64::from(byte)) % 99_999_999;
        900_000_000 + name.bytes().fold(0, fold)
    };
    let text = guest.as_str();
    text.parse().unwrap_or_else(|_| of_name(text))
}

/// The backup of a guest, of either kind.
struct Guest {
    session: Arc<Mutex<Session>>,
    vmid: u64,
    kind: GuestKind,
    name: ArchiveName,
}

impl Guest {
    fn start(
        session: &Arc<Mutex<Session>>,
        guest: &GuestId,
        kind: GuestKind,
        start: UnixTime,
    ) -> Result<Self> {
        let vmid = vmid(guest);
        let mut own = locked(session);
        let start = own.shared.next_start(start);
        let name = match init(&mut own, vmid, kind, start) {
            Ok(name) => name,
            Err(error) => {
                failed(&mut own, vmid, kind, &error.chain())?;
                log_file(&mut own, vmid)?;
                return Err(error);
            }
        };
        drop(own);
        Ok(Self {
            session: Arc::clone(session),
            vmid,
            kind,
            name,
        })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        locked(&self.session)
    }

    /// The first two arguments of calls of a guest.
    fn ids(&self) -> Vec<Arg> {
        vec![Arg::Number(self.vmid), Arg::text(self.kind.as_str())]
    }

    /// The mechanism that the class asks for, and in version 5 its bitmap.
    fn mechanism(&self) -> Result<(String, Option<String>)> {
        const METHOD: &str = "backup_get_mechanism";
        let mut session = self.session();
        let context = match session.dialect() {
            Dialect::Shipped => Context::Scalar,
            Dialect::V5 => Context::List,
        };
        let call = Call {
            context,
            ..Call::scalar(METHOD, self.ids())
        };
        let values = session.list(&call)?;
        let text = |at: usize| values.get(at).and_then(Returned::text).map(str::to_owned);
        let mechanism = text(0).ok_or_else(|| {
            let what = format!("the class does not back up guests of type {}", self.kind);
            Error::new(ErrorKind::Unsupported, what)
        })?;
        Ok((mechanism, text(1)))
    }

    /// Ends it, as the guest's backup ended.
    fn finish(&self, outcome: &Outcome) -> Result<()> {
        let mut session = self.session();
        let done = match outcome {
            Outcome::Failure(error) => failed(&mut session, self.vmid, self.kind, error),
            Outcome::Success => {
                let succeeded = self.succeeded(&mut session);
                if let Err(error) = &succeeded {
                    failed(&mut session, self.vmid, self.kind, &error.chain())?;
                }
                succeeded
            }
        };
        log_file(&mut session, self.vmid)?;
        done
    }

    fn succeeded(&self, session: &mut Session) -> Result<()> {
        let mut args = self.ids();
        if session.dialect() == Dialect::V5 {
            let id = vec![Arg::Number(self.vmid)];
            session.call(&Call::scalar("backup_get_task_size", id))?;
            args.insert(0, Arg::text("end"));
            args.push(info(Vec::new()));
            return session.call(&Call::void("backup_hook", args)).map(drop);
        }
        args.extend([Arg::Number(1), info(Vec::new())]);
        let result = session.call(&Call::scalar("backup_cleanup", args))?;
        if !result.is_false() && result.hash().is_none() {
            return Err(wrong("backup_cleanup", "neither a hash nor nothing"));
        }
        Ok(())
    }
}

/// Starts a guest's backup; the name that its archive will have.
fn init(session: &mut Session, vmid: u64, kind: GuestKind, start: UnixTime) -> Result<ArchiveName> {
    let ids = || vec![Arg::Number(vmid), Arg::text(kind.as_str())];
    let name = match session.dialect() {
        Dialect::Shipped => {
            let mut args = ids();
            args.push(time(start));
            let result = session.call(&Call::scalar("backup_init", args))?;
            let name = result.get("archive-name").and_then(Returned::text);
            let name = name.map(str::to_owned);
            name.ok_or_else(|| wrong("backup_init", "no hash with an archive-name"))?
        }
        Dialect::V5 => {
            let mut args = ids();
            args.insert(0, Arg::text("start"));
            args.push(info(vec![("start-time", time(start))]));
            session.call(&Call::void("backup_hook", args))?;
            let mut args = ids();
            args.push(time(start));
            let result = session.call(&Call::scalar("backup_get_archive_name", args))?;
            let name = result.text().map(str::to_owned);
            name.ok_or_else(|| wrong("backup_get_archive_name", "no name"))?
        }
    };
    for _ in 0..2 {
        let result = session.call(&Call::scalar("provider_name", Vec::new()))?;
        if result.is_false() {
            return Err(wrong("provider_name", "no name"));
        }
    }
    name.parse()
}

/// Tells a guest's failure. That this fails, too, is only a warning for Proxmox VE.
fn failed(session: &mut Session, vmid: u64, kind: GuestKind, error: &str) -> Result<()> {
    let mut args = vec![Arg::Number(vmid), Arg::text(kind.as_str())];
    let told = info(vec![("error", Arg::text(error))]);
    let call = match session.dialect() {
        Dialect::Shipped => {
            args.extend([Arg::Number(0), told]);
            Call::void("backup_cleanup", args)
        }
        Dialect::V5 => {
            args.insert(0, Arg::text("abort"));
            args.push(told);
            Call::void("backup_hook", args)
        }
    };
    session.attempt(&call, &mut Regions::new()).map(drop)
}

/// Hands the guest's log over. A class that dies here ends the whole job.
fn log_file(session: &mut Session, vmid: u64) -> Result<()> {
    let path = session.shared.place.log(vmid);
    std::fs::write(
        &path,
        format!("INFO: backup of guest {vmid} by the conformance kit\n"),
    )
    .map_err(|e| Error::with_source(ErrorKind::Target, "cannot write a task log", e))?;
    let args = vec![Arg::Number(vmid), Arg::text(path.to_string_lossy())];
    session
        .call(&Call::void("backup_handle_log_file", args))
        .map(drop)
}

/// Proxmox VE's word for a mechanism.
fn word(mechanism: VmMechanism) -> &'static str {
    match mechanism {
        VmMechanism::FileHandle => "file-handle",
        VmMechanism::Nbd => "nbd",
    }
}
