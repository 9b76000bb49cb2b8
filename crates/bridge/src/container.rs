//! A container: its tree is read by a walker in its user namespace, which the Perl side starts.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use snapkeep_api::{
    BackupStats, Cancel, ContainerBackup, ContainerSource, Error, ErrorKind, IdMap, IdRange,
    Outcome, Result,
};
use snapkeep_walk::{Options, Pull, Request};

use crate::call::{BackupContainer, ContainerPrepare};
use crate::interrupt::Interrupt;
use crate::limits;
use crate::process::Process;

/// A container's backup, and what was handed over beforehand.
pub(crate) struct Container {
    backup: Box<dyn ContainerBackup>,
    prepared: Option<Prepared>,
}

struct Prepared {
    /// Our end of the walker's socket.
    walker: OwnedFd,
    directory: PathBuf,
    sources: Vec<Vec<u8>>,
    firewall_config: Option<Vec<u8>>,
    bandwidth_limit: Option<NonZeroU64>,
}

impl Container {
    pub(crate) fn new(backup: Box<dyn ContainerBackup>) -> Self {
        let prepared = None;
        Self { backup, prepared }
    }

    /// Of two the later counts.
    pub(crate) fn prepare(&mut self, args: ContainerPrepare, starter: &Process) -> Result<()> {
        self.prepared = None;
        let walker = starter.take(args.walker_fd)?;
        let kind = socket_domain(&walker).and_then(|domain| Ok((domain, socket_type(&walker)?)));
        if kind != Ok((AddressFamily::UNIX, SocketType::STREAM)) {
            let what = "the walker's descriptor is no Unix stream socket";
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        let sources = args.sources.into_iter().map(String::into_bytes);
        self.prepared = Some(Prepared {
            walker,
            directory: args.directory,
            sources: sources.collect(),
            firewall_config: args.firewall_config,
            bandwidth_limit: args.bandwidth_limit.and_then(NonZeroU64::new),
        });
        Ok(())
    }

    /// Reads the tree and commits the archive. Whatever happens, the walker's socket is closed then.
    pub(crate) fn run(
        &mut self,
        args: &BackupContainer,
        interrupt: &Interrupt,
    ) -> Result<BackupStats> {
        let prepared = self.prepared.take().ok_or_else(|| {
            let what = "the container's backup was not prepared";
            Error::new(ErrorKind::Protocol, what)
        })?;
        let process = Process::open(args.pid)?;
        let id_map = id_map(&process)?;
        let cancel = interrupt.part();
        let request = Request {
            directory: prepared.directory,
            sources: prepared.sources,
            exclude: args
                .exclude
                .iter()
                .map(|e| e.clone().into_bytes())
                .collect(),
            ask: true,
        };
        let options = Options {
            cancel: cancel.clone(),
            ..Options::default()
        };
        let mut pull = Pull::inherited(prepared.walker, &request, options)?;
        let watch = Watch::start(process, cancel)?;
        let result = self.backup.run(ContainerSource {
            guest_config: &args.guest_config,
            firewall_config: prepared.firewall_config.as_deref(),
            bandwidth_limit: prepared.bandwidth_limit,
            id_map: id_map.as_ref(),
            tree: &mut pull,
        });
        match result {
            Err(error) if watch.has_ended() => {
                let what = format!("process {}, which started the walker, ended", args.pid);
                Err(Error::with_source(ErrorKind::Source, what, error))
            }
            result => result,
        }
    }

    pub(crate) fn finish(self, outcome: &Outcome) -> Result<()> {
        self.backup.finish(outcome)
    }
}

/// Cancels what runs when a process ends.
struct Watch {
    ended: Arc<AtomicBool>,
    /// The other end is watched, too.
    until_dropped: Option<UnixStream>,
    watching: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(process: Process, cancel: Cancel) -> Result<Self> {
        let failed = |e: io::Error| {
            let what = format!("process {} cannot be watched", process.id());
            Error::with_source(ErrorKind::Source, what, e)
        };
        let (until_dropped, dropped) = UnixStream::pair().map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let watch = move || {
            let mut both = [
                PollFd::new(&process, PollFlags::IN),
                PollFd::new(&dropped, PollFlags::IN),
            ];
            while poll(&mut both, None) == Err(Errno::INTR) {}
            if !both[0].revents().is_empty() {
                seen.store(true, Ordering::SeqCst);
                cancel.cancel();
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned());
        let watching = thread.spawn(watch).map_err(|e| {
            let what = "the process that started the walker cannot be watched";
            Error::with_source(ErrorKind::Source, what, e)
        })?;
        Ok(Self {
            ended,
            until_dropped: Some(until_dropped),
            watching: Some(watching),
        })
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.until_dropped = None;
        // It does nothing that could panic.
        self.watching.take().map(JoinHandle::join);
    }
}

/// The user namespace that a process is in; `None` is the machine's own.
fn id_map(process: &Process) -> Result<Option<IdMap>> {
    let read = |name: &str| {
        let path = format!("/proc/{}/{name}", process.id());
        let mut text = String::new();
        let read = File::open(&path)
            .and_then(|file| file.take(limits::PROC_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|e| {
            let what = format!("the ID map of the container, {path}, cannot be read");
            Error::with_source(ErrorKind::Source, what, e)
        })?;
        ranges(&text).ok_or_else(|| {
            let what = format!("the ID map of the container, {path}, cannot be understood");
            Error::new(ErrorKind::Source, what)
        })
    };
    let (users, groups) = (read("uid_map")?, read("gid_map")?);
    let same = |range: &IdRange| range.container == range.host;
    if !users.is_empty() && users.iter().chain(&groups).all(same) {
        return Ok(None);
    }
    IdMap::new(users, groups).map(Some)
}

/// Lines of container, host and count.
fn ranges(text: &str) -> Option<Vec<IdRange>> {
    let lines = text.lines().map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(IdRange {
            container: next()?,
            host: next()?,
            count: next()?,
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_namespace_that_its_map_shows() {
        let own = Process::open(std::process::id()).unwrap();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let identity = ranges(&map)
            .unwrap()
            .iter()
            .all(|range| range.container == range.host);
        assert_eq!(id_map(&own).unwrap().is_none(), identity);
    }

    #[test]
    fn a_map_is_read_as_the_kernel_shows_it() {
        let map =
            ranges("         0     100000      65536\n     65536          7          1\n").unwrap();
        assert_eq!((map[0].host, map[0].count), (100_000, 65536));
        assert_eq!((map[1].container, map[1].host), (65536, 7));
        assert_eq!(ranges("0 x 1\n"), None);
        assert_eq!(ranges(""), Some(Vec::new()));
    }
}
