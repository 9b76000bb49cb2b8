//! Entry points for fuzzing: each takes any bytes as what a peer sent and must return, within the
//! limits and without a panic. They are public so that a fuzzer outside the crate can call them;
//! nothing else should.
//!
//! The corpus is in `fuzz/corpus/NAME/` for each function's name; an ordinary test replays it with
//! some thousand mutations.

use std::collections::BTreeMap;

use crate::address::Address;
use crate::extent::{BASE_ALLOCATION, extents_of};
use crate::handshake::client::{ClientHandshake, Goal};
use crate::handshake::server::{Offer, Outcome, ServerHandshake};
use crate::handshake::{Agreed, BlockSizes, ExportFacts, Machine as _};
use crate::transmission::replies::{Asked, Next, Replies};
use crate::transmission::requests::{self, Request};
use crate::wire::{RequestHeader, Style, decode_status, transmit};

/// Bytes of the export in every target.
const SIZE: u64 = 1 << 20;

/// A server's side of a handshake, as the client reads it.
pub fn client_handshake(data: &[u8]) {
    for goal in [
        Goal::List,
        Goal::Go {
            export: "disk".to_owned(),
            contexts: vec![BASE_ALLOCATION.to_owned()],
        },
    ] {
        let mut machine = ClientHandshake::new(goal);
        let mut rest = data;
        while machine.wants() > 0 && !rest.is_empty() {
            let Ok(taken) = machine.feed(rest) else { break };
            rest = &rest[taken..];
            machine.take_output();
        }
        machine.take_outcome();
    }
}

/// A client's side of a handshake and its requests after it, as the server reads them.
pub fn server(data: &[u8]) {
    let facts = ExportFacts {
        size: SIZE,
        flags: transmit::HAS_FLAGS,
        blocks: BlockSizes::DEFAULT,
    };
    let offer = Offer {
        facts,
        contexts: vec![BASE_ALLOCATION.to_owned()],
    };
    let mut machine = ServerHandshake::new(BTreeMap::from([("disk".to_owned(), offer)]));
    let mut rest = data;
    while machine.wants() > 0 && !rest.is_empty() {
        let Ok(taken) = machine.feed(rest) else {
            return;
        };
        rest = &rest[taken..];
        machine.take_output();
    }
    if let Some(Outcome::Transmission { agreed, .. }) = machine.take_outcome() {
        follow_requests(&agreed, rest);
    }
}

/// Requests, as the server reads them; the first byte chooses the style of headers.
pub fn requests(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let flags =
        transmit::HAS_FLAGS | transmit::SEND_FLUSH | transmit::SEND_FUA | transmit::SEND_TRIM;
    let facts = ExportFacts {
        size: SIZE,
        flags,
        blocks: BlockSizes::DEFAULT,
    };
    let contexts = vec![(0, BASE_ALLOCATION.to_owned())];
    follow_requests(
        &Agreed {
            style: style(*first),
            facts,
            contexts,
        },
        rest,
    );
}

/// Replies, as the client reads them with some requests in flight; the first byte chooses the style
/// of headers.
///
/// # Panics
/// If data is placed outside a read.
pub fn replies(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let mut machine = Replies::new(style(*first), vec![7]);
    machine.expect(1, Asked::Read, 4096, 8192);
    machine.expect(2, Asked::Status, 0, SIZE);
    machine.expect(3, Asked::Effect, 0, 0);
    machine.expect(4, Asked::Read, 0, 512);
    while machine.in_flight() > 0 && !rest.is_empty() {
        let progress = match machine.next() {
            Next::Bytes(most) => {
                let taken;
                (taken, rest) = rest.split_at(most.min(rest.len()));
                machine.feed(taken)
            }
            Next::Data { offset, length } => {
                let end = offset + u64::try_from(length).unwrap_or(u64::MAX);
                assert!(
                    end <= 512 || (offset >= 4096 && end <= 12288),
                    "data is placed at {offset}..{end}"
                );
                let taken = length.min(rest.len());
                rest = &rest[taken..];
                machine.data_arrived(taken)
            }
        };
        if progress.is_err() {
            return;
        }
    }
}

/// The payload of a block-status chunk; the first byte chooses its form.
///
/// # Panics
/// If extents come out that are not contiguous or not inside the range that was asked for.
pub fn block_status(data: &[u8]) {
    let Some((first, payload)) = data.split_first() else {
        return;
    };
    let Ok((_, descriptors)) = decode_status(payload, first & 1 == 1) else {
        return;
    };
    let Ok(extents) = extents_of(&descriptors, 4096, 65536, SIZE) else {
        return;
    };
    let mut position = 4096;
    for extent in &extents {
        assert!(
            extent.offset == position && extent.length > 0,
            "extents have a gap at {position}"
        );
        position = extent.end();
    }
    assert!(
        !extents.is_empty() && position <= 4096 + 65536,
        "extents end at {position}"
    );
}

/// An NBD URI.
///
/// # Panics
/// If an address that was understood is not understood again once written.
pub fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok((address, export)) = Address::parse_uri(text) {
        let again = Address::parse_uri(&address.uri(&export));
        assert!(
            again.is_ok_and(|again| again == (address, export)),
            "{text:?} is not stable"
        );
    }
}

fn follow_requests(agreed: &Agreed, mut rest: &[u8]) {
    while let Some((header, after)) = rest.split_at_checked(RequestHeader::bytes(agreed.style)) {
        let Some(header) = RequestHeader::decode(agreed.style, header) else {
            return;
        };
        let Ok(request) = Request::judge(header, agreed) else {
            return;
        };
        match request.verdict {
            Ok(_) => requests::success(agreed.style, &request),
            Err(errno) => requests::failure(agreed.style, &request, errno, "no"),
        };
        let payload = usize::try_from(request.payload).unwrap_or(usize::MAX);
        let Some((_, next)) = after.split_at_checked(payload) else {
            return;
        };
        rest = next;
    }
}

fn style(byte: u8) -> Style {
    match byte % 3 {
        0 => Style::Simple,
        1 => Style::Structured,
        _ => Style::Extended,
    }
}
