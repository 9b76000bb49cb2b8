//! The server against clients that leave, say nothing or do not listen.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snapkeep_nbd::{Address, Export, Server, ServerOptions};

use crate::memory::{Served, serve, serve_with};
use crate::raw::{self, Request, STYLES, Style, bytes};
use crate::raw_client::{
    PATIENCE, greeted, haggling, is_closed, others_are_unharmed, request, silent, transmitting,
};

#[test]
fn a_client_that_waits_to_send_is_told_that_the_connection_is_over() {
    let served = serve();
    let mut stream = transmitting(&served, Style::Extended, "disk");
    stream.set_nonblocking(true).unwrap();
    let garbage = vec![0xaa; 1 << 20];
    while stream.write(&garbage).is_ok() {}
    // Neither half of "over, and you may try to send" is enough: QEMU waits for the second.
    let (told, limit) = (PollFlags::OUT | PollFlags::HUP, Instant::now() + PATIENCE);
    let mut ready = PollFlags::empty();
    while !ready.contains(told) {
        assert!(Instant::now() < limit, "only {ready:?} after {PATIENCE:?}");
        let mut sockets = [PollFd::new(&stream, PollFlags::OUT)];
        poll(&mut sockets, Some(&Timespec::try_from(PATIENCE).unwrap())).unwrap();
        ready = sockets[0].revents();
    }
}

#[test]
fn a_client_that_leaves_at_any_byte_harms_nobody() {
    let served = serve();
    let before = served.disk.bytes();
    let write = raw::request(Style::Structured, 0, &request(raw::WRITE, 0, 200));
    let session = bytes![
        3_u32,
        raw::option(raw::STRUCTURED_REPLY, &[]),
        raw::option(raw::GO, &raw::go("disk")),
        raw::request(Style::Structured, 0, &request(raw::READ, 0, 100_000)),
        write
    ];
    for cut in 0..session.len() {
        let mut stream = silent(&served);
        raw::send(&mut stream, &session[..cut]);
        // Half of them leave what the server says unread.
        if cut % 2 == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
            is_closed(&mut stream);
        }
    }
    others_are_unharmed(&served);
    served.server.stop();
    assert!(served.disk.bytes() == before, "half a write is no write");
}

#[test]
fn clients_that_say_nothing_leave_no_room_but_not_for_ever() {
    let options = ServerOptions {
        max_connections: 2,
        ..ServerOptions::default()
    };
    let served = serve_with(options, false);
    let first = greeted(&served);
    let _second = haggling(&served);
    is_closed(&mut silent(&served));
    let line = served.log.lock().unwrap().pop().unwrap();
    assert!(line.contains("all 2 connections are taken"), "{line}");
    drop(first);
    // As soon as the server has noticed, there is room.
    while ask_for_greeting(&served).is_err() {}
}

/// Whether a new client is let in.
fn ask_for_greeting(served: &Served) -> io::Result<()> {
    silent(served).read_exact(&mut [0; 18])
}

#[test]
fn a_client_that_says_nothing_runs_out_of_time() {
    let options = ServerOptions {
        handshake_timeout: Duration::from_millis(20),
        ..ServerOptions::default()
    };
    let served = serve_with(options, false);
    is_closed(&mut silent(&served));
    let line = served.log.lock().unwrap().pop().unwrap();
    assert!(line.contains("silent or too slow for 20ms"), "{line}");
}

#[test]
fn a_client_that_does_not_read_the_list_runs_out_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let export = serve().disk;
    let exports = (0..200).map(|number| {
        let name = format!("{number:04000}");
        (name, Arc::clone(&export) as Arc<dyn Export>)
    });
    let (logged, log) = mpsc::channel();
    let options = ServerOptions {
        handshake_timeout: Duration::from_millis(200),
        log: Some(Arc::new(move |line: &str| {
            logged.send(line.to_owned()).ok();
        })),
        ..ServerOptions::default()
    };
    let address = Address::Unix(path.clone());
    let server = Server::bind(address, exports.collect(), options).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Each answer has 800 kB, all of them more than the sockets hold.
    raw::send(
        &mut stream,
        &bytes![3_u32, raw::option(raw::LIST, &[]).repeat(50)],
    );
    let line = log.recv().unwrap();
    assert!(line.contains("silent or too slow for 200ms"), "{line}");
    is_closed(&mut stream);
    server.stop();
}

#[test]
fn a_client_that_reads_no_replies_stalls_itself_alone() {
    let options = ServerOptions {
        stop_grace: Duration::from_millis(20),
        ..ServerOptions::default()
    };
    let served = serve_with(options, false);
    let mut stream = transmitting(&served, Style::Simple, "disk");
    for _ in 0..100 {
        raw::send(
            &mut stream,
            &raw::request(Style::Simple, 0, &request(raw::READ, 0, 8 << 20)),
        );
    }
    others_are_unharmed(&served);
}

#[test]
fn what_was_asked_before_good_bye_is_answered() {
    let served = serve();
    for style in STYLES {
        let mut stream = transmitting(&served, style, "disk");
        let mut bytes = Vec::new();
        for cookie in 0..32 {
            let asked = Request {
                cookie,
                ..request(raw::READ, 4096, 65536)
            };
            bytes.extend(raw::request(style, 0, &asked));
        }
        bytes.extend(raw::request(style, 0, &request(raw::DISC, 0, 0)));
        raw::send(&mut stream, &bytes);
        let mut cookies: Vec<_> = (0..32)
            .map(|_| raw::read_reply(&mut stream, style, 65536).unwrap().0)
            .collect();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq(0..32));
        is_closed(&mut stream);
    }
}
