//! The client's manners from the first byte to the last, and servers that leave, refuse or fall
//! silent in between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_nbd::{BASE_ALLOCATION, Errno, Error, ErrorKind, limits};

use crate::fake::{self, Fake, Plan, SIZE, disk};
use crate::raw::{self, Request, STYLES, Style};

#[test]
fn an_honest_server_is_read_in_every_style() {
    for style in STYLES {
        let server = Fake::start(Plan::honest(style));
        let client = server.connect(3, &[BASE_ALLOCATION]).unwrap();
        assert_eq!((client.size(), client.connections()), (SIZE, 3));
        let mut buffer = vec![0; 1000];
        client.read_at(123, &mut buffer).unwrap();
        assert_eq!(buffer, disk(123, 1000));
        client.write_at(5, &[1; 10]).unwrap();
        client.trim(0, SIZE).unwrap();
        client.write_zeroes(0, SIZE).unwrap();
        client.flush().unwrap();
        assert_eq!(client.has_context(BASE_ALLOCATION), style != Style::Simple);
    }
}

/// Everything that a session asks.
fn session(server: &Fake, timeout: Duration) -> Result<(), Error> {
    let client = server.connect_within(timeout, 1, &[BASE_ALLOCATION])?;
    if client.has_context(BASE_ALLOCATION) {
        client.block_status(BASE_ALLOCATION, 0, SIZE)?;
    }
    let mut buffer = [0; 64];
    client.read_at(1, &mut buffer)?;
    assert_eq!(buffer[..], disk(1, 64));
    client.flush()
}

#[test]
fn a_connection_lost_at_any_byte_is_an_error() {
    for style in STYLES {
        let whole = Fake::start(Plan::honest(style));
        session(&whole, Duration::from_secs(60)).unwrap();
        for cut in 0..whole.sent() {
            let server = Fake::start(Plan {
                cut,
                ..Plan::honest(style)
            });
            let error = session(&server, Duration::from_secs(60)).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Unavailable,
                "after {cut} bytes: {error}"
            );
            server.names_export_and_address(&error.to_string());
        }
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let whole = Fake::start(Plan::honest(Style::Structured));
    session(&whole, Duration::from_secs(60)).unwrap();
    // Before the greeting, in each message of the handshake, in headers and in data.
    for cut in (0..whole.sent()).step_by(23) {
        let server = Fake::start(Plan {
            cut,
            silent: true,
            ..Plan::honest(Style::Structured)
        });
        let error = session(&server, Duration::from_millis(20)).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Timeout,
            "after {cut} bytes: {error}"
        );
        // On a busy machine the silence is noticed only when the limit for a whole reply is over too.
        let said = error.to_string();
        let limits = ["silent or too slow for 20ms", "complete within 80ms"];
        assert!(limits.iter().any(|limit| said.contains(limit)), "{said}");
        server.names_export_and_address(&said);
    }
}

