//! The privileged end: pulls a tree from a walker and proves that it is one.
//!
//! Whoever runs in the container may have taken the walker over, so it is a hostile peer here. What
//! it says is bounded, in order, and complete, or the walk ends with an error; whether it is true,
//! nobody can know. Nothing it says becomes a path that is opened.

mod links;
mod order;
mod peer;

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use snapkeep_api::tree::{Content, EntryKind, KnownTree, Step, Told, TreeSource};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use crate::limits;
use crate::stream::{Fault, Kind, Message, Request, Sent, answers, decode, encode_request};
use crate::userns::Walker;
use links::Links;
use order::Order;
use peer::Peer;

/// How a walk is waited for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the walker may say nothing. It says something while a disk is slow, so silence means
    /// that a file system hangs, or the walker.
    pub hang_limit: Duration,
    /// Ends the walk.
    pub cancel: Cancel,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hang_limit: limits::HANG,
            cancel: Cancel::new(),
        }
    }
}

/// A container's tree, pulled from its walker.
pub struct Pull {
    peer: Peer,
    /// Until it is sent.
    request: Option<Vec<u8>>,
    /// It still has to be told to begin.
    inherited: bool,
    order: Order,
    links: Links,
    file: Option<Reading>,
    ended: bool,
    failed: Option<Error>,
}

/// A file whose content is under way.
#[derive(Debug)]
struct Reading {
    /// What was told of it, with what is left of the current piece.
    position: u64,
    size: u64,
    piece_left: usize,
    /// Hard links to it may follow once all of it is told.
    link: Option<u64>,
}

impl Pull {
    /// Pulls from the walker at the other end of a Unix stream socket. A request that no walker
    /// would take is refused as `Invalid`.
    pub fn new(socket: OwnedFd, request: &Request, options: Options) -> Result<Self> {
        Self::from(Peer::new(socket, options), request)
    }

    /// Pulls from a walker that was started, which ends with this at the latest; if it ends before, it
    /// is said how.
    pub fn of(mut walker: Walker, request: &Request, options: Options) -> Result<Self> {
        let socket = walker.take_socket()?;
        Self::from(Peer::with_walker(socket, walker, options), request)
    }

    /// Pulls from a walker that somebody else started, in the container's user namespace: the program
    /// that calls [`run_walker`](crate::run_walker), with the other end of this Unix stream socket.
    /// Nothing is sent before the first step is asked for, nor is it waited for.
    pub fn inherited(socket: OwnedFd, request: &Request, options: Options) -> Result<Self> {
        let pull = Self::new(socket, request, options)?;
        Ok(Self {
            inherited: true,
            ..pull
        })
    }

    fn from(peer: Peer, request: &Request) -> Result<Self> {
        Ok(Self {
            peer,
            request: Some(encode_request(request)?),
            inherited: false,
            order: Order::default(),
            links: Links::default(),
            file: None,
            ended: false,
            failed: None,
        })
    }

    fn step(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        if self.inherited {
            self.inherited = false;
            self.peer.begin()?;
        }
        while self.file.is_some() {
            self.skip()?;
        }
        if self.ended {
            return Ok(None);
        }
        loop {
            let message = self.message()?;
            if self.request.is_some() != matches!(message, Message::Hello) {
                return Err(broken(Fault(
                    "its first words are no greeting, or others are",
                )));
            }
            match message {
                Message::Hello => {
                    let request = self.request.take().unwrap_or_default();
                    self.peer.send(&request)?;
                }
                Message::Batch(all) => {
                    let judged = self.order.ask(all, known)?;
                    let mut out = Vec::new();
                    answers(&mut out, judged.into_iter());
                    self.peer.send(&out)?;
                }
                Message::Enter(sent) => return Ok(Some(Step::Enter(self.enter(sent)?))),
                Message::Entry(sent) => return Ok(Some(Step::Entry(self.entry(sent)?))),
                Message::Leave => {
                    self.order.leave().map_err(broken)?;
                    return Ok(Some(Step::Leave));
                }
                Message::Problem(problem) => {
                    self.order.inside().map_err(broken)?;
                    return Ok(Some(Step::Problem(problem)));
                }
                Message::Done => {
                    self.order.all_told().map_err(broken)?;
                    self.ended = true;
                    return Ok(None);
                }
                Message::Hole(_) | Message::End { .. } | Message::Lost(_) => {
                    return Err(broken(Fault("there is content without a file")));
                }
                Message::KeepAlive | Message::Fatal(_) => {}
            }
        }
    }

