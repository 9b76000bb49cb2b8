//! The conversation with the driver: one call at a time, each of which ends in time.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use snapkeep_api::{DirtyRegions, Error, ErrorKind, Result};

use super::broken;
use super::process::Process;
use super::value::{decode, encode, shown};
use crate::limits;

/// The dirty regions of a call's devices, which the driver asks for one by one.
pub(crate) type Regions = BTreeMap<String, DirtyRegions>;

/// A process that calls a class.
#[derive(Debug)]
pub(crate) struct Driver {
    process: Process,
    socket: UnixStream,
    received: Vec<u8>,
    patience: Duration,
    /// Why nothing can be called any more.
    over: Option<Error>,
}

impl Driver {
    /// Starts it.
    pub(crate) fn start(mut command: Command, patience: Duration) -> Result<Self> {
        let failed = |e: io::Error| {
            let what = "the process for the class cannot be started";
            Error::with_source(ErrorKind::Unavailable, what, e)
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_write_timeout(Some(patience)).map_err(failed)?;
        command.stdin(OwnedFd::from(theirs));
        Ok(Self {
            process: Process::start(command).map_err(failed)?,
            socket: ours,
            received: Vec::new(),
            patience,
            over: None,
        })
    }

    /// What the driver answers; the class's error if that died. `what` names the call.
    pub(crate) fn ask(
        &mut self,
        what: &str,
        request: &Json,
        regions: &mut Regions,
    ) -> Result<std::result::Result<Json, String>> {
        if let Some(over) = &self.over {
            return Err(over.clone());
        }
        let asked = self.conversation(what, request, regions);
        if let Err(error) = &asked {
            self.over = Some(error.clone());
            self.process.kill();
        }
        asked
    }

    fn conversation(
        &mut self,
        what: &str,
        request: &Json,
        regions: &mut Regions,
    ) -> Result<std::result::Result<Json, String>> {
        let deadline = Instant::now() + self.patience;
        self.send(what, request)?;
        for _ in 0..limits::MESSAGES_MAX {
            let line = self.line(what, deadline)?;
            let message: Json = serde_json::from_slice(&line).map_err(|e| {
                Error::with_source(ErrorKind::Protocol, "the driver told no JSON", e)
            })?;
            if let Some(device) = message.get("region") {
                let device = decode(device)?;
                let list = regions.get_mut(&*String::from_utf8_lossy(&device));
                let list = list.ok_or_else(|| broken("there is no such list of regions"))?;
                let answer = match list.next() {
                    None => json!({}),
                    Some(Ok(region)) => json!({"offset": region.offset().to_string(),
                                               "length": region.length().to_string()}),
                    Some(Err(error)) => json!({"error": encode(error.chain())}),
                };
                self.send(what, &answer)?;
            } else if let Some(error) = message.get("error") {
                return Ok(Err(shown(&decode(error)?)));
            } else if let Some(result) = message.get("result") {
                return Ok(Ok(result.clone()));
            } else if message.get("log").is_none() {
                return Err(broken("the driver told what is nothing"));
            }
        }
        Err(broken(format!("{what} logged and read on without an end")))
    }

    fn send(&mut self, what: &str, message: &Json) -> Result<()> {
        let line = format!("{message}\n");
        match self.socket.write_all(line.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(self.late(what)),
            Err(_) => Err(self.ended(what)),
            Ok(()) => Ok(()),
        }
    }

    fn line(&mut self, what: &str, deadline: Instant) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let newline = (self.received.iter().skip(searched)).position(|byte| *byte == b'\n');
            if let Some(newline) = newline {
                let rest = self.received.split_off(searched + newline + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            if searched > limits::MESSAGE_BYTES_MAX {
                return Err(broken(format!("{what} returned too much")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.late(what));
            }
            let mut buffer = vec![0; limits::RECEIVE_BYTES];
            let received = (self.socket.set_read_timeout(Some(left)))
                .and_then(|()| self.socket.read(&mut buffer));
            match received {
                Ok(0) => return Err(self.ended(what)),
                Ok(count) => self.received.extend(buffer.iter().take(count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(self.late(what)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.ended(what)),
            }
        }
    }

    fn late(&self, what: &str) -> Error {
        let seconds = self.patience.as_secs();
        broken(format!("{what} did not return within {seconds} s"))
    }

    /// The driver is gone: how, and its last words.
    fn ended(&mut self, what: &str) -> Error {
        let how = match self.process.wait(limits::END) {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it closed its socket and did not end".to_owned(),
            Err(error) => error.to_string(),
        };
        let words = self.process.last_words();
        let words = if words.is_empty() {
            "it wrote nothing".to_owned()
        } else {
            format!("it wrote: {words}")
        };
        broken(format!(
            "the process of the class ended in {what} ({how}); {words}"
        ))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.over.is_some() {
            return;
        }
        // The end of the conversation: the objects of the class go with their process.
        self.socket.shutdown(std::net::Shutdown::Both).ok();
        self.process.wait(limits::END).ok();
        self.process.kill();
    }
}
