//! A job, and what callers really do with one: cleanups come twice, without a beginning, or for
//! another guest than the one at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::{
    ArchiveName, BackupJob, Error, ErrorKind, GuestId, Level, Outcome, Result, TaskLog, TaskLogFile,
};

use crate::call::{BackupCleanup, LogFile};
use crate::guest::Guest;
use crate::log::Log;

/// The job that runs, if one does.
pub(crate) struct Jobs {
    log: Arc<Log>,
    job: Option<Job>,
}

struct Job {
    inner: Box<dyn BackupJob>,
    guest: Option<Guest>,
    /// The last archive of each guest that was committed, and its size.
    committed: BTreeMap<GuestId, (ArchiveName, u64)>,
    /// The guest whose backup ended well last.
    ended_well: Option<GuestId>,
}

impl Jobs {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        Self { log, job: None }
    }

    /// Fails if a job runs.
    pub(crate) fn check_none(&self) -> Result<()> {
        if self.job.is_none() {
            return Ok(());
        }
        let what = "a job runs already";
        Err(Error::new(ErrorKind::Protocol, what))
    }

    pub(crate) fn start(&mut self, job: Box<dyn BackupJob>) {
        self.job = Some(Job {
            inner: job,
            guest: None,
            committed: BTreeMap::new(),
            ended_well: None,
        });
    }

    /// Ends the job, and what is left of a guest.
    pub(crate) fn finish(&mut self, outcome: &Outcome) -> Result<()> {
        let Some(mut job) = self.job.take() else {
            return Ok(());
        };
        let why = match outcome {
            Outcome::Success => "the job ended",
            Outcome::Failure(why) => why,
        };
        let left = job.end_guest(why);
        job.inner.finish(outcome)?;
        left
    }

    /// The provider's job, after the guest at hand was ended: each has its cleanup, unless somebody
    /// lost it.
    pub(crate) fn make_room(&mut self, why: &str) -> Result<&mut dyn BackupJob> {
        let job = self.job.as_mut().ok_or_else(no_job)?;
        job.ended_well = None;
        job.end_guest(why)?;
        Ok(&mut *job.inner)
    }

    pub(crate) fn begin(&mut self, guest: Guest) {
        if let Some(job) = &mut self.job {
            job.committed.remove(guest.id());
            job.guest = Some(guest);
        }
    }

    /// The guest at hand, which must be this one.
    pub(crate) fn guest(&mut self, id: &GuestId) -> Result<&mut Guest> {
        let job = self.job.as_mut().ok_or_else(no_job)?;
        let guest = job.guest.as_mut().filter(|guest| guest.id() == id);
        guest.ok_or_else(|| {
            let what = format!("no backup of guest {id} was begun");
            Error::new(ErrorKind::Protocol, what)
        })
    }

    /// Notes that the guest at hand has an archive.
    pub(crate) fn committed(&mut self) {
        let Some(job) = &mut self.job else {
            return;
        };
        if let Some(guest) = &job.guest
            && let Some(stats) = guest.committed()
        {
            let archive = (guest.archive().clone(), stats.archive_size);
            job.committed.insert(guest.id().clone(), archive);
        }
    }

    /// Ends a guest's backup; its archive's size if that went well.
    pub(crate) fn cleanup(&mut self, args: &BackupCleanup) -> Result<Option<u64>> {
        let id = &args.vmid;
        let said = args.error.as_deref().unwrap_or("no reason was given");
        let Some(job) = &mut self.job else {
            return if args.success {
                Err(none_committed(id, "no job runs"))
            } else {
                Ok(None)
            };
        };
        let Some(guest) = job.guest.take_if(|guest| guest.id() == id) else {
            if args.success {
                let committed = job.committed.get(id).map(|(_, size)| *size);
                return match committed.filter(|_| job.ended_well.as_ref() == Some(id)) {
                    Some(size) => Ok(Some(size)),
                    None => Err(none_committed(id, "none was begun")),
                };
            }
            if job.ended_well.as_ref() == Some(id) {
                let what = format!(
                    "guest {id}: its backup ended well and is kept, and something failed later: {said}"
                );
                self.log.log(Level::Warn, &what);
            }
            return Ok(None);
        };
        if !args.success {
            guest.finish(&Outcome::Failure(said.to_owned()))?;
            return Ok(None);
        }
        let Some(stats) = guest.committed() else {
            let error = none_committed(id, guest.why_not());
            guest.finish(&Outcome::Failure(error.chain()))?;
            return Err(error);
        };
        guest.finish(&Outcome::Success)?;
        job.ended_well = Some(id.clone());
        Ok(Some(stats.archive_size))
    }

    /// Keeps a guest's task log.
    pub(crate) fn keep_log(&mut self, args: &LogFile) -> Result<()> {
        let path = &args.path;
        if !path.is_absolute() {
            let what = "the path of the log is not absolute";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let job = self.job.as_mut().ok_or_else(no_job)?;
        let archive = job.committed.get(&args.vmid).map(|(archive, _)| archive);
        job.inner.keep_task_log(&TaskLogFile {
            guest: &args.vmid,
            archive,
            path,
        })
    }
}

impl Job {
    fn end_guest(&mut self, why: &str) -> Result<()> {
        let guest = self.guest.take();
        guest.map_or(Ok(()), |guest| {
            guest.finish(&Outcome::Failure(why.to_owned()))
        })
    }
}

fn no_job() -> Error {
    Error::new(ErrorKind::Protocol, "no job runs")
}

fn none_committed(id: &GuestId, why: &str) -> Error {
    let what = format!("no backup of guest {id} was committed: {why}");
    Error::new(ErrorKind::Protocol, what)
}
