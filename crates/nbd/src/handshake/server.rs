//! The server's side of the handshake.
//!
//! Fixed newstyle: `EXPORT_NAME` for old clients, `GO` and `INFO`, `LIST`, structured replies,
//! extended headers, metadata contexts, `ABORT`. TLS is refused, unknown options are answered as
//! such. An `Err` means that the connection is to be closed without another word.

use std::collections::BTreeMap;
use std::mem;

use super::options::{ContextRequest, GoRequest, put_info, put_reply};
use super::{Agreed, ExportFacts, Inbox, Machine};
use crate::error::Fault;
use crate::limits;
use crate::wire::{
    EXPORT_NAME_PADDING, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Fields, INIT_MAGIC, OPTION_MAGIC,
    OptionHeader, Style, info, option, option_name, put_counted, reply, text, transmit,
};

/// What a client may learn of an export before it has it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) facts: ExportFacts,
    /// Metadata contexts by their full names; a context's number is its place.
    pub(crate) contexts: Vec<String>,
}

/// How a handshake ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Transmission {
        export: String,
        agreed: Agreed,
    },
    /// The client said good-bye.
    Left,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct ServerHandshake {
    offers: BTreeMap<String, Offer>,
    step: Step,
    inbox: Inbox,
    out: Vec<u8>,
    no_zeroes: bool,
    options: usize,
    style: Style,
    /// The export that contexts were chosen for, and their numbers.
    chosen: Option<(String, Vec<u32>)>,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    ClientFlags,
    Option,
    OptionData(u32),
}

impl ServerHandshake {
    pub(crate) fn new(offers: BTreeMap<String, Offer>) -> Self {
        let mut out = Vec::new();
        out.extend_from_slice(&INIT_MAGIC.to_be_bytes());
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        Self {
            offers,
            step: Step::ClientFlags,
            inbox: Inbox::new(4),
            out,
            no_zeroes: false,
            options: 0,
            style: Style::Simple,
            chosen: None,
            outcome: None,
        }
    }
}

impl Machine for ServerHandshake {
    type Outcome = Outcome;

