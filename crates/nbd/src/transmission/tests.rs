//! Replies as a server may send them: in any order, cut into any chunks, their bytes into any pieces.

use std::ops::Range;

use proptest::prelude::*;

use super::replies::{Asked, Finished, Next, Progress, Replies};
use super::requests::Request;
use crate::error::Fault;
use crate::extent::BASE_ALLOCATION;
use crate::handshake::{Agreed, BlockSizes, ExportFacts};
use crate::limits;
use crate::wire::{CHUNK_DONE, ReplyHeader, RequestHeader, Style, chunk, command, transmit};

const SIZE: usize = 4096;

fn disk() -> Vec<u8> {
    (0..SIZE)
        .map(|index| {
            if (index / 64) % 3 == 0 {
                0
            } else {
                u8::try_from(index % 255).unwrap() | 1
            }
        })
        .collect()
}

/// What a client makes of a stream: its memory and the replies that ended.
fn receive(
    machine: &mut Replies,
    mut stream: &[u8],
    pieces: &[usize],
) -> Result<(Vec<u8>, Vec<Finished>), Fault> {
    let mut pieces = pieces.iter().copied().cycle();
    let mut memory = vec![0xee; SIZE];
    let mut finished = Vec::new();
    while !stream.is_empty() {
        let piece = pieces.next().unwrap().min(stream.len());
        let (progress, taken) = match machine.next() {
            Next::Bytes(most) => {
                let taken = most.min(piece);
                (machine.feed(&stream[..taken])?, taken)
            }
            Next::Data { offset, length } => {
                let (start, taken) = (usize::try_from(offset).unwrap(), length.min(piece));
                memory[start..start + taken].copy_from_slice(&stream[..taken]);
                (machine.data_arrived(taken)?, taken)
            }
        };
        let Progress {
            zeroes,
            finished: ended,
        } = progress;
        if let Some((offset, length)) = zeroes {
            let start = usize::try_from(offset).unwrap();
            memory[start..start + usize::try_from(length).unwrap()].fill(0);
        }
        finished.extend(ended);
        stream = &stream[taken..];
    }
    Ok((memory, finished))
}

fn put_chunk(
    style: Style,
    cookie: u64,
    request: u64,
    kind: u16,
    done: bool,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let flags = if done { CHUNK_DONE } else { 0 };
    let length = u32::try_from(payload.len()).unwrap();
    match style {
        Style::Extended => {
            let (offset, length) = (request, u64::from(length));
            ReplyHeader::Extended {
                flags,
                kind,
                cookie,
                offset,
                length,
            }
            .encode(out);
        }
        Style::Simple | Style::Structured => ReplyHeader::Structured {
            flags,
            kind,
            cookie,
            length,
        }
        .encode(out),
    }
    out.extend_from_slice(payload);
}

/// The chunks that answer one read, in this order, the last one marked as such.
fn answer(
    style: Style,
    cookie: u64,
    read: &Range<usize>,
    cuts: &[usize],
    backwards: bool,
) -> Vec<Vec<u8>> {
    let disk = disk();
    let mut bounds: Vec<_> = cuts
        .iter()
        .map(|cut| read.start + cut % read.len())
        .collect();
    bounds.extend([read.start, read.end]);
    bounds.sort_unstable();
    bounds.dedup();
    let mut parts: Vec<_> = bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
    if backwards {
        parts.reverse();
    }
    let last = parts.len() - 1;
    let request = u64::try_from(read.start).unwrap();
    parts
        .into_iter()
        .enumerate()
        .map(|(index, part)| {
            let mut payload = u64::try_from(part.start).unwrap().to_be_bytes().to_vec();
            let zero = disk[part.clone()].iter().all(|byte| *byte == 0);
            if zero {
                payload.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
            } else {
                payload.extend_from_slice(&disk[part]);
            }
            let kind = if zero {
                chunk::OFFSET_HOLE
            } else {
                chunk::OFFSET_DATA
            };
            let mut out = Vec::new();
            put_chunk(
                style,
                cookie,
                request,
                kind,
                index == last,
                &payload,
                &mut out,
            );
            out
        })
        .collect()
}

