//! A monitor that breaks, stalls or lies, in front of a real QEMU or instead of one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use qemu::between::{self, Moment};
use qemu::{DEVICE, Guest, Log, back_up, provider, request, restored, tool};
use snapkeep_api::{BitmapMode, ErrorKind, SystemClock};
use snapkeep_host::Qemu;
use snapkeep_host::limits::Timeouts;
use tempfile::TempDir;

/// The guest runs, and QEMU has nothing of a backup but bitmaps.
fn nothing_is_left(guest: &mut Guest, place: &str) {
    let status = guest.execute("query-status", &serde_json::json!({}));
    assert_eq!(status["status"], "running", "{place}");
    let ours = guest.ours();
    let nodes = ours.iter().filter(|name| !name.contains('@'));
    assert_eq!(nodes.count(), 0, "{ours:?}\n{place}");
    assert_eq!(guest.folders(), 0, "{place}");
}

#[test]
fn a_monitor_that_breaks_anywhere_leaves_nothing_and_loses_no_write() {
    let test = "a_monitor_that_breaks_anywhere_leaves_nothing_and_loses_no_write";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let log = Log::default();
    let provider = provider(&log);
    let folder = guest.folder.path().to_owned();
    let clock = Arc::new(SystemClock::new());
    back_up(
        &mut guest.connect(),
        &provider,
        request(&folder),
        &log,
        None,
    )
    .unwrap();
    let mut at = 1;
    let (mut failed, mut done) = (0, 0);
    loop {
        guest.write(
            qemu::MIB * (at as u64 % 20),
            100,
            u8::try_from(at % 200).unwrap(),
        );
        let moment = [Moment::Before, Moment::After][at % 2];
        let commands = Arc::new(AtomicUsize::new(0));
        let hung_up = Arc::new(AtomicBool::new(false));
        let (count, once) = (Arc::clone(&commands), Arc::clone(&hung_up));
        let pass = move |number, _: &str, when| {
            count.store(number, Ordering::SeqCst);
            let now = number == at && when == moment;
            once.fetch_or(now, Ordering::SeqCst);
            !now
        };
        let socket = between::start(&folder, &format!("between-{at}"), guest.socket(), pass);
        let ran = Qemu::connect(&socket, Arc::clone(&clock) as _)
            .and_then(|mut qemu| back_up(&mut qemu, &provider, request(&folder), &log, None));
        let place = format!(
            "hung up at command {at}, {moment:?} it was done\n{}",
            log.text()
        );
        match &ran {
            Ok(finished) => {
                assert!(
                    restored(&provider, &finished.archive, DEVICE) == guest.model,
                    "{place}"
                );
                done += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unavailable, "{}\n{place}", e.chain());
                failed += 1;
            }
        }
        let all = commands.load(Ordering::SeqCst);
        if !hung_up.load(Ordering::SeqCst) {
            assert!(all > 20 && ran.is_ok(), "{place}");
            break;
        }
        nothing_is_left(&mut guest, &place);
        at += 1;
    }
    assert!(failed > 15 && done > 5, "{failed} failed, {done} done");
    let finished = back_up(
        &mut guest.connect(),
        &provider,
        request(&folder),
        &log,
        None,
    )
    .unwrap();
    assert_eq!(
        finished.bitmaps[&DEVICE.parse().unwrap()],
        BitmapMode::Reuse
    );
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
}

/// What a client is told that connects to a monitor which says this and nothing more.
fn told(says: &'static [u8]) -> snapkeep_api::Error {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("monitor");
    let listener = UnixListener::bind(&socket).unwrap();
    let peer = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        drop(client.write_all(says));
        // Until the client leaves.
        drop(std::io::copy(&mut client, &mut std::io::sink()));
    });
    let short = Duration::from_millis(200);
    let timeouts = Timeouts {
        greeting: short,
        command: short,
        drain: short,
        export: short,
        reconnect: short,
    };
    let error = Qemu::connect_within(&socket, Arc::new(SystemClock::new()), timeouts).unwrap_err();
    peer.join().unwrap();
    error
}

#[test]
fn a_peer_that_is_no_monitor_is_told_from_one_that_is_busy() {
    for (says, kind, words) in [
        (&b""[..], ErrorKind::Unavailable, "one client at a time"),
        (b"SSH-2.0-x\r\n", ErrorKind::Protocol, "does not speak QMP"),
        (b"[]\n", ErrorKind::Protocol, "does not speak QMP"),
        (b"{}\n", ErrorKind::Protocol, "no greeting"),
        (
            b"{\"QMP\": {\"version\": {\"qemu\": {}}}}\n",
            ErrorKind::Unavailable,
            "did not answer",
        ),
        (
            b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 8, \"minor\": 2, \"micro\": 1}}}}\n\
              {\"return\": {}, \"id\": 1}\n",
            ErrorKind::Unsupported,
            "8.2.1",
        ),
    ] {
        let error = told(says);
        assert_eq!(error.kind(), kind, "{}", error.chain());
        assert!(error.chain().contains(words), "{}", error.chain());
    }
}