#[test]
fn a_server_that_dribbles_is_given_up_although_it_is_never_silent() {
    // The longest answer there is lasts for many times what is borne, byte by byte.
    let answer = |style, asked: &Request| {
        let payload = vec![0; 16 * limits::MAX_STATUS_DESCRIPTORS];
        raw::chunk(style, asked, true, raw::STATUS_EXT, &payload)
    };
    let server = Fake::start(Plan {
        dribble: true,
        ..Plan::answering(Style::Extended, raw::BLOCK_STATUS, answer)
    });
    let timeout = Duration::from_millis(500);
    let client = server
        .connect_within(timeout, 1, &[BASE_ALLOCATION])
        .unwrap();
    let error = client.block_status(BASE_ALLOCATION, 0, SIZE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[test]
fn a_server_that_shuts_down_is_left_politely() {
    let server = Fake::start(Plan::answering(Style::Extended, raw::READ, |style, to| {
        raw::error(style, to, true, raw::ESHUTDOWN, "")
    }));
    let client = server.connect(1, &[]).unwrap();
    let error = client.read_at(0, &mut [0; 512]).unwrap_err();
    server.names_export_and_address(&error.to_string());
    assert_eq!(error.errno(), Some(Errno::Shutdown));
    server.wait_for_ends(1);
    assert_eq!(server.requests().last().unwrap().command, raw::DISC);
    assert_eq!(client.flush().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_server_that_refuses_is_told_good_bye() {
    let plans = [
        (raw::ERR_UNKNOWN, ErrorKind::NotFound),
        (raw::ERR_TLS_REQD, ErrorKind::Unsupported),
        (raw::ERR_POLICY, ErrorKind::Unsupported),
        (raw::ERR_UNSUP, ErrorKind::Unsupported),
        (raw::ERR_SHUTDOWN, ErrorKind::Unavailable),
        ((1 << 31) + 99, ErrorKind::Unsupported),
    ];
    for (refusal, kind) in plans {
        let reply = raw::option_reply(raw::GO, refusal, b"not today\x07");
        let server = Fake::start(Plan::haggling(Style::Structured, raw::GO, reply));
        let error = server.connect(1, &[]).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("not today\u{fffd}"), "{error}");
        server.names_export_and_address(&error.to_string());
        server.wait_for_ends(1);
        assert_eq!(server.options().last(), Some(&raw::ABORT));
    }
}

#[test]
fn a_server_with_fewer_connections_is_used_with_those_it_has() {
    let server = Fake::start(Plan {
        most: 2,
        ..Plan::honest(Style::Extended)
    });
    let client = server.connect(4, &[]).unwrap();
    assert_eq!(client.connections(), 2);
    client.read_at(0, &mut [0; 512]).unwrap();
}

#[test]
fn sixteen_reads_are_under_way_before_the_first_is_answered_in_any_order() {
    // The server's largest block, so that little memory is enough.
    const PART: u64 = 64 << 10;
    for style in STYLES {
        let waiting: Mutex<Vec<Request>> = Mutex::default();
        let server = Fake::start(Plan {
            blocks: [1, 4096, 64 << 10],
            // Nothing until there are sixteen, then all of them, the last one first.
            answer: Arc::new(move |style, asked, _| {
                let mut waiting = waiting.lock().unwrap();
                waiting.push(asked.clone());
                let full = waiting.len() == 16;
                let now = if full {
                    std::mem::take(&mut *waiting)
                } else {
                    Vec::new()
                };
                Some(
                    now.iter()
                        .rev()
                        .flat_map(|asked| fake::honest(style, asked))
                        .collect(),
                )
            }),
            ..Plan::honest(style)
        });
        let client = server.connect(1, &[]).unwrap();
        let mut buffer = vec![0; usize::try_from(16 * PART).unwrap()];
        client.read_at(0, &mut buffer).unwrap();
        assert!(buffer == disk(0, 16 * PART));
    }
}

#[test]
fn the_servers_block_sizes_are_obeyed() {
    let server = Fake::start(Plan {
        blocks: [512, 4096, 65536 + 100],
        ..Plan::honest(Style::Structured)
    });
    let client = server.connect(1, &[BASE_ALLOCATION]).unwrap();
    let mut buffer = vec![0; 200 * 1024];
    client.read_at(512, &mut buffer).unwrap();
    assert_eq!(buffer, disk(512, 200 * 1024));
    client.write_at(1024, &buffer).unwrap();
    let requests = server.requests();
    assert!(
        requests.iter().all(|asked| asked.length <= 65536
            && asked.length % 512 == 0
            && asked.offset % 512 == 0)
    );
    for (offset, length) in [(1, 512), (512, 1), (0, 511)] {
        let error = client.read_at(offset, &mut vec![0; length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        server.names_export_and_address(&error.to_string());
    }
    assert_eq!(server.requests().len(), requests.len());
}

#[test]
fn what_an_export_cannot_do_is_not_asked_of_it() {
    let server = Fake::start(Plan {
        flags: 1 | fake::READ_ONLY,
        ..Plan::honest(Style::Extended)
    });
    let client = server.connect(4, &[]).unwrap();
    assert_eq!(client.connections(), 1, "the server does not allow several");
    for result in [
        client.write_at(0, &[1]),
        client.trim(0, 1),
        client.write_zeroes(0, 1),
        client.flush(),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        server.names_export_and_address(&error.to_string());
    }
    for (offset, length) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1)] {
        assert_eq!(
            client
                .read_at(offset, &mut vec![0; length])
                .unwrap_err()
                .kind(),
            ErrorKind::Invalid
        );
    }
    assert!(server.requests().is_empty());
}