    fn message(&mut self, message: &[u8]) -> Result<(), Fault> {
        match self.step {
            Step::ClientFlags => {
                let flags = Fields::new(message).u32().unwrap_or(u32::MAX);
                if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
                    return Err(Fault::protocol(format!(
                        "the client's flags {flags:#x} are unknown"
                    )));
                }
                self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
                self.wait(Step::Option, OptionHeader::BYTES);
                Ok(())
            }
            Step::Option => {
                let OptionHeader { option, length } = OptionHeader::decode(message)
                    .ok_or_else(|| Fault::protocol("the client's option lacks the magic"))?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > limits::MAX_OPTION_BYTES {
                    let name = option_name(option);
                    return Err(Fault::protocol(format!(
                        "the client sends {length} bytes with {name}"
                    )));
                }
                self.options += 1;
                if self.options > limits::MAX_OPTIONS {
                    return Err(Fault::protocol("the client sends options without end"));
                }
                self.wait(Step::OptionData(option), length);
                Ok(())
            }
            Step::OptionData(option) => {
                self.wait(Step::Option, OptionHeader::BYTES);
                self.option(option, message)
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

impl ServerHandshake {
    fn option(&mut self, option: u32, data: &[u8]) -> Result<(), Fault> {
        match option {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.reply(option, reply::ACK);
                self.finish(Outcome::Left);
            }
            option::LIST
            | option::STARTTLS
            | option::STRUCTURED_REPLY
            | option::EXTENDED_HEADERS
                if !data.is_empty() =>
            {
                self.refuse(option, reply::ERR_INVALID, "this option carries no data");
            }
            option::LIST => {
                for name in self.offers.keys() {
                    let mut data = Vec::new();
                    put_counted(name, &mut data);
                    put_reply(option, reply::SERVER, &data, &mut self.out);
                }
                self.reply(option, reply::ACK);
            }
            option::STARTTLS => self.refuse(option, reply::ERR_POLICY, "TLS is not spoken here"),
            option::STRUCTURED_REPLY if self.style == Style::Extended => {
                self.refuse(
                    option,
                    reply::ERR_EXT_HEADER_REQD,
                    "extended headers are in use already",
                );
            }
            option::STRUCTURED_REPLY => {
                self.style = Style::Structured;
                self.reply(option, reply::ACK);
            }
            option::EXTENDED_HEADERS => {
                self.style = Style::Extended;
                self.reply(option, reply::ACK);
            }
            option::INFO | option::GO => self.go(option, data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, data),
            _ => self.refuse(option, reply::ERR_UNSUP, "this option is unknown"),
        }
        Ok(())
    }

    fn export_name(&mut self, data: &[u8]) -> Result<(), Fault> {
        // There is no way to send an error to this option.
        if self.style == Style::Extended {
            return Err(Fault::protocol(
                "the client mixes NBD_OPT_EXPORT_NAME with extended headers",
            ));
        }
        let name = text(data).filter(|name| self.offers.contains_key(name));
        let name = name.ok_or_else(|| {
            Fault::protocol("the client asks for an unknown export by its name alone")
        })?;
        let agreed = self
            .agree(&name)
            .ok_or_else(|| Fault::protocol("the export is gone"))?;
        self.out.extend_from_slice(&agreed.facts.size.to_be_bytes());
        self.out
            .extend_from_slice(&agreed.facts.flags.to_be_bytes());
        if !self.no_zeroes {
            self.out.extend_from_slice(&[0; EXPORT_NAME_PADDING]);
        }
        self.finish(Outcome::Transmission {
            export: name,
            agreed,
        });
        Ok(())
    }

    fn go(&mut self, option: u32, data: &[u8]) {
        let Some(GoRequest { export, infos }) = GoRequest::decode(data) else {
            return self.refuse(option, reply::ERR_INVALID, "the request is malformed");
        };
        let Some(agreed) = self.agree(&export) else {
            return self.refuse(option, reply::ERR_UNKNOWN, "there is no such export");
        };
        let ExportFacts {
            size,
            flags,
            blocks,
        } = agreed.facts;
        let mut data = size.to_be_bytes().to_vec();
        data.extend_from_slice(&flags.to_be_bytes());
        put_info(option, info::EXPORT, &data, &mut self.out);
        if infos.contains(&info::NAME) {
            put_info(option, info::NAME, export.as_bytes(), &mut self.out);
        }
        let sizes = [blocks.minimum, blocks.preferred, blocks.maximum];
        let data: Vec<u8> = sizes.into_iter().flat_map(u32::to_be_bytes).collect();
        put_info(option, info::BLOCK_SIZE, &data, &mut self.out);
        self.reply(option, reply::ACK);
        if option == option::GO {
            self.finish(Outcome::Transmission { export, agreed });
        }
    }

    fn contexts(&mut self, option: u32, data: &[u8]) {
        let setting = option == option::SET_META_CONTEXT;
        if setting {
            // proto.md: earlier choices are void even if this one fails.
            self.chosen = None;
        }
        if self.style == Style::Simple {
            return self.refuse(option, reply::ERR_INVALID, "structured replies come first");
        }
        let Some(ContextRequest { export, queries }) = ContextRequest::decode(data) else {
            return self.refuse(option, reply::ERR_INVALID, "the request is malformed");
        };
        if queries.iter().any(|query| !query.contains(':')) {
            return self.refuse(option, reply::ERR_INVALID, "a query has no namespace");
        }
        let Some(offer) = self.offers.get(&export) else {
            return self.refuse(option, reply::ERR_UNKNOWN, "there is no such export");
        };
        let matches = |context: &str| {
            let exact = queries.iter().any(|query| query == context);
            // A query that ends in its colon stands for all below it, in a list only.
            let wild = || {
                queries
                    .iter()
                    .any(|query| query.ends_with(':') && context.starts_with(query.as_str()))
            };
            exact || (!setting && (queries.is_empty() || wild()))
        };
        let mut chosen = Vec::new();
        for (context, number) in offer.contexts.iter().zip(0_u32..) {
            if matches(context) {
                let mut data = if setting { number } else { 0 }.to_be_bytes().to_vec();
                data.extend_from_slice(context.as_bytes());
                put_reply(option, reply::META_CONTEXT, &data, &mut self.out);
                chosen.push(number);
            }
        }
        self.reply(option, reply::ACK);
        if setting {
            self.chosen = Some((export, chosen));
        }
    }

    /// What a client gets that chooses this export now.
    fn agree(&self, export: &str) -> Option<Agreed> {
        let offer = self.offers.get(export)?;
        let mut facts = offer.facts;
        if self.style != Style::Simple {
            facts.flags |= transmit::SEND_DF;
        }
        let contexts = match &self.chosen {
            Some((chosen_for, numbers)) if chosen_for == export => {
                let named = offer
                    .contexts
                    .iter()
                    .zip(0_u32..)
                    .map(|(name, number)| (number, name.clone()));
                named
                    .filter(|(number, _)| numbers.contains(number))
                    .collect()
            }
            Some(_) | None => Vec::new(),
        };
        Some(Agreed {
            style: self.style,
            facts,
            contexts,
        })
    }

    fn reply(&mut self, option: u32, kind: u32) {
        put_reply(option, kind, &[], &mut self.out);
    }

    fn refuse(&mut self, option: u32, error: u32, message: &str) {
        put_reply(option, error, message.as_bytes(), &mut self.out);
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
