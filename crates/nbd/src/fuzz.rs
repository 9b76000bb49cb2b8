//! What is fuzzed: functions that take any bytes as what a peer sent and must return, within the limits
//! and without a panic. Public so that tests and the search of `snapkeep_fuzz` can call them; nothing
//! else should.
//!
//! The corpus is in `fuzz/corpus/NAME/` for each function's name: sessions of qemu-nbd, nbdkit,
//! qemu-img, qemu-io, nbdinfo and nbdcopy as they were on the wire, and whatever was found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::extent::{BASE_ALLOCATION, extents_of};
use crate::handshake::client::{ClientHandshake, Goal, Outcome as ClientOutcome};
use crate::handshake::server::{Offer, Outcome as ServerOutcome, ServerHandshake};
use crate::handshake::{Agreed, BlockSizes, ExportFacts, Machine};
use crate::transmission::replies::{Asked, Finished, Next, Progress, Replies};
use crate::transmission::requests::{self, Request};
use crate::wire::{RequestHeader, Style, decode_status, transmit};

use snapkeep_fuzz::{Target, Trace};

/// Every function to fuzz and its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("client_handshake", client_handshake),
    ("client", client),
    ("server", server),
    ("requests", requests),
    ("replies", replies),
    ("block_status", block_status),
    ("uri", uri),
];

/// Where the corpus of the target of this name is.
pub fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Bytes of the export in every target.
const SIZE: u64 = 1 << 20;

const FACTS: ExportFacts = ExportFacts {
    size: SIZE,
    flags: transmit::HAS_FLAGS
        | transmit::SEND_FLUSH
        | transmit::SEND_FUA
        | transmit::SEND_TRIM
        | transmit::SEND_WRITE_ZEROES
        | transmit::SEND_DF,
    blocks: BlockSizes::DEFAULT,
};

/// A server's side of a handshake, as the client reads it, once to list and once to use an export.
pub fn client_handshake(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    for goal in [Goal::List, go()] {
        shake(&mut ClientHandshake::new(goal), data, &mut trace);
    }
    trace.end()
}

/// A server's side of a whole session, as the client reads it with some requests in flight.
///
/// # Panics
/// If data is placed outside a read.
pub fn client(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    let (outcome, rest) = shake(&mut ClientHandshake::new(go()), data, &mut trace);
    if let Some(ClientOutcome::Transmission(agreed)) = outcome {
        let contexts = agreed.contexts.iter().map(|(id, _)| *id).collect();
        follow_replies(agreed.style, contexts, rest, &mut trace);
    }
    trace.end()
}

/// A client's side of a whole session, as the server reads it.
pub fn server(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    let offer = Offer {
        facts: FACTS,
        contexts: vec![BASE_ALLOCATION.to_owned()],
    };
    let offers = BTreeMap::from([("disk".to_owned(), offer)]);
    let (outcome, rest) = shake(&mut ServerHandshake::new(offers), data, &mut trace);
    if let Some(ServerOutcome::Transmission { agreed, .. }) = outcome {
        follow_requests(&agreed, rest, &mut trace);
    }
    trace.end()
}

/// Requests, as the server reads them; the first byte chooses the style of headers.
pub fn requests(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    if let Some((first, rest)) = data.split_first() {
        trace.step("style", u64::from(first % 3));
        let agreed = Agreed {
            style: style(*first),
            facts: FACTS,
            contexts: vec![(0, BASE_ALLOCATION.to_owned())],
        };
        follow_requests(&agreed, rest, &mut trace);
    }
    trace.end()
}

/// Replies, as the client reads them with some requests in flight; the first byte chooses the style
/// of headers.
///
/// # Panics
/// If data is placed outside a read.
pub fn replies(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    if let Some((first, rest)) = data.split_first() {
        trace.step("style", u64::from(first % 3));
        follow_replies(style(*first), vec![7], rest, &mut trace);
    }
    trace.end()
}

