//! The socket to the privileged process: messages are collected and sent many at once.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::io::{Errno, read};
use rustix::net::{SendFlags, send};
use snapkeep_api::tree::{Judgement, ProblemKind};

use super::stop::Stop;
use crate::limits;
use crate::stream::{self, Fault, Kind, Telling, Wish};

/// The way out.
#[derive(Debug)]
pub(super) struct Out {
    socket: OwnedFd,
    /// `filled` bytes of it are whole messages to be sent.
    buffer: Vec<u8>,
    filled: usize,
    /// Where a message is made.
    message: Vec<u8>,
    /// When something was sent last.
    sent: Instant,
}

impl Out {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            buffer: vec![0; limits::SEND_BYTES],
            filled: 0,
            message: Vec::new(),
            sent: Instant::now(),
        }
    }

    /// Says who it is and hears what it is to do.
    pub(super) fn greet(&mut self) -> Result<Wish, Stop> {
        self.say(stream::hello)?;
        let payload = self.answer(Kind::Request)?;
        stream::decode_request(&payload).map_err(misunderstood)
    }

    pub(super) fn tell(&mut self, kind: Kind, telling: &Telling<'_>) -> Result<(), Stop> {
        self.say(|out| stream::told(out, kind, telling))
    }

    pub(super) fn leave(&mut self) -> Result<(), Stop> {
        self.say(|out| stream::empty(out, Kind::Leave))
    }

    pub(super) fn hole(&mut self, length: u64) -> Result<(), Stop> {
        self.say(|out| stream::hole(out, length))
    }

    /// The end of a file, and what changed while it was read.
    pub(super) fn end(&mut self, changed: Option<&str>) -> Result<(), Stop> {
        self.say(|out| stream::text(out, Kind::End, changed))
    }

    pub(super) fn lost(&mut self, why: &str) -> Result<(), Stop> {
        self.say(|out| stream::text(out, Kind::Lost, Some(why)))
    }

    pub(super) fn problem(
        &mut self,
        name: Option<&[u8]>,
        kind: ProblemKind,
        why: &str,
    ) -> Result<(), Stop> {
        self.say(|out| stream::problem(out, name, kind, why))
    }

    pub(super) fn done(&mut self) -> Result<(), Stop> {
        self.say(|out| stream::empty(out, Kind::Done))?;
        self.flush()
    }

    /// The last words. That nobody hears them changes nothing any more.
    pub(super) fn fatal(&mut self, why: &str) {
        let said = self.say(|out| stream::text(out, Kind::Fatal, Some(why)));
        drop(said.and_then(|()| self.flush()));
    }

    /// Asks and waits for the answers.
    pub(super) fn ask(
        &mut self,
        count: usize,
        question: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<Judgement>, Stop> {
        self.say(question)?;
        let payload = self.answer(Kind::Answers)?;
        let answers = stream::decode_answers(&payload).map_err(misunderstood)?;
        if answers.len() != count {
            return Err(misunderstood(Fault(
                "there are more or fewer answers than questions",
            )));
        }
        Ok(answers)
    }

    /// Sends the next piece of a file's content, which the closure reads into the buffer it is given;
    /// nothing if that is nothing, or an error.
    pub(super) fn data(
        &mut self,
        wanted: u64,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<Result<usize, Errno>, Stop> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let wanted = wanted.min(limits::SEND_BYTES - limits::HEADER_BYTES);
        let least = limits::HEADER_BYTES + wanted.min(limits::READ_BYTES_MIN);
        if self.buffer.len() - self.filled < least {
            self.flush()?;
        }
        let (header, room) = self.buffer[self.filled..].split_at_mut(limits::HEADER_BYTES);
        let most = wanted.min(room.len());
        let taken = match read(&mut room[..most]) {
            Ok(taken) if taken > 0 => taken,
            nothing => return Ok(nothing),
        };
        let length = u32::try_from(taken).unwrap_or(u32::MAX);
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4] = Kind::Data.number();
        self.filled += limits::HEADER_BYTES + taken;
        Ok(Ok(taken))
    }

    /// Sends what there is, or that it lives, if the other end has heard nothing for a while: a slow
    /// disk, or a folder of which all is left out, is no walker that hangs.
    pub(super) fn live(&mut self) -> Result<(), Stop> {
        if self.sent.elapsed() < limits::KEEP_ALIVE {
            return Ok(());
        }
        self.say(|out| stream::empty(out, Kind::KeepAlive))?;
        self.flush()
    }

    /// Does something that may take long and says meanwhile that it lives, for so long as a file
    /// system may take that does not hang.
    pub(super) fn while_alive<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, Stop> {
        self.flush()?;
        let (done, is_done) = mpsc::channel::<()>();
        let mut sign = Vec::new();
        stream::empty(&mut sign, Kind::KeepAlive);
        let socket = &self.socket;
        Ok(thread::scope(|scope| {
            scope.spawn(move || {
                let signs = limits::SYNC.as_secs() / limits::KEEP_ALIVE.as_secs();
                for _ in 0..signs {
                    match is_done.recv_timeout(limits::KEEP_ALIVE) {
                        Err(mpsc::RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                    // Whoever does not hear it is noticed by what is sent next.
                    if send_all(socket, &sign).is_err() {
                        return;
                    }
                }
            });
            let value = work();
            drop(done);
            value
        }))
    }

    fn say(&mut self, make: impl FnOnce(&mut Vec<u8>)) -> Result<(), Stop> {
        self.message.clear();
        make(&mut self.message);
        let end = self.filled + self.message.len();
        if let Some(room) = self.buffer.get_mut(self.filled..end) {
            room.copy_from_slice(&self.message);
            self.filled = end;
            return Ok(());
        }
        self.flush()?;
        if let Some(room) = self.buffer.get_mut(..self.message.len()) {
            room.copy_from_slice(&self.message);
            self.filled = self.message.len();
            return Ok(());
        }
        let sent = send_all(&self.socket, &self.message);
        self.message = Vec::new();
        sent
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.sent = Instant::now();
        let filled = std::mem::take(&mut self.filled);
        send_all(&self.socket, &self.buffer[..filled])
    }

    fn answer(&mut self, kind: Kind) -> Result<Vec<u8>, Stop> {
        self.flush()?;
        let mut bytes = [0; limits::HEADER_BYTES];
        self.receive(&mut bytes)?;
        let header = stream::header(bytes).map_err(misunderstood)?;
        if header.kind != kind {
            return Err(misunderstood(Fault("another answer was expected")));
        }
        let mut payload = vec![0; header.length];
        self.receive(&mut payload)?;
        Ok(payload)
    }

    fn receive(&mut self, mut into: &mut [u8]) -> Result<(), Stop> {
        while !into.is_empty() {
            match read(&self.socket, &mut *into) {
                Ok(0) => return Err(Stop::Gone),
                Ok(taken) => into = &mut into[taken..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(gone(errno)),
            }
        }
        Ok(())
    }
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(gone(errno)),
        }
    }
    Ok(())
}

fn gone(errno: Errno) -> Stop {
    match errno {
        Errno::PIPE | Errno::CONNRESET => Stop::Gone,
        errno => Stop::Failed(format!("the socket failed: {errno}")),
    }
}

fn misunderstood(fault: Fault) -> Stop {
    Stop::Failed(format!("the walker was asked something wrong: {}", fault.0))
}

#[cfg(test)]
mod tests {
    use rustix::net::{RecvFlags, recv};

    use super::*;
    use crate::testing::sockets;

    #[test]
    fn whoever_has_nothing_to_say_for_long_says_that_it_lives() {
        let (ours, theirs) = sockets();
        let mut out = Out::new(theirs);
        let mut room = [0; 100];
        let mut heard = || recv(&ours, &mut room, RecvFlags::DONTWAIT).map(|(length, _)| length);
        out.leave().unwrap();
        out.live().unwrap();
        assert_eq!(heard(), Err(Errno::AGAIN));
        out.sent -= limits::KEEP_ALIVE;
        out.live().unwrap();
        assert_eq!(heard(), Ok(2 * limits::HEADER_BYTES));
        out.live().unwrap();
        assert_eq!(heard(), Err(Errno::AGAIN));
    }
}
