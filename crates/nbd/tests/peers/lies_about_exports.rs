//! The client against servers that lie about an export: its size, its limits, its block status.

use std::sync::Arc;
use std::time::Duration;

use snapkeep_nbd::{BASE_ALLOCATION, ErrorKind, list_exports};

use crate::fake::{self, Fake, Plan, SIZE};
use crate::raw::{self, Request, STYLES, Style, bytes};

#[test]
fn a_lie_about_the_block_status_is_an_error() {
    type Lie = fn(Style, &Request) -> Vec<u8>;
    let lies: [(&str, &str, Lie); 12] = [
        ("none", "lacks one of the contexts", |s, to| {
            raw::chunk(s, to, true, raw::NONE, &[])
        }),
        ("no extents", "allowed are", |s, to| {
            raw::status(s, to, true, 0, &[])
        }),
        ("an empty extent", "no bytes", |s, to| {
            raw::status(s, to, true, 0, &[(512, 0), (0, 1), (512, 0)])
        }),
        ("only an empty extent", "no bytes", |s, to| {
            raw::status(s, to, true, 0, &[(0, 0)])
        }),
        (
            "past the end of the export",
            "past the export's end",
            |s, to| raw::status(s, to, true, 0, &[(SIZE + 1, 0)]),
        ),
        ("far past the end", "past the export's end", |s, to| {
            raw::status(s, to, true, 0, &[(512, 0), (0xffff_ffff, 0)])
        }),
        ("an extent after the range", "has ended", |s, to| {
            raw::status(s, to, true, 0, &[(65536, 0), (512, 1)])
        }),
        ("another context", "unknown context 9", |s, to| {
            raw::status(s, to, true, 9, &[(512, 0)])
        }),
        ("twice", "answers twice", |s, to| {
            bytes![
                raw::status(s, to, false, 0, &[(512, 0)]),
                raw::status(s, to, true, 0, &[(512, 3)])
            ]
        }),
        ("cut in half", "malformed", |s, to| {
            let kind = if s == Style::Extended {
                raw::STATUS_EXT
            } else {
                raw::STATUS
            };
            raw::chunk(s, to, true, kind, &[0; 29])
        }),
        ("of the other style", "does not answer", |s, to| {
            let kind = if s == Style::Extended {
                raw::STATUS
            } else {
                raw::STATUS_EXT
            };
            raw::chunk(s, to, true, kind, &[0; 24])
        }),
        ("more extents than allowed", "allowed are", |s, to| {
            let kind = if s == Style::Extended {
                raw::STATUS_EXT
            } else {
                raw::STATUS
            };
            raw::chunk_of(s, to, true, kind, 8 + 16 * ((1 << 20) + 1), &[])
        }),
    ];
    for style in [Style::Structured, Style::Extended] {
        for (name, words, lie) in lies {
            let server = Fake::start(Plan::answering(style, raw::BLOCK_STATUS, lie));
            let client = server.connect(1, &[BASE_ALLOCATION]).unwrap();
            let error = client.block_status(BASE_ALLOCATION, 0, 65536).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
            assert!(error.to_string().contains(words), "{name}: {error}");
            server.names_export_and_address(&error.to_string());
        }
    }
    let server = Fake::start(Plan::answering(
        Style::Extended,
        raw::BLOCK_STATUS,
        |s, to| {
            raw::chunk(
                s,
                to,
                true,
                raw::STATUS_EXT,
                &bytes![0_u32, 2_u32, 512_u64, 0_u64],
            )
        },
    ));
    let client = server.connect(1, &[BASE_ALLOCATION]).unwrap();
    let error = client.block_status(BASE_ALLOCATION, 0, 512).unwrap_err();
    assert!(error.to_string().contains("malformed"), "{error}");
}

