//! The server against clients that send garbage, ask for too much, leave or say nothing.
//!
//! Each harms itself alone: after every one of them another client still reads.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use snapkeep_nbd::{Address, BASE_ALLOCATION, Export, Server, ServerOptions};

use crate::memory::{Served, serve, serve_with};
use crate::raw::{self, Request, STYLES, Style, bytes};

/// Longer than any answer takes; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that has read the greeting.
fn greeted(served: &Served) -> UnixStream {
    let mut stream = silent(served);
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[..], raw::greeting(3)[..]);
    stream
}

fn silent(served: &Served) -> UnixStream {
    let Address::Unix(path) = served.server.address() else {
        panic!("not a Unix socket")
    };
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client that haggles.
fn haggling(served: &Served) -> UnixStream {
    let mut stream = greeted(served);
    raw::send(&mut stream, &bytes![3_u32]);
    stream
}

/// Sends an option; returns the kind of the last reply, and of all replies the data.
fn ask(stream: &mut UnixStream, option: u32, data: &[u8]) -> (u32, Vec<Vec<u8>>) {
    raw::send(stream, &raw::option(option, data));
    let mut all = Vec::new();
    loop {
        let (answered, kind, data) = raw::read_option_reply(stream).unwrap();
        assert_eq!(answered, option);
        if kind == raw::REP_ACK || kind & 1 << 31 != 0 {
            return (kind, all);
        }
        all.push(data);
    }
}

/// A client in transmission, with block status where the style has it.
fn transmitting(served: &Served, style: Style, export: &str) -> UnixStream {
    let mut stream = haggling(served);
    let option = match style {
        Style::Simple => None,
        Style::Structured => Some(raw::STRUCTURED_REPLY),
        Style::Extended => Some(raw::EXTENDED_HEADERS),
    };
    if let Some(option) = option {
        assert_eq!(ask(&mut stream, option, &[]).0, raw::REP_ACK);
        let query = raw::contexts(export, &[BASE_ALLOCATION]);
        assert_eq!(ask(&mut stream, raw::SET_META_CONTEXT, &query).1.len(), 1);
    }
    assert_eq!(ask(&mut stream, raw::GO, &raw::go(export)).0, raw::REP_ACK);
    stream
}

fn request(command: u16, offset: u64, length: u64) -> Request {
    let payload = if command == raw::WRITE {
        vec![9; usize::try_from(length).unwrap()]
    } else {
        Vec::new()
    };
    Request {
        command,
        cookie: offset ^ length,
        offset,
        length,
        payload,
    }
}

/// Sends a request with flags; returns the error of its reply, 0 for none.
fn error_of(stream: &mut UnixStream, style: Style, flags: u16, asked: &Request) -> u32 {
    raw::send(stream, &raw::request(style, flags, asked));
    let read = if asked.command == raw::READ {
        usize::try_from(asked.length).unwrap()
    } else {
        0
    };
    let (cookie, error, _) = raw::read_reply(stream, style, read).unwrap();
    assert_eq!(cookie, asked.cookie);
    error
}

/// That the server has closed the connection. What it said before does not matter.
#[track_caller]
fn is_closed(stream: &mut UnixStream) {
    match io::copy(stream, &mut io::sink()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[track_caller]
fn others_are_unharmed(served: &Served) {
    let mut buffer = [0; 4096];
    served.connect("disk").read_at(8192, &mut buffer).unwrap();
    assert_eq!(buffer[..], served.disk.bytes()[8192..8192 + 4096]);
}

#[test]
fn garbage_in_the_handshake_costs_the_connection() {
    let served = serve();
    let header = |option: u32, length: u32| bytes![raw::OPTION_MAGIC, option, length];
    let cases = [
        ("unknown flags", bytes![0xffff_u32]),
        ("no magic", bytes![3_u32, vec![0x55; 200]]),
        (
            "an option of 4 GiB",
            bytes![3_u32, header(raw::GO, u32::MAX)],
        ),
        (
            "an unknown export by its name alone",
            bytes![3_u32, raw::option(raw::EXPORT_NAME, b"nobody")],
        ),
        (
            "a name alone after extended headers",
            bytes![
                3_u32,
                raw::option(raw::EXTENDED_HEADERS, &[]),
                raw::option(raw::EXPORT_NAME, b"disk")
            ],
        ),
        (
            "options without end",
            bytes![3_u32, raw::option(99, &[]).repeat(1100)],
        ),
    ];
    for (name, bytes) in &cases {
        let mut stream = greeted(&served);
        raw::send(&mut stream, bytes);
        is_closed(&mut stream);
        others_are_unharmed(&served);
        let line = served.log.lock().unwrap().pop().unwrap();
        assert!(
            line.contains(&served.server.address().to_string()),
            "{name}: {line}"
        );
    }
}

#[test]
fn a_request_of_the_handshake_that_is_refused_leaves_the_next_one_free() {
    let served = serve();
    let mut stream = haggling(&served);
    let long = "n".repeat(5000);
    let cases = [
        (raw::GO, raw::go("nobody"), raw::ERR_UNKNOWN),
        (raw::GO, raw::go(&long), raw::ERR_INVALID),
        (raw::GO, raw::go("a\0b"), raw::ERR_INVALID),
        (raw::GO, bytes![raw::go("disk"), 1_u16], raw::ERR_INVALID),
        (raw::GO, bytes![u32::MAX, "disk"], raw::ERR_INVALID),
        (raw::GO, Vec::new(), raw::ERR_INVALID),
        (
            raw::GO,
            bytes![raw::counted("disk"), 65535_u16],
            raw::ERR_INVALID,
        ),
        (raw::LIST, vec![1], raw::ERR_INVALID),
        (5, Vec::new(), raw::ERR_POLICY),
        (4711, vec![1; 60_000], raw::ERR_UNSUP),
        (
            raw::SET_META_CONTEXT,
            raw::contexts("disk", &[BASE_ALLOCATION]),
            raw::ERR_INVALID,
        ),
        (raw::STRUCTURED_REPLY, vec![0], raw::ERR_INVALID),
        (raw::STRUCTURED_REPLY, Vec::new(), raw::REP_ACK),
        (
            raw::SET_META_CONTEXT,
            raw::contexts("nobody", &[BASE_ALLOCATION]),
            raw::ERR_UNKNOWN,
        ),
        (
            raw::SET_META_CONTEXT,
            raw::contexts("disk", &["nocolon"]),
            raw::ERR_INVALID,
        ),
        (
            raw::SET_META_CONTEXT,
            raw::contexts("disk", &[&long]),
            raw::ERR_INVALID,
        ),
        (
            raw::SET_META_CONTEXT,
            bytes![raw::counted("disk"), u32::MAX],
            raw::ERR_INVALID,
        ),
        (
            raw::SET_META_CONTEXT,
            raw::contexts("disk", &["x-unknown:y", "base:"]),
            raw::REP_ACK,
        ),
        (raw::GO, raw::go("disk"), raw::REP_ACK),
    ];
    for (option, data, expected) in &cases {
        assert_eq!(
            ask(&mut stream, *option, data).0,
            *expected,
            "option {option} with {data:?}"
        );
    }
    // A wildcard selects nothing, so there is no block status.
    let asked = request(raw::BLOCK_STATUS, 0, 512);
    assert_eq!(
        error_of(&mut stream, Style::Structured, 0, &asked),
        raw::EINVAL
    );
    assert_eq!(
        error_of(
            &mut stream,
            Style::Structured,
            0,
            &request(raw::READ, 0, 512)
        ),
        0
    );
}

#[test]
fn a_request_that_is_refused_leaves_the_connection_in_step() {
    const SIZE: u64 = 8 << 20;
    let cases = [
        ("past the end", 0, request(raw::READ, SIZE, 1), raw::EINVAL),
        (
            "across the end",
            0,
            request(raw::READ, SIZE - 1, 2),
            raw::EINVAL,
        ),
        (
            "far past the end",
            0,
            request(raw::READ, u64::MAX, 512),
            raw::EINVAL,
        ),
        (
            "trim past the end",
            0,
            request(raw::TRIM, SIZE, 512),
            raw::EINVAL,
        ),
        (
            "write past the end",
            0,
            request(raw::WRITE, SIZE - 511, 512),
            raw::ENOSPC,
        ),
        (
            "write far past the end",
            0,
            request(raw::WRITE, u64::MAX, 512),
            raw::ENOSPC,
        ),
        (
            "zeroes past the end",
            0,
            request(raw::WRITE_ZEROES, 1, SIZE),
            raw::ENOSPC,
        ),
        ("an unknown command", 0, request(99, 0, 0), raw::EINVAL),
        (
            "an unknown flag",
            1 << 14,
            request(raw::READ, 0, 512),
            raw::EINVAL,
        ),
        (
            "fast zeroes",
            1 << 4,
            request(raw::WRITE_ZEROES, 0, 512),
            raw::EINVAL,
        ),
        (
            "a flag of another command",
            1 << 3,
            request(raw::WRITE, 0, 512),
            raw::EINVAL,
        ),
        (
            "a status of nothing",
            0,
            request(raw::BLOCK_STATUS, 0, 0),
            raw::EINVAL,
        ),
        (
            "a status past the end",
            0,
            request(raw::BLOCK_STATUS, SIZE, 512),
            raw::EINVAL,
        ),
        ("nothing", 0, request(raw::READ, 5, 0), 0),
        ("durable", 1, request(raw::WRITE, 0, 512), 0),
        ("a flush", 0, request(raw::FLUSH, 0, 0), 0),
    ];
    let served = serve();
    let before = served.disk.bytes();
    for style in STYLES {
        let mut stream = transmitting(&served, style, "disk");
        for (name, flags, asked, expected) in &cases {
            assert_eq!(
                error_of(&mut stream, style, *flags, asked),
                *expected,
                "{name}"
            );
            let sane = request(raw::READ, 4096, 4096);
            raw::send(&mut stream, &raw::request(style, 0, &sane));
            let (_, error, data) = raw::read_reply(&mut stream, style, 4096).unwrap();
            assert_eq!((error, &data[..]), (0, &before[4096..8192]), "{name}");
        }
        let asked = request(raw::READ, 0, (32 << 20) + 1);
        let mut stream = transmitting(&served, style, "broken");
        assert_eq!(error_of(&mut stream, style, 0, &asked), raw::EOVERFLOW);
        assert_eq!(
            error_of(&mut stream, style, 0, &request(raw::FLUSH, 0, 0)),
            0
        );
    }
    assert!(served.disk.bytes()[512..] == before[512..]);
}

#[test]
fn a_payload_where_none_belongs_is_read_and_refused() {
    let served = serve();
    let mut stream = transmitting(&served, Style::Extended, "disk");
    for command in [raw::READ, raw::FLUSH, raw::BLOCK_STATUS, 99] {
        let asked = Request {
            payload: vec![0; 100],
            ..request(command, 0, 100)
        };
        assert_eq!(
            error_of(&mut stream, Style::Extended, 1 << 5, &asked),
            raw::EINVAL
        );
    }
    // A write without its flag has no payload.
    let mut bytes = raw::request(Style::Extended, 0, &request(raw::WRITE, 0, 16));
    bytes.truncate(32);
    bytes[5] = 0;
    raw::send(&mut stream, &bytes);
    assert_eq!(
        raw::read_reply(&mut stream, Style::Extended, 0).unwrap().1,
        raw::EINVAL
    );
    assert_eq!(
        error_of(&mut stream, Style::Extended, 0, &request(raw::READ, 0, 512)),
        0
    );
}

#[test]
fn an_export_that_is_read_only_is_never_changed() {
    let served = serve();
    let before = served.locked.bytes();
    for style in STYLES {
        let mut stream = transmitting(&served, style, "locked");
        for command in [raw::WRITE, raw::TRIM, raw::WRITE_ZEROES] {
            let asked = request(command, 0, 4096);
            assert_eq!(error_of(&mut stream, style, 0, &asked), raw::EPERM);
        }
        assert_eq!(
            error_of(&mut stream, style, 0, &request(raw::READ, 0, 512)),
            0
        );
    }
    assert!(served.locked.bytes() == before);
}

#[test]
fn garbage_in_transmission_costs_the_connection() {
    let served = serve();
    for style in STYLES {
        let compact = style != Style::Extended;
        let write = |length: u32| {
            if compact {
                bytes![0x2560_9513_u32, 0_u16, raw::WRITE, 7_u64, 0_u64, length]
            } else {
                bytes![
                    0x21e4_1c71_u32,
                    1_u16 << 5,
                    raw::WRITE,
                    7_u64,
                    0_u64,
                    u64::from(length)
                ]
            }
        };
        let other = if compact {
            Style::Extended
        } else {
            Style::Structured
        };
        let cases = [
            ("no magic", vec![0xaa; 64]),
            (
                "the other style",
                raw::request(other, 0, &request(raw::READ, 0, 512)).repeat(2),
            ),
            ("a payload beyond the largest", write((32 << 20) + 1)),
            ("a payload of 4 GiB", write(u32::MAX)),
        ];
        for (name, bytes) in cases {
            let mut stream = transmitting(&served, style, "disk");
            raw::send(&mut stream, &bytes);
            is_closed(&mut stream);
            others_are_unharmed(&served);
            let line = served.log.lock().unwrap().pop().unwrap();
            let named =
                line.contains("\"disk\"") && line.contains(&served.server.address().to_string());
            assert!(named, "{name}: {line}");
        }
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
    let served = serve();
    let mut stream = transmitting(&served, Style::Simple, "disk");
    for _ in 0..100 {
        raw::send(
            &mut stream,
            &raw::request(Style::Simple, 0, &request(raw::READ, 0, 8 << 20)),
        );
    }
    others_are_unharmed(&served);
    // It is let go of as well, although its replies cannot be sent.
    served.server.stop();
    is_closed(&mut stream);
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

#[test]
fn an_old_client_gets_an_export_by_its_name_alone() {
    let served = serve();
    for (flags, padding) in [(1_u32, 124), (3, 0)] {
        let mut stream = greeted(&served);
        raw::send(
            &mut stream,
            &bytes![flags, raw::option(raw::EXPORT_NAME, b"disk")],
        );
        let mut head = vec![0; 10 + padding];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(raw::number(&head[..8]), 8 << 20);
        assert_eq!(
            error_of(&mut stream, Style::Simple, 0, &request(raw::READ, 0, 512)),
            0
        );
    }
}
