//! The server against clients that send garbage or ask for too much.
//!
//! Each harms itself alone: after every one of them another client still reads.

use std::io::Read;

use snapkeep_nbd::BASE_ALLOCATION;

use crate::memory::serve;
use crate::raw::{self, Request, STYLES, Style, bytes};
use crate::raw_client::{
    ask, error_of, greeted, haggling, is_closed, others_are_unharmed, request, transmitting,
};

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
    assert_eq!(
        error_of(&mut stream, Style::Extended, 0, &request(raw::READ, 0, 512)),
        0
    );
}

#[test]
fn a_write_without_its_flag_has_its_payload_all_the_same() {
    // QEMU's client with extended headers.
    let served = serve();
    let mut stream = transmitting(&served, Style::Extended, "disk");
    let mut bytes = raw::request(Style::Extended, 0, &request(raw::WRITE, 0, 4096));
    bytes[4..6].fill(0);
    raw::send(&mut stream, &bytes);
    assert_eq!(
        raw::read_reply(&mut stream, Style::Extended, 0).unwrap().1,
        0
    );
    assert_eq!(served.disk.bytes()[..4096], [9; 4096]);
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
