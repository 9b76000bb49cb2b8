//! The client against servers that lie about data, or fail to read it.
//!
//! Whatever they do ends in an error that names export and address, never in bytes that were not
//! sent, and never harms another connection.

use std::sync::Arc;

use snapkeep_nbd::{Client, Errno, Error, ErrorKind};

use crate::fake::{self, Fake, Plan, disk};
use crate::raw::{self, Request, STYLES, Style, bytes};

/// Reads something and expects to fail; the client has one connection.
#[track_caller]
fn failing_read(server: &Fake, name: &str) -> (Client, Error) {
    let client = server.connect(1, &[]).unwrap();
    let mut buffer = vec![0xee; 1024];
    let Err(error) = client.read_at(4096, &mut buffer) else {
        panic!("{name}: the read succeeds")
    };
    server.names_export_and_address(&error.to_string());
    (client, error)
}

/// A read that breaks the protocol, and costs the connection.
#[track_caller]
fn breaks(
    name: &str,
    style: Style,
    words: &str,
    lie: impl Fn(Style, &Request) -> Vec<u8> + Send + Sync + 'static,
) {
    let server = Fake::start(Plan::answering(style, raw::READ, lie));
    let (client, error) = failing_read(&server, name);
    assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
    assert!(error.to_string().contains(words), "{name}: {error}");
    // What came is not to be trusted, so nothing more is read from there.
    let error = client.read_at(0, &mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{name}: {error}");
    server.names_export_and_address(&error.to_string());
}

fn data(style: Style, to: &Request, done: bool, offset: u64, length: u64) -> Vec<u8> {
    let payload = bytes![offset, disk(offset, length)];
    raw::chunk(style, to, done, raw::DATA, &payload)
}

fn hole(style: Style, to: &Request, offset: u64, length: u32) -> Vec<u8> {
    raw::chunk(style, to, true, raw::HOLE, &bytes![offset, length])
}

#[test]
fn a_lie_about_a_chunk_costs_the_connection() {
    for style in [Style::Structured, Style::Extended] {
        breaks("data of another place", style, "outside", |s, to| {
            data(s, to, true, to.offset + 1, to.length)
        });
        breaks("data before the request", style, "outside", |s, to| {
            data(s, to, true, to.offset - 1, 10)
        });
        breaks("data twice", style, "twice", |s, to| {
            bytes![
                data(s, to, false, to.offset, 600),
                data(s, to, true, to.offset + 500, to.length - 500)
            ]
        });
        breaks("a gap", style, "ended without 4196..4296", |s, to| {
            bytes![
                data(s, to, false, to.offset, 100),
                data(s, to, true, to.offset + 200, to.length - 200)
            ]
        });
        breaks(
            "success without data",
            style,
            "ended without 4096..5120",
            |s, to| raw::chunk(s, to, true, raw::NONE, &[]),
        );
        breaks("too little data", style, "ended without", |s, to| {
            data(s, to, true, to.offset, to.length - 1)
        });
        breaks("no data in a chunk of data", style, "8 bytes", |s, to| {
            raw::chunk(s, to, true, raw::DATA, &bytes![to.offset])
        });
        breaks("a hole that is too long", style, "outside", |s, to| {
            hole(s, to, to.offset, 1025)
        });
        breaks("a hole at the end of all", style, "outside", |s, to| {
            hole(s, to, u64::MAX, 1024)
        });
        breaks("a hole of nothing", style, "no bytes", |s, to| {
            hole(s, to, to.offset, 0)
        });
        breaks(
            "a hole with too few fields",
            style,
            "allowed are",
            |s, to| raw::chunk(s, to, true, raw::HOLE, &bytes![to.offset]),
        );
        breaks("an unknown chunk", style, "type 77", |s, to| {
            raw::chunk(s, to, true, 77, &[1; 20])
        });
        breaks("a status for a read", style, "does not answer", |s, to| {
            raw::status(s, to, true, 0, &[(1024, 0)])
        });
        breaks("an end that is none", style, "does not end", |s, to| {
            raw::chunk(s, to, false, raw::NONE, &[])
        });
        breaks(
            "an end with a payload",
            style,
            "allowed are 0 to 0",
            |s, to| raw::chunk(s, to, true, raw::NONE, &[0]),
        );
        breaks("a chunk of two gigabytes", style, "allowed are", |s, to| {
            raw::chunk_of(s, to, true, raw::DATA, 1 << 31, &[])
        });
        breaks(
            "an error of two gigabytes",
            style,
            "allowed are",
            |s, to| raw::chunk_of(s, to, true, raw::ERROR, 1 << 31, &[]),
        );
        breaks("an error that is none", style, "malformed", |s, to| {
            raw::error(s, to, true, 0, "fine")
        });
        breaks(
            "an error whose message is too long",
            style,
            "malformed",
            |s, to| raw::chunk(s, to, true, raw::ERROR, &bytes![raw::EIO, 10_u16, "short"]),
        );
        breaks(
            "an error outside the request",
            style,
            "outside its request",
            |s, to| {
                raw::chunk(
                    s,
                    to,
                    true,
                    raw::ERROR_OFFSET,
                    &bytes![raw::EIO, 0_u16, to.offset + to.length],
                )
            },
        );
        breaks("errors without end", style, "too many errors", |s, to| {
            raw::error(s, to, false, raw::EIO, "").repeat(2000)
        });
        breaks("a simple reply", style, "", |_, to| {
            bytes![
                raw::simple_reply(0, to.cookie),
                disk(to.offset, to.length),
                vec![0; 32]
            ]
        });
        breaks("another cookie", style, "no request in flight", |s, to| {
            let other = Request {
                cookie: to.cookie + 1,
                ..to.clone()
            };
            data(s, &other, true, to.offset, to.length)
        });
        breaks("garbage", style, "begins with 0xdededede", |_, _| {
            vec![0xde; 100]
        });
    }
    breaks(
        "another offset",
        Style::Extended,
        "says it is for 4097",
        |s, to| {
            let other = Request {
                offset: to.offset + 1,
                ..to.clone()
            };
            data(s, &other, true, to.offset, to.length)
        },
    );
    breaks(
        "a chunk of 2^63 bytes",
        Style::Extended,
        "allowed are",
        |s, to| raw::chunk_of(s, to, true, raw::DATA, 1 << 63, &[]),
    );
    breaks(
        "another cookie",
        Style::Simple,
        "no request in flight",
        |_, to| raw::simple_reply(0, to.cookie + 1),
    );
    breaks(
        "a chunk where none was agreed",
        Style::Simple,
        "none may here",
        |_, to| data(Style::Structured, to, true, to.offset, to.length),
    );
}

#[test]
fn a_reply_that_comes_twice_answers_nothing_else() {
    for style in STYLES {
        let server = Fake::start(Plan::answering(style, raw::FLUSH, |style, to| {
            fake::honest(style, to).repeat(2)
        }));
        let client = server.connect(1, &[]).unwrap();
        client.flush().unwrap();
        let error = client.read_at(0, &mut [0; 512]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(
            error.to_string().contains("no request in flight"),
            "{error}"
        );
        server.names_export_and_address(&error.to_string());
    }
}

#[test]
fn a_read_error_in_the_middle_fails_the_read_and_keeps_the_connection() {
    for style in [Style::Structured, Style::Extended] {
        let server = Fake::start(Plan::answering(style, raw::READ, |style, to| {
            if to.offset != 4096 {
                return fake::honest(style, to);
            }
            let bad = bytes![raw::EIO, 3_u16, "bad", to.offset + 512];
            bytes![
                data(style, to, false, to.offset, 512),
                raw::chunk(style, to, false, raw::ERROR_OFFSET, &bad),
                data(style, to, true, to.offset + 600, 10)
            ]
        }));
        let (client, error) = failing_read(&server, "a bad sector");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Refused, Some(Errno::Io))
        );
        assert!(
            error.to_string().contains("at 4608") && error.to_string().contains("bad"),
            "{error}"
        );
        let mut buffer = [0; 100];
        client.read_at(0, &mut buffer).unwrap();
        assert_eq!(buffer[..], disk(0, 100));
    }
}

