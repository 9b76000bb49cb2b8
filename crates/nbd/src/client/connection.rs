//! One connection: runs one job at a time, many requests of it in flight.

use std::io::{self, Write};
use std::time::Duration;

use super::patience::Patience;
use crate::address::Address;
use crate::error::{ErrorKind, Fault};
use crate::handshake::Agreed;
use crate::handshake::client::{ClientHandshake, Goal, Outcome};
use crate::limits;
use crate::shake;
use crate::stream::Stream;
use crate::transmission::replies::{Asked, Finished, Next, Progress, Refusal, Replies};
use crate::wire::{Descriptor, RequestHeader, Style, command, command_flag};

/// Block status by the contexts' names on the wire.
pub(super) type Status = Vec<(u32, Vec<Descriptor>)>;

/// A connection in the transmission phase with nothing in flight.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    style: Style,
    replies: Replies,
    next_cookie: u64,
    patience: Patience,
    /// Headers come through here; data never does.
    scratch: Vec<u8>,
}

/// One range to treat with one command, in requests of at most `step` bytes.
pub(super) struct Job<'a> {
    pub(super) command: u16,
    pub(super) asked: Asked,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) step: u64,
    pub(super) memory: Memory<'a>,
}

/// The caller's memory; as long as the job's range.
pub(super) enum Memory<'a> {
    None,
    Fill(&'a mut [u8]),
    Send(&'a [u8]),
}

/// Why a job failed.
pub(super) enum Failure {
    /// The server said no; the connection is good.
    Refused(Refusal),
    /// The connection must not be used again.
    Broken(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Broken(fault)
    }
}

/// The server is to see the end although handles are left.
impl Drop for Connection {
    fn drop(&mut self) {
        self.stream.shutdown();
    }
}

impl Connection {
    /// Connects and does the handshake, each within the time limit.
    pub(super) fn open(
        address: &Address,
        goal: Goal,
        timeout: Duration,
    ) -> Result<(Stream, Outcome), Fault> {
        let mut stream = Stream::connect(address, timeout).map_err(|error| Fault {
            source: Some(error),
            ..Fault::new(ErrorKind::Unavailable, "the socket takes no connection")
        })?;
        let outcome = shake::hands(&mut stream, ClientHandshake::new(goal), timeout)?;
        Ok((stream, outcome))
    }

    /// A connection whose handshake is over; every silence of the server and every dribble is limited.
    pub(super) fn new(stream: Stream, agreed: &Agreed, timeout: Duration) -> Result<Self, Fault> {
        stream
            .set_timeouts(Some(timeout), Some(timeout))
            .map_err(|error| Fault::lost(error, "entering transmission"))?;
        let contexts = agreed.contexts.iter().map(|(id, _)| *id).collect();
        Ok(Self {
            stream,
            style: agreed.style,
            replies: Replies::new(agreed.style, contexts),
            next_cookie: 1,
            patience: Patience::new(timeout),
            scratch: vec![0; limits::PAYLOAD_STEP_BYTES],
        })
    }

    /// By it the connection can be ended while a job runs.
    pub(super) fn handle(&self) -> Result<Stream, Fault> {
        (self.stream.try_clone()).map_err(|error| Fault::lost(error, "entering transmission"))
    }

    /// Runs a job to its end: when this returns other than [`Failure::Broken`], nothing is in
    /// flight. After the first refusal no more requests are sent.
    pub(super) fn run(&mut self, job: Job<'_>) -> Result<Status, Failure> {
        let Job {
            command,
            asked,
            offset,
            length,
            step,
            mut memory,
        } = job;
        self.patience.renew();
        let mut status = Status::new();
        let mut refusal = None;
        // A flush has no range but is one request all the same.
        let mut sent = None;
        loop {
            let mut outbox = Vec::new();
            while refusal.is_none()
                && sent.is_none_or(|sent| sent < length)
                && self.replies.in_flight() < limits::MAX_CLIENT_IN_FLIGHT
            {
                let done = sent.unwrap_or(0);
                let part = (length - done).min(step);
                self.request(command, asked, offset + done, part, &mut outbox)?;
                if let Memory::Send(bytes) = &memory {
                    self.send(&outbox, &bytes[slice(done, part)])?;
                    outbox.clear();
                }
                sent = Some(done + part);
            }
            self.send(&outbox, &[])?;
            if self.replies.in_flight() == 0 {
                break;
            }
            match self.reply(offset, &mut memory)?.result {
                Ok(chunks) => status = chunks,
                Err(first) => refusal = refusal.or(Some(first)),
            }
        }
        match refusal {
            None => Ok(status),
            Some(refusal) => Err(Failure::Refused(refusal)),
        }
    }

    fn send(&mut self, head: &[u8], body: &[u8]) -> Result<(), Fault> {
        let patience = &self.patience;
        let check = |_: &Stream| patience.check().map_err(|_| io::ErrorKind::TimedOut.into());
        self.stream
            .write_both(head, body, check)
            .map_err(|error| patience.fault(error, "sending a request"))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.replies.in_flight() == 0
    }

    /// Tells the server that the connection is over. Nothing is in flight.
    pub(super) fn disconnect(mut self) {
        let header = RequestHeader {
            flags: 0,
            command: command::DISC,
            cookie: 0,
            offset: 0,
            length: 0,
        };
        let mut out = Vec::new();
        if header.encode(self.style, &mut out).is_some() {
            // There is no reply, and a server that is gone need not be told.
            self.stream.write_all(&out).ok();
        }
    }

    fn request(
        &mut self,
        command: u16,
        asked: Asked,
        offset: u64,
        length: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let carries_data = command == command::WRITE;
        let flags = if carries_data && self.style == Style::Extended {
            command_flag::PAYLOAD_LEN
        } else {
            0
        };
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        RequestHeader {
            flags,
            command,
            cookie,
            offset,
            length,
        }
        .encode(self.style, out)
        .ok_or_else(|| {
            Fault::new(
                ErrorKind::Invalid,
                format!("a request of {length} bytes is too long"),
            )
        })?;
        self.replies.expect(cookie, asked, offset, length);
        Ok(())
    }

    /// Reads until the reply to some request is complete.
    fn reply(&mut self, base: u64, memory: &mut Memory<'_>) -> Result<Finished, Fault> {
        let doing = "waiting for a reply";
        loop {
            self.patience.check()?;
            let progress = match self.replies.next() {
                Next::Bytes(most) => {
                    let count = self.stream.read_some(&mut self.scratch[..most]);
                    match count.map_err(|error| self.patience.fault(error, doing))? {
                        0 => return Err(Fault::closed(doing)),
                        count => self.replies.feed(&self.scratch[..count])?,
                    }
                }
                Next::Data { offset, length } => {
                    let place = destination(memory, offset - base, length)?;
                    match self
                        .stream
                        .read_some(place)
                        .map_err(|error| self.patience.fault(error, "reading data"))?
                    {
                        0 => return Err(Fault::closed("reading data")),
                        count => self.replies.data_arrived(count)?,
                    }
                }
            };
            let Progress { zeroes, finished } = progress;
            if let Some((offset, length)) = zeroes {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                destination(memory, offset - base, length)?.fill(0);
            }
            if let Some(finished) = finished {
                self.patience.renew();
                return Ok(finished);
            }
        }
    }
}

/// The caller's bytes for data of a reply. The state machine has checked that they lie within a
/// request, and so within the job.
fn destination<'a>(
    memory: &'a mut Memory<'_>,
    start: u64,
    length: usize,
) -> Result<&'a mut [u8], Fault> {
    let place = match memory {
        Memory::Fill(buffer) => usize::try_from(start)
            .ok()
            .and_then(|start| buffer.get_mut(start..)?.get_mut(..length)),
        Memory::None | Memory::Send(_) => None,
    };
    place.ok_or_else(|| Fault::protocol("a reply holds data that nobody asked for"))
}

/// The part of the caller's memory that a part of the job is about.
fn slice(start: u64, length: u64) -> std::ops::Range<usize> {
    let at =
        |position| usize::try_from(position).expect("a job with memory is as long as the memory");
    at(start)..at(start + length)
}
