//! A QEMU that falls silent in the middle of a backup, and goes on later.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qemu::between::{self, Moment};
use qemu::{DEVICE, Guest, Log, MIB, back_up, provider, request, restored, tool};
use rustix::process::Signal;
use serde_json::json;
use snapkeep_api::{ErrorKind, Level, SystemClock, TaskLog};
use snapkeep_host::limits::Timeouts;
use snapkeep_host::{Finished, Qemu};

/// Wakes QEMU when it is told that QEMU does not answer.
struct Waking<F> {
    log: Log,
    signal: F,
}

impl<F: Fn(Signal) + Send + Sync> TaskLog for Waking<F> {
    fn log(&self, level: Level, message: &str) {
        self.log.log(level, message);
        if message.contains("does not answer") {
            (self.signal)(Signal::CONT);
        }
    }
}

fn timeouts(reconnect: Duration) -> Timeouts {
    Timeouts {
        greeting: Duration::from_secs(3),
        reconnect,
        ..Timeouts::default()
    }
}

/// Whether all threads of a process are stopped, which they are some time after the signal.
fn stands_still(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut stats = threads.map(|thread| {
        let stat = thread.unwrap().path().join("stat");
        std::fs::read_to_string(stat).unwrap()
    });
    stats.all(|stat| stat.rsplit(") ").next().unwrap().starts_with('T'))
}

/// A backup whose QEMU gets a signal at a command, once; the connection breaks there.
fn stopped_at(
    guest: &Guest,
    what: Signal,
    command: &'static str,
    moment: Moment,
    timeouts: Timeouts,
    log: &dyn TaskLog,
) -> snapkeep_api::Result<(Finished, bool)> {
    let (signal, process) = (guest.signaller(), guest.process());
    let once = AtomicBool::new(true);
    let pass = move |_, name: &str, when| {
        let now = name == command && when == moment && once.swap(false, Ordering::SeqCst);
        if now {
            signal(what);
            while what == Signal::STOP && !stands_still(process) {
                std::thread::yield_now();
            }
        }
        !now
    };
    let folder = guest.folder.path();
    let name = format!("stopped-{command}");
    let socket = between::start(folder, &name, guest.socket(), pass);
    let clock = Arc::new(SystemClock::new());
    let mut qemu = Qemu::connect_within(&socket, clock, timeouts)?;
    let own = Log::default();
    let provider = provider(&own);
    let finished = back_up(&mut qemu, &provider, request(folder), log, None)?;
    let right = restored(&provider, &finished.archive, DEVICE) == guest.model;
    Ok((finished, right))
}

fn nothing_is_left(guest: &mut Guest, place: &str) {
    let status = guest.execute("query-status", &json!({}));
    assert_eq!(status["status"], "running", "{place}");
    let ours = guest.ours();
    let nodes = ours.iter().filter(|name| !name.contains('@'));
    assert_eq!(nodes.count(), 0, "{ours:?}\n{place}");
    assert_eq!(guest.folders(), 0, "{place}");
}

#[test]
fn a_qemu_that_goes_on_after_a_while_is_waited_for() {
    let test = "a_qemu_that_goes_on_after_a_while_is_waited_for";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    for (command, moment, paused) in [
        ("stop", Moment::After, true),
        ("transaction", Moment::After, true),
        ("qom-set", Moment::After, true),
        ("block-export-add", Moment::After, false),
        ("block-export-del", Moment::Before, false),
    ] {
        let log = Waking {
            log: Log::default(),
            signal: guest.signaller(),
        };
        let timeouts = timeouts(Duration::from_secs(600));
        let done = stopped_at(&guest, Signal::STOP, command, moment, timeouts, &log);
        let text = log.log.text();
        let place = format!("stopped at {command}: {done:?}\n{text}");
        match &done {
            Ok((finished, right)) => {
                assert!(finished.left.is_none() && *right, "{place}");
                assert_eq!(command, "block-export-del", "{place}");
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{place}"),
        }
        assert!(text.contains("does not answer"), "{place}");
        assert_eq!(
            text.contains("the guest may stand still"),
            paused,
            "{place}"
        );
        nothing_is_left(&mut guest, &place);
    }
}

#[test]
fn what_a_silent_qemu_keeps_is_told_and_taken_back_by_the_next_backup() {
    let test = "what_a_silent_qemu_keeps_is_told_and_taken_back_by_the_next_backup";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let signal = guest.signaller();
    for (command, moment, paused) in [
        ("qom-set", Moment::After, true),
        ("block-export-del", Moment::Before, false),
    ] {
        let log = Log::default();
        let timeouts = timeouts(Duration::from_millis(500));
        let done = stopped_at(&guest, Signal::STOP, command, moment, timeouts, &log);
        signal(Signal::CONT);
        let place = format!("stopped at {command}: {done:?}\n{}", log.text());
        match &done {
            Ok((finished, right)) => {
                assert_eq!(command, "block-export-del", "{place}");
                let left = finished.left.as_ref().expect(&place);
                assert_eq!(left.kind(), ErrorKind::Unavailable, "{place}");
                assert!(right, "{place}");
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{place}"),
        }
        let told = log.text();
        let told = told.lines().find(|line| line.starts_with("Error: "));
        let told = told.expect(&place);
        for words in [
            "disk0",
            "snapkeep-run-",
            "the next backup",
            "has not answered",
        ] {
            assert!(told.contains(words), "{words}\n{place}");
        }
        assert_eq!(told.contains("cont, on a monitor"), paused, "{place}");
        assert_eq!(guest.folders(), 1, "{place}");

        guest.write(7 * MIB, 100, 7);
        let (next, own) = (Log::default(), Log::default());
        let provider = provider(&own);
        let request = request(guest.folder.path());
        let finished = back_up(&mut guest.connect(), &provider, request, &next, None).unwrap();
        assert!(next.text().contains("it is taken back"), "{}", next.text());
        assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
        nothing_is_left(&mut guest, &place);
    }
}

#[test]
fn a_qemu_that_ended_is_not_waited_for() {
    let test = "a_qemu_that_ended_is_not_waited_for";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let log = Log::default();
    let timeouts = timeouts(Duration::from_secs(600));
    let done = stopped_at(
        &guest,
        Signal::KILL,
        "block-export-add",
        Moment::After,
        timeouts,
        &log,
    );
    assert!(done.is_err(), "{done:?}");
    assert!(!log.text().contains("has not answered"), "{}", log.text());
    // Nothing of it is in the way of the next one.
    guest.kill();
    guest.start();
    let provider = provider(&log);
    let request = request(guest.folder.path());
    let finished = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
}