#[test]
fn an_error_in_any_style_keeps_the_connection() {
    for style in STYLES {
        let server = Fake::start(Plan::answering(style, raw::READ, |style, to| {
            match (to.offset, style) {
                (4096, Style::Simple) => raw::simple_reply(raw::EINVAL, to.cookie),
                (4096, _) => raw::error(style, to, true, raw::EINVAL, "outside the dirty clusters"),
                _ => fake::honest(style, to),
            }
        }));
        let (client, error) = failing_read(&server, "an error");
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Refused, Some(Errno::Invalid))
        );
        client.read_at(0, &mut [0; 100]).unwrap();
    }
}

#[test]
fn an_error_of_an_unknown_kind_or_number_is_an_error_all_the_same() {
    for (kind, errno) in [(raw::ERROR + 100, raw::EIO), (raw::ERROR, 123_456)] {
        let server = Fake::start(Plan::answering(
            Style::Structured,
            raw::READ,
            move |style, to| {
                raw::chunk(
                    style,
                    to,
                    true,
                    kind,
                    &bytes![errno, 1_u16, "x", vec![0; 9]],
                )
            },
        ));
        let (_, error) = failing_read(&server, "an unknown error");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
}

#[test]
fn a_lie_on_one_connection_harms_no_other() {
    let server = Fake::start(Plan {
        answer: Arc::new(|style, asked, number| {
            Some(if number == 1 {
                vec![0xff; 64]
            } else {
                fake::honest(style, asked)
            })
        }),
        ..Plan::honest(Style::Extended)
    });
    let client = server.connect(2, &[]).unwrap();
    let mut failures = 0;
    for _ in 0..10 {
        let mut buffer = [0; 512];
        match client.read_at(512, &mut buffer) {
            Ok(()) => assert_eq!(buffer[..], disk(512, 512)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Protocol);
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 1);
}
