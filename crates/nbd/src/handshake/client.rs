//! The client's side of the handshake.
//!
//! Fixed newstyle with `NBD_OPT_GO`; extended headers, else structured replies, else simple ones.
//! Metadata contexts are chosen before `GO`. What the server lacks is left out where the caller can
//! live without it, and named in the error where not.

use std::mem;

use super::options::{ContextRequest, GoRequest, WANTED_INFO, put_option};
use super::{Agreed, BlockSizes, ExportFacts, Inbox, Machine};
use crate::error::{ErrorKind, Fault};
use crate::limits;
use crate::wire::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Fields, INIT_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC,
    OptionReplyHeader, Style, info, option, option_name, printable, reply, reply_error_name, text,
    transmit,
};

/// What the client is after.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Enter transmission with this export and those of these contexts that it has.
    Go {
        export: String,
        contexts: Vec<String>,
    },
    /// Learn the exports' names and leave.
    List,
}

/// How a handshake ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Transmission(Agreed),
    Listed(Vec<String>),
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct ClientHandshake {
    goal: Goal,
    step: Step,
    inbox: Inbox,
    out: Vec<u8>,
    /// The option that waits for its final reply.
    asked: u32,
    replies: usize,
    style: Style,
    contexts: Vec<(u32, String)>,
    export: Option<(u64, u16)>,
    blocks: BlockSizes,
    listed: Vec<String>,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Magic,
    Version,
    Reply,
    ReplyData(OptionReplyHeader),
}

impl ClientHandshake {
    pub(crate) fn new(goal: Goal) -> Self {
        Self {
            goal,
            step: Step::Magic,
            inbox: Inbox::new(8),
            out: Vec::new(),
            asked: 0,
            replies: 0,
            style: Style::Simple,
            contexts: Vec::new(),
            export: None,
            blocks: BlockSizes::DEFAULT,
            listed: Vec::new(),
            outcome: None,
        }
    }
}

impl Machine for ClientHandshake {
    type Outcome = Outcome;

    fn message(&mut self, message: &[u8]) -> Result<(), Fault> {
        match self.step {
            Step::Magic => {
                if Fields::new(message).u64() != Some(INIT_MAGIC) {
                    return Err(Fault::protocol(
                        "the peer is not an NBD server: its greeting lacks the magic",
                    ));
                }
                self.wait(Step::Version, 10);
                Ok(())
            }
            Step::Version => self.version(message),
            Step::Reply => {
                let header = OptionReplyHeader::decode(message)
                    .ok_or_else(|| Fault::protocol("a reply to an option lacks the magic"))?;
                if header.option != self.asked {
                    return Err(Fault::protocol(format!(
                        "the server answers {} where {} was asked",
                        option_name(header.option),
                        option_name(self.asked)
                    )));
                }
                let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                if length > limits::MAX_OPTION_REPLY_BYTES {
                    return Err(Fault::protocol(format!(
                        "the reply to {} is {length} bytes long, more than {} are not read",
                        option_name(self.asked),
                        limits::MAX_OPTION_REPLY_BYTES
                    )));
                }
                self.wait(Step::ReplyData(header), length);
                Ok(())
            }
            Step::ReplyData(header) => {
                self.wait(Step::Reply, OptionReplyHeader::BYTES);
                self.reply(header, message)
            }
        }
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }
}