    /// The next message that says something.
    fn message(&mut self) -> Result<Message> {
        loop {
            let header = self.peer.header()?;
            let payload = self.peer.payload(header.length)?;
            match decode(header.kind, payload).map_err(broken)? {
                Message::KeepAlive => self.peer.only_alive()?,
                Message::Fatal(why) => {
                    let what = format!("the walk through the guest's files failed: {why}");
                    return Err(Error::new(ErrorKind::Source, what));
                }
                message @ (Message::Hello
                | Message::Batch(_)
                | Message::Enter(_)
                | Message::Leave
                | Message::Entry(_)
                | Message::Hole(_)
                | Message::End { .. }
                | Message::Lost(_)
                | Message::Problem(_)
                | Message::Done) => {
                    self.peer.said_something();
                    return Ok(message);
                }
            }
        }
    }

    fn enter(&mut self, sent: Sent) -> Result<Told> {
        if sent.linked {
            return Err(broken(Fault("hard links to a folder are announced")));
        }
        self.order.enter(sent).map_err(broken)
    }

    fn entry(&mut self, sent: Sent) -> Result<Told> {
        let linked = sent.linked;
        let told = self.order.entry(sent).map_err(broken)?;
        let link = match (&told.name, linked) {
            (Some(name), true) => Some(self.links.key(&self.order.path().join(name))),
            _ => None,
        };
        match told.entry.as_ref().map(|entry| &entry.kind) {
            Some(EntryKind::File { size, .. }) => {
                self.file = Some(Reading {
                    position: 0,
                    size: *size,
                    piece_left: 0,
                    link,
                });
                return Ok(told);
            }
            Some(EntryKind::HardLink { to }) if linked || !self.links.has(to) => {
                return Err(broken(Fault("a hard link leads to what was not told")));
            }
            _ => {}
        }
        if let Some(link) = link {
            self.links.add(link).map_err(broken)?;
        }
        Ok(told)
    }

    fn skip(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.content(&mut buffer)? {
                Content::Data(_) | Content::Hole(_) => {}
                Content::End { .. } | Content::Lost(_) => return Ok(()),
            }
        }
    }

    fn content(&mut self, buffer: &mut [u8]) -> Result<Content> {
        let Some(file) = &mut self.file else {
            return Err(no_file());
        };
        while file.piece_left == 0 {
            let header = self.peer.header()?;
            if header.kind == Kind::KeepAlive {
                self.peer.payload(header.length)?;
                self.peer.only_alive()?;
                continue;
            }
            if header.kind != Kind::Data {
                return self.other_content();
            }
            file.advance(u64::try_from(header.length).unwrap_or(u64::MAX))?;
            file.piece_left = header.length;
            self.peer.begin_data();
            self.peer.said_something();
        }
        let most = file.piece_left.min(buffer.len());
        let taken = self.peer.take(&mut buffer[..most])?;
        file.piece_left -= taken;
        Ok(Content::Data(taken))
    }

    /// What comes within a file but data.
    fn other_content(&mut self) -> Result<Content> {
        let message = self.message()?;
        let Some(file) = &mut self.file else {
            return Err(no_file());
        };
        match message {
            Message::Hole(length) => {
                file.advance(length)?;
                Ok(Content::Hole(length))
            }
            Message::End { changed } => {
                if changed.is_none() && file.position < file.size {
                    return Err(broken(Fault(
                        "a file is shorter than announced, without a reason",
                    )));
                }
                if let Some(link) = file.link {
                    self.links.add(link).map_err(broken)?;
                }
                self.file = None;
                Ok(Content::End { changed })
            }
            Message::Lost(why) => {
                self.file = None;
                Ok(Content::Lost(why))
            }
            Message::Hello
            | Message::Batch(_)
            | Message::Enter(_)
            | Message::Leave
            | Message::Entry(_)
            | Message::Problem(_)
            | Message::KeepAlive
            | Message::Done
            | Message::Fatal(_) => Err(broken(Fault("a file has no end"))),
        }
    }
}

impl Reading {
    fn advance(&mut self, bytes: u64) -> Result<()> {
        let end = self.position.checked_add(bytes);
        match end.filter(|end| *end <= self.size) {
            Some(end) => {
                self.position = end;
                Ok(())
            }
            None => Err(broken(Fault("a file is longer than announced"))),
        }
    }
}

impl TreeSource for Pull {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.step(known);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if buffer.is_empty() || self.file.is_none() {
            return Err(no_file());
        }
        let result = self.content(buffer);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").finish_non_exhaustive()
    }
}

/// The walker broke a rule.
fn broken(fault: Fault) -> Error {
    let what = format!(
        "the walk through the guest's files cannot be believed: {}",
        fault.0
    );
    Error::new(ErrorKind::Protocol, what)
}

/// The caller broke a rule.
fn no_file() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "there is no content to read, or no room for it",
    )
}

#[cfg(test)]
mod tests;
