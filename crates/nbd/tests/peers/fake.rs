//! A server that does as a test says: honest in everything the test does not bend.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use snapkeep_nbd::{Address, BASE_ALLOCATION, Client, ClientOptions, Result};
use tempfile::TempDir;

use crate::raw::{self, Request, Style, bytes};

/// Bytes of the export, unless a test says otherwise.
pub(crate) const SIZE: u64 = 1 << 20;

/// Has flags, flush, trim, write zeroes.
pub(crate) const FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6;
pub(crate) const READ_ONLY: u16 = 1 << 1;
pub(crate) const MULTI_CONN: u16 = 1 << 8;

/// What the server sends for a request, of which connection (from 0). `None` ends the connection.
pub(crate) type Answer = Arc<dyn Fn(Style, &Request, usize) -> Option<Vec<u8>> + Send + Sync>;
/// What the server sends for an option instead of the honest reply. `None` for the honest one.
pub(crate) type Haggle = Arc<dyn Fn(u32, usize) -> Option<Vec<u8>> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) style: Style,
    pub(crate) size: u64,
    pub(crate) flags: u16,
    pub(crate) blocks: [u32; 3],
    pub(crate) contexts: Vec<&'static str>,
    pub(crate) greeting: Vec<u8>,
    pub(crate) haggle: Haggle,
    pub(crate) answer: Answer,
    /// Bytes after which each connection is closed, or falls silent.
    pub(crate) cut: usize,
    pub(crate) silent: bool,
    /// Sends byte by byte.
    pub(crate) dribble: bool,
    /// Connections that are closed as they come: from this one on.
    pub(crate) most: usize,
}

impl Plan {
    pub(crate) fn honest(style: Style) -> Self {
        Self {
            style,
            size: SIZE,
            flags: FLAGS | MULTI_CONN,
            blocks: [1, 4096, 32 << 20],
            contexts: vec![BASE_ALLOCATION],
            greeting: raw::greeting(3),
            haggle: Arc::new(|_, _| None),
            answer: Arc::new(|style, asked, _| Some(honest(style, asked))),
            cut: usize::MAX,
            silent: false,
            dribble: false,
            most: usize::MAX,
        }
    }