#[test]
fn what_answering_a_request_holds_in_memory_is_counted() {
    let agreed = Agreed {
        style: Style::Extended,
        facts: ExportFacts {
            size: 1 << 40,
            flags: transmit::HAS_FLAGS | transmit::SEND_FLUSH,
            blocks: BlockSizes::DEFAULT,
        },
        contexts: vec![(0, BASE_ALLOCATION.to_owned())],
    };
    for (command, length, expected) in [
        (command::READ, 4096, 4096),
        (command::WRITE, 512, 512),
        (command::FLUSH, 0, 0),
        (command::WRITE_ZEROES, 1 << 40, 0),
        (command::BLOCK_STATUS, 1 << 40, limits::STATUS_WORK_BYTES),
        // It is refused.
        (command::READ, 1 << 40, 0),
    ] {
        let header = RequestHeader {
            flags: 0,
            command,
            cookie: 1,
            offset: 0,
            length,
        };
        let request = Request::judge(header, &agreed).unwrap();
        assert_eq!(request.data_bytes(), expected, "command {command}");
    }
}

proptest! {
    #[test]
    fn every_byte_of_a_read_lands_in_its_place(
        extended: bool,
        backwards: bool,
        cuts in prop::collection::vec(prop::collection::vec(0usize..SIZE, 0..12), 4),
        turns in prop::collection::vec(0usize..4, 0..60),
        pieces in prop::collection::vec(1usize..200, 1..10),
    ) {
        let style = if extended { Style::Extended } else { Style::Structured };
        let reads = [0..1024, 1024..1025, 2000..4096, 1025..2000];
        let mut machine = Replies::new(style, Vec::new());
        let mut waiting = Vec::new();
        for (cookie, (read, cuts)) in (10..).zip(reads.iter().zip(&cuts)) {
            machine.expect(cookie, Asked::Read, u64::try_from(read.start).unwrap(), u64::try_from(read.len()).unwrap());
            waiting.push(answer(style, cookie, read, cuts, backwards).into_iter());
        }
        // Replies of different requests interleave chunk by chunk.
        let mut stream: Vec<u8> = turns.into_iter().filter_map(|turn| waiting[turn].next()).flatten().collect();
        stream.extend(waiting.into_iter().flatten().flatten());
        let (memory, finished) = receive(&mut machine, &stream, &pieces).unwrap();
        prop_assert!(memory == disk());
        prop_assert_eq!(finished.len(), 4);
        prop_assert!(finished.iter().all(|finished| finished.result.is_ok()));
        prop_assert_eq!(machine.in_flight(), 0);
    }

    #[test]
    fn a_read_that_lacks_a_chunk_or_has_one_twice_is_an_error(
        cuts in prop::collection::vec(0usize..SIZE, 1..12),
        victim in 0usize..12,
        twice: bool,
    ) {
        let mut chunks = answer(Style::Structured, 1, &(0..SIZE), &cuts, false);
        prop_assume!(chunks.len() > 1);
        let victim = victim % (chunks.len() - 1);
        if twice {
            chunks.insert(victim, chunks[victim].clone());
        } else {
            chunks.remove(victim);
        }
        let mut machine = Replies::new(Style::Structured, Vec::new());
        machine.expect(1, Asked::Read, 0, u64::try_from(SIZE).unwrap());
        prop_assert!(receive(&mut machine, &chunks.concat(), &[64]).is_err());
    }

    #[test]
    fn any_bytes_end_in_an_error_or_wait_for_more_but_never_in_a_panic(
        style: u8,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let data = [&[style], &bytes[..]].concat();
        crate::fuzz::replies(&data);
        crate::fuzz::requests(&data);
        crate::fuzz::block_status(&data);
    }
}