#[test]
fn an_answer_shorter_than_the_question_leaves_no_gap() {
    let server = Fake::start(Plan::answering(
        Style::Structured,
        raw::BLOCK_STATUS,
        |s, to| {
            let length = to.length.min(1000);
            raw::status(
                s,
                to,
                true,
                0,
                &[(length, u64::from(to.offset % 4000 == 0) * 3)],
            )
        },
    ));
    let client = server.connect(1, &[BASE_ALLOCATION]).unwrap();
    let extents: Vec<_> = client
        .extents(BASE_ALLOCATION, 0, SIZE)
        .map(Result::unwrap)
        .collect();
    let mut position = 0;
    for extent in &extents {
        assert_eq!(extent.offset, position);
        assert_eq!(extent.is_zero(), extent.offset % 4000 == 0);
        position = extent.end();
    }
    assert_eq!(position, SIZE);
}

#[test]
fn a_server_that_dribbles_its_block_status_is_given_up() {
    let server = Fake::start(Plan::answering(
        Style::Structured,
        raw::BLOCK_STATUS,
        |s, to| raw::status(s, to, true, 0, &[(1, to.offset % 2)]),
    ));
    let client = server.connect(1, &[BASE_ALLOCATION]).unwrap();
    let error = client
        .extents(BASE_ALLOCATION, 0, SIZE)
        .find_map(Result::err)
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    server.names_export_and_address(&error.to_string());
    assert!(server.requests().len() < 2000);
}

#[test]
fn a_bitmap_the_server_lacks_is_missed_and_nothing_is_asked_in_its_place() {
    for style in STYLES {
        let server = Fake::start(Plan::honest(style));
        let client = server.connect(1, &["qemu:dirty-bitmap:run"]).unwrap();
        assert!(
            !client.has_context("qemu:dirty-bitmap:run") && !client.has_context(BASE_ALLOCATION)
        );
        let error = client
            .block_status("qemu:dirty-bitmap:run", 0, 512)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        server.names_export_and_address(&error.to_string());
        assert!(client.block_status(BASE_ALLOCATION, 0, 512).is_err());
        assert!(
            server.requests().is_empty(),
            "a question about a context that was not agreed on"
        );
    }
}