impl ClientHandshake {
    fn version(&mut self, message: &[u8]) -> Result<(), Fault> {
        let mut fields = Fields::new(message);
        match fields.u64() {
            Some(OPTION_MAGIC) => {}
            Some(OLDSTYLE_MAGIC) => {
                return Err(Fault::new(
                    ErrorKind::Unsupported,
                    "the server speaks only the oldstyle handshake",
                ));
            }
            _ => {
                return Err(Fault::protocol(
                    "the server's handshake is of no known version",
                ));
            }
        }
        let flags = fields.u16().unwrap_or(0);
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                "the server does not speak the fixed newstyle handshake",
            ));
        }
        let ours = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        self.out.extend_from_slice(&u32::from(ours).to_be_bytes());
        match self.goal {
            Goal::Go { .. } => self.ask(option::EXTENDED_HEADERS, &[]),
            Goal::List => self.ask(option::LIST, &[]),
        }
        Ok(())
    }

    fn reply(&mut self, header: OptionReplyHeader, data: &[u8]) -> Result<(), Fault> {
        self.replies += 1;
        let most = if self.asked == option::LIST {
            limits::MAX_EXPORTS_LISTED
        } else {
            limits::MAX_OPTION_REPLIES
        };
        if self.replies > most + 1 {
            return Err(Fault::protocol(format!(
                "more than {most} replies to {}",
                option_name(self.asked)
            )));
        }
        if header.reply & reply::ERROR_BIT != 0 {
            let result = self.refused(header.reply, data);
            if result.is_err() {
                // proto.md: a client that does not want to go on says so.
                put_option(option::ABORT, &[], &mut self.out);
            }
            return result;
        }
        match (self.asked, header.reply) {
            (_, reply::ACK) if data.is_empty() => self.accepted(),
            (option::SET_META_CONTEXT, reply::META_CONTEXT) => self.context(data),
            (option::GO, reply::INFO) => self.info(data),
            (option::LIST, reply::SERVER) => {
                let name = Fields::new(data).counted().and_then(text);
                self.listed.push(name.ok_or_else(|| {
                    Fault::protocol("the name of an export in the list is malformed")
                })?);
                Ok(())
            }
            (_, other) => Err(Fault::protocol(format!(
                "a reply of type {other} does not fit {}",
                option_name(self.asked)
            ))),
        }
    }

    fn accepted(&mut self) -> Result<(), Fault> {
        match self.asked {
            option::EXTENDED_HEADERS => {
                self.style = Style::Extended;
                self.ask_contexts();
            }
            option::STRUCTURED_REPLY => {
                self.style = Style::Structured;
                self.ask_contexts();
            }
            option::SET_META_CONTEXT => self.ask_go(),
            option::GO => {
                let (size, flags) = self.export.ok_or_else(|| {
                    Fault::protocol("the server accepts the export without saying its size")
                })?;
                if flags & transmit::HAS_FLAGS == 0 {
                    return Err(Fault::protocol(format!(
                        "the export's transmission flags {flags:#x} make no sense"
                    )));
                }
                let facts = ExportFacts {
                    size,
                    flags,
                    blocks: self.blocks,
                };
                let minimum = u64::from(facts.blocks.minimum);
                if !size.is_multiple_of(minimum) {
                    return Err(Fault::protocol(format!(
                        "the end of the export cannot be read: its {size} bytes are no multiple of the server's minimum block of {minimum}"
                    )));
                }
                let contexts = mem::take(&mut self.contexts);
                self.finish(Outcome::Transmission(Agreed {
                    style: self.style,
                    facts,
                    contexts,
                }));
            }
            option::LIST => {
                // The server's answer to this one is not waited for: proto.md lets it just close.
                put_option(option::ABORT, &[], &mut self.out);
                let listed = mem::take(&mut self.listed);
                self.finish(Outcome::Listed(listed));
            }
            other => {
                return Err(Fault::protocol(format!(
                    "{} was never asked",
                    option_name(other)
                )));
            }
        }
        Ok(())
    }

    fn refused(&mut self, reply: u32, data: &[u8]) -> Result<(), Fault> {
        let message = printable(data);
        let said = if message.is_empty() {
            String::new()
        } else {
            format!(" (the server says: {message})")
        };
        let asked = option_name(self.asked);
        let fault = |kind, what: String| Err(Fault::new(kind, format!("{what}{said}")));
        match (self.asked, reply) {
            (_, reply::ERR_TLS_REQD) => {
                fault(ErrorKind::Unsupported, "the server requires TLS".to_owned())
            }
            (_, reply::ERR_SHUTDOWN) => fault(
                ErrorKind::Unavailable,
                "the server is shutting down".to_owned(),
            ),
            (option::GO | option::SET_META_CONTEXT, reply::ERR_UNKNOWN) => fault(
                ErrorKind::NotFound,
                "the server has no such export".to_owned(),
            ),
            (option::EXTENDED_HEADERS, _) => {
                self.ask(option::STRUCTURED_REPLY, &[]);
                Ok(())
            }
            (option::STRUCTURED_REPLY, _) => {
                self.ask_go();
                Ok(())
            }
            (option::SET_META_CONTEXT, _) => {
                // proto.md: after an error, replies that came before it do not count.
                self.contexts.clear();
                self.ask_go();
                Ok(())
            }
            (option::GO, reply::ERR_UNSUP) => fault(
                ErrorKind::Unsupported,
                "the server does not know NBD_OPT_GO".to_owned(),
            ),
            (option::GO, reply::ERR_POLICY) => fault(
                ErrorKind::Unsupported,
                "the server's policy forbids the export".to_owned(),
            ),
            (_, other) => fault(
                ErrorKind::Unsupported,
                format!(
                    "the server refuses {asked} with {}",
                    reply_error_name(other)
                ),
            ),
        }
    }

    fn context(&mut self, data: &[u8]) -> Result<(), Fault> {
        let mut fields = Fields::new(data);
        let parsed = fields.u32().and_then(|id| Some((id, text(fields.rest())?)));
        let (id, name) =
            parsed.ok_or_else(|| Fault::protocol("a metadata context in a reply is malformed"))?;
        let asked = matches!(&self.goal, Goal::Go { contexts, .. } if contexts.contains(&name));
        if !asked {
            return Err(Fault::protocol(format!(
                "the server chose the metadata context {name:?}, which was not asked"
            )));
        }
        if self
            .contexts
            .iter()
            .any(|(other, known)| *other == id || *known == name)
        {
            return Err(Fault::protocol(format!(
                "the metadata context {name:?} or its number {id} comes twice"
            )));
        }
        self.contexts.push((id, name));
        Ok(())
    }

    fn info(&mut self, data: &[u8]) -> Result<(), Fault> {
        let broken = || {
            Fault::protocol(format!(
                "an information reply of {} bytes is malformed",
                data.len()
            ))
        };
        let mut fields = Fields::new(data);
        match fields.u16().ok_or_else(broken)? {
            info::EXPORT => {
                let export = (
                    fields.u64().ok_or_else(broken)?,
                    fields.u16().ok_or_else(broken)?,
                );
                if self
                    .export
                    .replace(export)
                    .is_some_and(|known| known != export)
                {
                    return Err(Fault::protocol(
                        "the server describes the export twice, each time differently",
                    ));
                }
            }
            info::BLOCK_SIZE => {
                let mut size = || fields.u32().ok_or_else(broken);
                self.blocks = BlockSizes {
                    minimum: size()?,
                    preferred: size()?,
                    maximum: size()?,
                }
                .check()?;
            }
            // proto.md: information that the client does not understand is to be ignored.
            _ => return Ok(()),
        }
        if fields.is_empty() {
            Ok(())
        } else {
            Err(broken())
        }
    }

    fn ask_contexts(&mut self) {
        let request = match &self.goal {
            Goal::Go { export, contexts } if !contexts.is_empty() => ContextRequest {
                export: export.clone(),
                queries: contexts.clone(),
            },
            Goal::Go { .. } | Goal::List => return self.ask_go(),
        };
        self.ask(option::SET_META_CONTEXT, &request.encode());
    }

    fn ask_go(&mut self) {
        let Goal::Go { export, .. } = &self.goal else {
            return;
        };
        let request = GoRequest {
            export: export.clone(),
            infos: WANTED_INFO.to_vec(),
        };
        self.ask(option::GO, &request.encode());
    }

    fn ask(&mut self, option: u32, data: &[u8]) {
        put_option(option, data, &mut self.out);
        self.asked = option;
        self.replies = 0;
        self.wait(Step::Reply, OptionReplyHeader::BYTES);
    }

    fn wait(&mut self, step: Step, need: usize) {
        self.step = step;
        self.inbox.wait(need);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.inbox.close();
        self.outcome = Some(outcome);
    }
}
