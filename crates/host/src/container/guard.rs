//! The guard: a process beside a backup that lives on when the backup is killed, and then takes back
//! what it had changed.
//!
//! It is this program again, in a session of its own. It holds nothing but the end of a pipe, and
//! does nothing before the other end is closed, which is the backup's. A backup that ends well ends
//! its guard.

mod log;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use snapkeep_api::{Cancel, Error, ErrorKind, Level, Result, TaskLog};

use super::command::withhold_secrets;
use super::journal::{Journal, Step};
use super::life::Life;
use super::limits::Timeouts;
use super::lock::Lock;
use super::place::Place;
use super::undo::Undo;
use log::FileLog;

/// What a guard says when it is there.
const READY: &[u8] = b"the guard is there\n";
/// What it may say before, in bytes.
const BEFORE_READY_MAX: usize = 4096;
/// The pause between two looks at the lock.
const LOOK: Duration = Duration::from_millis(50);
/// The pause before what failed is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// How long deleting a snapshot is tried again.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(30);

/// How to start this program so that it calls [`guard`].
#[derive(Clone, Debug)]
pub struct GuardProgram {
    /// The program.
    pub program: PathBuf,
    /// What it is given before the two arguments of [`guard`].
    pub arguments: Vec<OsString>,
}

/// A guard that watches this process.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    /// Whatever it says later, it does not end because nobody listens.
    _words: ChildStdout,
}

impl Guard {
    /// Starts one. It is there when this returns.
    pub(super) fn start(program: &GuardProgram, place: &Place, times: &Timeouts) -> Result<Self> {
        let failed = |why: String| {
            let what = format!(
                "cannot start the guard of the backup, {}: {why}",
                program.program.display()
            );
            Error::new(ErrorKind::Unavailable, what)
        };
        let mut command = Command::new(&program.program);
        command
            .args(&program.arguments)
            .args([place.folder().as_os_str(), place.stem().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        withhold_secrets(&mut command);
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let Some(mut words) = child.stdout.take() else {
            return Err(failed("it has no output".to_owned()));
        };
        let said = wait_until_ready(&mut words, times.guard);
        let guard = Self {
            child,
            _words: words,
        };
        match said {
            Ok(()) => Ok(guard),
            Err(e) => {
                guard.end();
                Err(failed(e.to_string()))
            }
        }
    }

    /// Ends it: there is nothing to watch any more.
    pub(super) fn end(mut self) {
        // If it has ended by itself, there is nothing to end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn wait_until_ready(words: &mut ChildStdout, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    while !said.ends_with(READY) {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(words, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Err(io::Error::other("it does not say that it is there")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let mut byte = [0];
        match words.read(&mut byte) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Ok(1) if said.len() < BEFORE_READY_MAX => {}
            Ok(_) => return Err(io::Error::other("it ended, or is another program")),
            Err(e) => return Err(e),
        }
        said.extend(byte);
    }
    Ok(())
}

/// Is the guard of a backup: returns when that is dead, and what it had changed is taken back.
/// Its standard input and output are the backup's. Once the backup is dead, it writes to a file in
/// the state folder what it does, and lets go of standard error: whoever called the backup may wait
/// for the end of that.
///
/// `arguments` are the last two of the command line. An error says what could not be taken back; the
/// journal still has it, for the next backup.
pub fn guard(arguments: [OsString; 2]) -> Result<()> {
    let [folder, stem] = arguments;
    let place = Place::named(Path::new(&folder), &stem.to_string_lossy())?;
    let failed = |e: io::Error| Error::with_source(ErrorKind::Unavailable, "the guard", e);
    // It fails for the first process of a session, which is one of its own.
    rustix::process::setsid().ok();
    std::env::set_current_dir("/").map_err(failed)?;
    // Whoever ends the backup by a signal to all its processes does not end what takes it back.
    for signal in [
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGQUIT,
    ] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(failed)?;
    }
    let backup = Lock::holder(&place);
    let mut out = io::stdout();
    let said = out.write_all(READY).and_then(|()| out.flush());
    said.map_err(failed)?;
    // It ends when the backup does; nothing comes.
    io::copy(&mut io::stdin(), &mut io::sink()).map_err(failed)?;
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    // If it fails, somebody waits; that is no reason to leave a container as it is.
    nowhere
        .map(|nowhere| rustix::stdio::dup2_stderr(nowhere).ok())
        .ok();
    if Journal::load(&place)?.is_none() {
        return Ok(());
    }
    let log = FileLog::new(&place.log());
    let done = take_back(&place, backup.as_ref(), &log);
    if let Err(e) = &done {
        log.log(Level::Error, &e.chain());
    }
    done
}

/// Takes back what a dead backup had changed.
fn take_back(place: &Place, backup: Option<&Life>, log: &dyn TaskLog) -> Result<()> {
    let Some(lock) = take_over(place, backup, log)? else {
        return Ok(());
    };
    let Some(mut journal) = Journal::load(place)? else {
        return Ok(());
    };
    log.log(
        Level::Warn,
        "the backup was killed: its guard takes back what it had changed",
    );
    let undo = Undo {
        place,
        lock: &lock,
        log,
        cancel: &Cancel::new(),
        is_anothers: false,
    };
    let began = Instant::now();
    loop {
        match undo.all(&mut journal) {
            Err(e) if began.elapsed() >= patience(&journal) => return Err(e),
            Err(_) => sleep(PAUSE),
            Ok(()) => return Ok(()),
        }
    }
}

/// How long what failed is tried again. A snapshot too many must not keep the next backup, which
/// deletes it as well, from running.
fn patience(journal: &Journal) -> Duration {
    if journal.steps.iter().any(Step::may_stand_still) {
        journal.timeouts.retry
    } else {
        journal.timeouts.retry.min(SNAPSHOT_RETRY)
    }
}

/// Takes the dead backup's lock. Programs that it had started get their time, then they are killed.
/// `None` if another backup was faster: it takes back everything itself.
fn take_over(place: &Place, backup: Option<&Life>, log: &dyn TaskLog) -> Result<Option<Lock>> {
    let times = Journal::load(place)?.map_or_else(Timeouts::default, |journal| journal.timeouts);
    let longest = [times.program, times.start, times.stop, times.hook];
    let limit = longest.into_iter().max().unwrap_or(times.program);
    let deadline = Instant::now() + limit;
    loop {
        if let Some(lock) = Lock::take(place)? {
            return Ok(Some(lock));
        }
        if Lock::holder(place).as_ref() != backup {
            return Ok(None);
        }
        if Instant::now() >= deadline + times.retry {
            let what = "a program of the killed backup does not end, and cannot be killed";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        if Instant::now() >= deadline {
            // A backup that dies may take a while; one that lives has not started this guard.
            if backup.is_some_and(|life| !life.has_ended()) {
                let what = "the backup lives: nothing of it is ended or taken back";
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            for id in Lock::users(place) {
                let line = format!("process {id}, which the killed backup had started, is killed");
                log.log(Level::Warn, &line);
                let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    kill_process(pid, Signal::KILL).ok();
                }
            }
            sleep(PAUSE);
        }
        sleep(LOOK);
    }
}
