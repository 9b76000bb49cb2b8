//! Processes: the one that started this one, and those that it names.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use snapkeep_api::{Error, ErrorKind, Result};

/// A process, however often its ID comes again.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    /// Readable once it has ended.
    descriptor: OwnedFd,
}

impl Process {
    pub(crate) fn open(id: u32) -> Result<Self> {
        let failed = |e: io::Error| {
            let what = format!("process {id} cannot be watched");
            Error::with_source(ErrorKind::Protocol, what, e)
        };
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(Self { id, descriptor })
    }

    /// A copy of one of its descriptors.
    pub(crate) fn take(&self, number: u64) -> Result<OwnedFd> {
        let id = self.id;
        let failed = |e: io::Error| {
            let what = format!("descriptor {number} of process {id} cannot be taken over");
            Error::with_source(ErrorKind::Protocol, what, e)
        };
        let number = i32::try_from(number);
        let number = number.map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        pidfd_getfd(&self.descriptor, number, PidfdGetfdFlags::empty())
            .map_err(|e| failed(e.into()))
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`. Field 2, the
/// name, is in parentheses, and may have some in it.
pub(crate) fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}