#[test]
fn a_lie_in_the_handshake_is_an_error() {
    let go = |bent: Vec<u8>| {
        let end = raw::option_reply(raw::GO, raw::REP_ACK, &[]);
        Plan::haggling(Style::Structured, raw::GO, bytes![bent, end])
    };
    let context = |names: &[(u32, &str)]| {
        let mut out = Vec::new();
        for (number, name) in names {
            out.extend(raw::option_reply(
                raw::SET_META_CONTEXT,
                raw::REP_CONTEXT,
                &bytes![*number, *name],
            ));
        }
        Plan::haggling(Style::Structured, raw::SET_META_CONTEXT, out)
    };
    let honest = Plan::honest(Style::Structured);
    let blocks = |blocks| Plan {
        blocks,
        ..honest.clone()
    };
    let info = |data: &[u8]| raw::option_reply(raw::GO, raw::REP_INFO, data);
    let plans = [
        (
            "no magic",
            Plan {
                greeting: b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
                ..honest.clone()
            },
        ),
        (
            "no version",
            Plan {
                greeting: bytes!["NBDMAGIC", 1_u64, 3_u16],
                ..honest.clone()
            },
        ),
        (
            "a size that ends within a block",
            Plan {
                size: 1000,
                blocks: [512, 4096, 1 << 20],
                ..honest.clone()
            },
        ),
        (
            "a minimum that is no power of two",
            blocks([3, 4096, 1 << 20]),
        ),
        ("a minimum of nothing", blocks([0, 4096, 1 << 20])),
        (
            "a minimum that is huge",
            blocks([1 << 17, 1 << 17, 1 << 20]),
        ),
        (
            "a preferred size below the minimum",
            blocks([4096, 512, 1 << 20]),
        ),
        ("a maximum below the preferred", blocks([1, 4096, 512])),
        (
            "no flags",
            Plan {
                flags: 0,
                ..honest.clone()
            },
        ),
        ("no size", go(Vec::new())),
        (
            "two sizes",
            go(bytes![
                fake::info_export(SIZE, 1),
                fake::info_export(SIZE + 512, 1)
            ]),
        ),
        ("a size cut off", go(info(&[0; 6]))),
        ("a size with more behind it", go(info(&[0; 13]))),
        (
            "a reply to another option",
            Plan::haggling(
                Style::Structured,
                raw::GO,
                raw::option_reply(raw::LIST, raw::REP_ACK, &[]),
            ),
        ),
        (
            "a reply of another kind",
            go(raw::option_reply(raw::GO, raw::REP_SERVER, &[])),
        ),
        (
            "a reply without magic",
            Plan::haggling(Style::Structured, raw::GO, vec![1; 20]),
        ),
        (
            "a reply of two gigabytes",
            Plan::haggling(
                Style::Structured,
                raw::GO,
                bytes![
                    0x0003_e889_0455_65a9_u64,
                    raw::GO,
                    raw::REP_INFO,
                    1_u32 << 31
                ],
            ),
        ),
        ("replies without end", go(info(&bytes![9_u16]).repeat(5000))),
        (
            "an end with data",
            Plan::haggling(
                Style::Structured,
                raw::GO,
                bytes![
                    fake::info_export(SIZE, 1),
                    raw::option_reply(raw::GO, raw::REP_ACK, &[1])
                ],
            ),
        ),
        (
            "a context not asked for",
            context(&[(0, "qemu:allocation-depth")]),
        ),
        (
            "a context twice",
            context(&[(0, BASE_ALLOCATION), (1, BASE_ALLOCATION)]),
        ),
        ("a context that is no text", context(&[(0, "base:\0")])),
    ];
    for (name, plan) in plans {
        let server = Fake::start(plan);
        let Err(error) = server.connect(1, &[BASE_ALLOCATION]) else {
            panic!("{name} is accepted")
        };
        assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
        server.names_export_and_address(&error.to_string());
    }
}

#[test]
fn an_older_handshake_is_refused_by_name() {
    for (greeting, words) in [
        (
            bytes![
                "NBDMAGIC",
                0x0000_4202_8186_1253_u64,
                SIZE,
                0_u32,
                vec![0; 124]
            ],
            "oldstyle",
        ),
        (raw::greeting(0), "fixed newstyle"),
    ] {
        let server = Fake::start(Plan {
            greeting,
            ..Plan::honest(Style::Simple)
        });
        let error = server.connect(1, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(words), "{error}");
        server.names_export_and_address(&error.to_string());
    }
}

#[test]
fn connections_that_contradict_each_other_are_an_error() {
    for (size, flags) in [
        (SIZE + 512, fake::FLAGS | fake::MULTI_CONN),
        (SIZE, fake::FLAGS),
    ] {
        let bent = bytes![
            fake::info_export(size, flags),
            raw::option_reply(raw::GO, raw::REP_ACK, &[])
        ];
        let server = Fake::start(Plan {
            haggle: Arc::new(move |option, number| {
                (number == 1 && option == raw::GO).then(|| bent.clone())
            }),
            ..Plan::honest(Style::Extended)
        });
        let error = server.connect(2, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        server.names_export_and_address(&error.to_string());
    }
}

#[test]
fn a_list_without_end_is_given_up() {
    let one = raw::option_reply(raw::LIST, raw::REP_SERVER, &raw::counted("disk"));
    let server = Fake::start(Plan::haggling(Style::Simple, raw::LIST, one.repeat(20_000)));
    let error = list_exports(&server.address, Duration::from_secs(60)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let server = Fake::start(Plan::honest(Style::Simple));
    assert_eq!(
        list_exports(&server.address, Duration::from_secs(60)).unwrap(),
        ["disk"]
    );
}