/// The payload of a block-status chunk; the first byte chooses its form.
///
/// # Panics
/// If extents come out that are not contiguous or not inside the range that was asked for.
pub fn block_status(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    let Some((first, payload)) = data.split_first() else {
        return trace.end();
    };
    trace.step("form", u64::from(first & 1));
    let extents = decode_status(payload, first & 1 == 1)
        .and_then(|(_, descriptors)| extents_of(&descriptors, 4096, 65536, &FACTS));
    match extents {
        Err(fault) => trace.words(&fault.message),
        Ok(extents) => {
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
            trace.step("extents", u64::from(extents.len().ilog2()));
        }
    }
    trace.end()
}

/// An NBD URI.
///
/// # Panics
/// If an address that was understood is not understood again once written.
pub fn uri(data: &[u8]) -> u64 {
    let mut trace = Trace::new();
    let Ok(text) = std::str::from_utf8(data) else {
        return trace.end();
    };
    match Address::parse_uri(text) {
        Err(error) => trace.words(error.to_string().rsplit(": ").next().unwrap_or_default()),
        Ok((address, export)) => {
            let again = Address::parse_uri(&address.uri(&export));
            trace.step("uri", u64::from(export.is_empty()));
            assert!(
                again.is_ok_and(|again| again == (address, export)),
                "{text:?} is not stable"
            );
        }
    }
    trace.end()
}

/// Feeds a handshake; returns its outcome and the bytes after it.
fn shake<'a, M: Machine>(
    machine: &mut M,
    mut rest: &'a [u8],
    trace: &mut Trace,
) -> (Option<M::Outcome>, &'a [u8]) {
    while machine.wants() > 0 && !rest.is_empty() {
        match machine.feed(rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(fault) => {
                trace.words(&fault.message);
                return (None, rest);
            }
        }
        // What it answers begins with what it answers to.
        let answer = machine.take_output();
        trace.step("answer", answer.iter().map(|byte| u64::from(*byte)).sum());
    }
    (machine.take_outcome(), rest)
}

fn follow_replies(style: Style, contexts: Vec<u32>, mut rest: &[u8], trace: &mut Trace) {
    let status = !contexts.is_empty();
    let mut machine = Replies::new(style, contexts);
    machine.expect(1, Asked::Read, 4096, 8192);
    if status {
        machine.expect(2, Asked::Status, 0, SIZE);
    }
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
                trace.step("data", u64::from(offset >= 4096));
                machine.data_arrived(taken)
            }
        };
        match progress {
            Ok(Progress { zeroes, finished }) => {
                if let Some((offset, length)) = zeroes {
                    let end = offset + length;
                    assert!(
                        end <= 512 || (offset >= 4096 && end <= 12288),
                        "zeroes are placed at {offset}..{end}"
                    );
                    trace.step("zeroes", u64::from(offset >= 4096));
                }
                if let Some(Finished { cookie, result }) = finished {
                    trace.step(if result.is_ok() { "done" } else { "refused" }, cookie);
                }
            }
            Err(fault) => return trace.words(&fault.message),
        }
    }
}

fn follow_requests(agreed: &Agreed, mut rest: &[u8], trace: &mut Trace) {
    while let Some((header, after)) = rest.split_at_checked(RequestHeader::bytes(agreed.style)) {
        let Some(header) = RequestHeader::decode(agreed.style, header) else {
            return trace.step("no magic", 0);
        };
        let request = match Request::judge(header, agreed) {
            Ok(request) => request,
            Err(fault) => return trace.words(&fault.message),
        };
        match request.verdict {
            Ok(command) => {
                requests::success(agreed.style, &request);
                trace.words(&format!("{command:?}"));
            }
            Err(errno) => {
                requests::failure(agreed.style, &request, errno, "no");
                trace.words(&format!("{errno:?}"));
            }
        }
        let payload = usize::try_from(request.payload).unwrap_or(usize::MAX);
        let Some((_, next)) = after.split_at_checked(payload) else {
            return trace.step("short", 0);
        };
        rest = next;
    }
}

fn go() -> Goal {
    Goal::Go {
        export: "disk".to_owned(),
        contexts: vec![BASE_ALLOCATION.to_owned()],
    }
}

fn style(byte: u8) -> Style {
    match byte % 3 {
        0 => Style::Simple,
        1 => Style::Structured,
        _ => Style::Extended,
    }
}