    /// With another answer to every request of one kind.
    pub(crate) fn answering(
        style: Style,
        command: u16,
        lie: impl Fn(Style, &Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let answer = move |style, asked: &Request, _| {
            Some(if asked.command == command {
                lie(style, asked)
            } else {
                honest(style, asked)
            })
        };
        Self {
            answer: Arc::new(answer),
            ..Self::honest(style)
        }
    }

    /// With another reply to one option.
    pub(crate) fn haggling(style: Style, option: u32, reply: Vec<u8>) -> Self {
        Self {
            haggle: Arc::new(move |asked, _| (asked == option).then(|| reply.clone())),
            ..Self::honest(style)
        }
    }
}

/// The byte of the disk at an offset.
pub(crate) fn byte(offset: u64) -> u8 {
    u8::try_from(offset.wrapping_mul(31) % 251).unwrap() | 1
}

pub(crate) fn disk(offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(byte).collect()
}

pub(crate) fn honest(style: Style, asked: &Request) -> Vec<u8> {
    match asked.command {
        raw::READ if style == Style::Simple => {
            bytes![
                raw::simple_reply(0, asked.cookie),
                disk(asked.offset, asked.length)
            ]
        }
        raw::READ => {
            let payload = bytes![asked.offset, disk(asked.offset, asked.length)];
            raw::chunk(style, asked, true, raw::DATA, &payload)
        }
        raw::BLOCK_STATUS => raw::status(style, asked, true, 0, &[(asked.length, 0)]),
        _ if style == Style::Extended => raw::chunk(style, asked, true, raw::NONE, &[]),
        _ => raw::simple_reply(0, asked.cookie),
    }
}

/// The server, until it is dropped.
pub(crate) struct Fake {
    pub(crate) address: Address,
    folder: TempDir,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    /// Most bytes that one connection was sent.
    sent: AtomicUsize,
    options: Mutex<Vec<u32>>,
    requests: Mutex<Vec<Request>>,
    streams: Mutex<Vec<UnixStream>>,
    /// Of connections that are over.
    over: (Mutex<usize>, std::sync::Condvar),
}

impl Fake {
    pub(crate) fn start(plan: Plan) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("fake");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                if number >= plan.most {
                    continue;
                }
                shared
                    .streams
                    .lock()
                    .unwrap()
                    .push(stream.try_clone().unwrap());
                let (plan, shared) = (plan.clone(), Arc::clone(&shared));
                thread::spawn(move || {
                    let mut wire = Wire {
                        stream,
                        plan: &plan,
                        state: &shared,
                        sent: 0,
                    };
                    // It fails when the client leaves or the plan says so.
                    wire.session(number).ok();
                    wire.stream.shutdown(Shutdown::Both).ok();
                    *shared.over.0.lock().unwrap() += 1;
                    shared.over.1.notify_all();
                });
            }
        });
        Self {
            address: Address::Unix(path),
            folder,
            state,
        }
    }

    /// Options that clients have sent.
    pub(crate) fn options(&self) -> Vec<u32> {
        self.state.options.lock().unwrap().clone()
    }

    /// Requests that clients have sent.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The most bytes it has sent on one connection.
    pub(crate) fn sent(&self) -> usize {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Waits until so many connections are over.
    pub(crate) fn wait_for_ends(&self, count: usize) {
        let (over, changed) = &self.state.over;
        let over = over.lock().unwrap();
        drop(changed.wait_while(over, |over| *over < count).unwrap());
    }

    pub(crate) fn connect(&self, connections: usize, contexts: &[&str]) -> Result<Client> {
        self.connect_within(Duration::from_secs(60), connections, contexts)
    }

    pub(crate) fn connect_within(
        &self,
        timeout: Duration,
        connections: usize,
        contexts: &[&str],
    ) -> Result<Client> {
        let options = ClientOptions {
            export: "disk".to_owned(),
            contexts: contexts.iter().map(|&name| name.to_owned()).collect(),
            connections,
            timeout,
        };
        Client::connect(&self.address, &options)
    }

    /// That an error says where it happened.
    #[track_caller]
    pub(crate) fn names_export_and_address(&self, text: &str) {
        let folder = self.folder.path().to_str().unwrap();
        assert!(
            text.contains("\"disk\"") && text.contains(folder),
            "{text:?} does not name export and address"
        );
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        for stream in self.state.streams.lock().unwrap().iter() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

struct Wire<'a> {
    stream: UnixStream,
    plan: &'a Plan,
    state: &'a State,
    sent: usize,
}

impl Wire<'_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.plan.cut - self.sent;
        let now = &bytes[..bytes.len().min(left)];
        let step = if self.plan.dribble {
            1
        } else {
            now.len().max(1)
        };
        for part in now.chunks(step) {
            io::Write::write_all(&mut self.stream, part)?;
        }
        self.sent += now.len();
        self.state.sent.fetch_max(self.sent, Ordering::SeqCst);
        if now.len() == bytes.len() {
            return Ok(());
        }
        if self.plan.silent {
            // Until the client leaves.
            io::copy(&mut self.stream, &mut io::sink())?;
        }
        Err(io::ErrorKind::Other.into())
    }

    fn session(&mut self, number: usize) -> io::Result<()> {
        self.send(&self.plan.greeting.clone())?;
        self.stream.read_exact(&mut [0; 4])?;
        while !self.option(number)? {}
        loop {
            let asked = raw::read_request(&mut self.stream, self.plan.style)?;
            self.state.requests.lock().unwrap().push(asked.clone());
            if asked.command == raw::DISC {
                return Ok(());
            }
            let answer = (self.plan.answer)(self.plan.style, &asked, number);
            self.send(&answer.ok_or(io::ErrorKind::Other)?)?;
        }
    }

    /// Answers one option; returns whether transmission begins.
    fn option(&mut self, number: usize) -> io::Result<bool> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        assert_eq!(raw::number(&header[..8]), raw::OPTION_MAGIC);
        let option = u32::try_from(raw::number(&header[8..12])).unwrap();
        let mut data = vec![0; usize::try_from(raw::number(&header[12..])).unwrap()];
        self.stream.read_exact(&mut data)?;
        self.state.options.lock().unwrap().push(option);
        if let Some(reply) = (self.plan.haggle)(option, number) {
            self.send(&reply)?;
            return Ok(false);
        }
        let plan = self.plan;
        let known = match option {
            raw::EXTENDED_HEADERS => plan.style == Style::Extended,
            raw::STRUCTURED_REPLY => plan.style == Style::Structured,
            raw::SET_META_CONTEXT => plan.style != Style::Simple,
            raw::GO | raw::ABORT | raw::LIST => true,
            _ => false,
        };
        let mut out = Vec::new();
        match option {
            raw::SET_META_CONTEXT if known => {
                for (name, number) in plan.contexts.iter().zip(0_u32..) {
                    let asked = data.windows(name.len()).any(|part| part == name.as_bytes());
                    if asked {
                        let data = bytes![number, *name];
                        out.extend(raw::option_reply(option, raw::REP_CONTEXT, &data));
                    }
                }
            }
            raw::GO => out.extend(describe(plan)),
            raw::LIST => {
                let data = raw::counted("disk");
                out.extend(raw::option_reply(option, raw::REP_SERVER, &data));
            }
            _ => {}
        }
        let kind = if known { raw::REP_ACK } else { raw::ERR_UNSUP };
        out.extend(raw::option_reply(option, kind, &[]));
        self.send(&out)?;
        if option == raw::ABORT {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(option == raw::GO)
    }
}

/// What `GO` is answered before the end.
pub(crate) fn describe(plan: &Plan) -> Vec<u8> {
    let mut out = info_export(plan.size, plan.flags);
    let [minimum, preferred, maximum] = plan.blocks;
    let data = bytes![3_u16, minimum, preferred, maximum];
    out.extend(raw::option_reply(raw::GO, raw::REP_INFO, &data));
    out
}

pub(crate) fn info_export(size: u64, flags: u16) -> Vec<u8> {
    raw::option_reply(raw::GO, raw::REP_INFO, &bytes![0_u16, size, flags])
}
