//! A proxy before the server that does to requests and replies what networks, servers and people
//! do: it speaks plain HTTP, a connection for each request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::sign::Unsigned;

/// How long a reply is held back if nobody gives it up.
const HOLD: Duration = Duration::from_secs(40);
/// What the log says of a reply that nobody gave up.
pub(crate) const HELD: &str = "held to the end";
/// The most bytes of one message.
const MESSAGE_MAX: u64 = 128 << 20;

/// A request or a reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    fn read(stream: &TcpStream, of_head: bool) -> Option<Self> {
        let mut reader = BufReader::new(stream).take(MESSAGE_MAX);
        let mut line = String::new();
        let mut message = Self::default();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        line.trim_end().clone_into(&mut message.line);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            message
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        if of_head {
            return Some(message);
        }
        if message.header("expect").is_some() {
            (&mut &*stream)
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .ok()?;
        }
        if message.header("transfer-encoding").is_some() {
            read_pieces(&mut reader, &mut message.body)?;
            message.set("Transfer-Encoding", "");
            message.set("Content-Length", &message.body.len().to_string());
            return Some(message);
        }
        match message
            .header("content-length")
            .and_then(|length| length.parse().ok())
        {
            Some(length) => {
                reader
                    .by_ref()
                    .take(length)
                    .read_to_end(&mut message.body)
                    .ok()?;
            }
            None if message.line.starts_with("HTTP/") => {
                reader.read_to_end(&mut message.body).ok()?;
            }
            None => {}
        }
        Some(message)
    }

    fn head(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// The body of a message that comes in pieces, each with its length before it.
fn read_pieces(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let length = u64::from_str_radix(line.trim_end(), 16).ok()?;
        let read = reader.by_ref().take(length).read_to_end(body).ok()?;
        reader.read_line(&mut String::new()).ok()?;
        if length == 0 || read as u64 != length {
            return (read as u64 == length).then_some(());
        }
    }
}

/// Signs a request that was changed: servers look.
fn sign_again(request: &mut Message) {
    let access = request.header("authorization").and_then(|value| {
        let (_, after) = value.split_once("Credential=")?;
        Some(after.split_once('/')?.0.to_owned())
    });
    let (Some(access), Some(date), Some(payload)) = (
        access,
        request.header("x-amz-date").map(str::to_owned),
        request.header("x-amz-content-sha256").map(str::to_owned),
    ) else {
        return;
    };
    let signed = |name: &str| name == "host" || name.starts_with("x-amz-");
    let mut words = request.line.split(' ');
    let unsigned = Unsigned {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers: (request.headers.iter())
            .filter(|(name, _)| signed(&name.to_ascii_lowercase()))
            .cloned()
            .collect(),
        payload: &payload,
        date: &date,
        access: &access,
    };
    let authorization = unsigned.authorization();
    request.set("Authorization", &authorization);
}

type Edit = Arc<dyn Fn(&mut Message) + Send + Sync>;

/// What is done to one request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The server never sees the request: the connection is closed.
    Refuse,
    /// The server acts, and nobody hears of it.
    LoseReply,
    /// After so many bytes of the reply's body the connection is closed.
    Cut(usize),
    /// After so many bytes of the reply's body, or without any of the reply, nothing comes any more.
    Hold(Option<usize>),
    /// The server does not see it; this status, code and words are the answer.
    Answer(u16, &'static str, &'static str),
    /// The server does not see it; a page for people is the answer, with the status of success.
    Page,
    /// The server sees another request.
    Request(Edit),
    /// Another reply comes.
    Reply(Edit),
    /// Both.
    Both(Edit, Edit),
}

impl Fault {
    pub(crate) fn request(edit: impl Fn(&mut Message) + Send + Sync + 'static) -> Self {
        Self::Request(Arc::new(edit))
    }

    pub(crate) fn reply(edit: impl Fn(&mut Message) + Send + Sync + 'static) -> Self {
        Self::Reply(Arc::new(edit))
    }
}

struct Rule {
    method: &'static str,
    part: &'static str,
    /// How often it still applies.
    times: u64,
    fault: Fault,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: Vec<String>,
}

/// A running proxy; ends when dropped.
pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

/// It always applies.
pub(crate) const ALWAYS: u64 = u64::MAX;

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    pub(crate) fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, server) = (Arc::clone(&state), server.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if Arc::strong_count(&shared) == 1 {
                    return;
                }
                let (shared, server) = (Arc::clone(&shared), server.clone());
                thread::spawn(move || serve(&client, &server, &shared));
            }
        });
        Self { address, state }
    }

    /// The next so many requests with this method whose line has this part are treated so.
    pub(crate) fn add(&self, method: &'static str, part: &'static str, times: u64, fault: Fault) {
        let rule = Rule {
            method,
            part,
            times,
            fault,
        };
        lock(&self.state).rules.push(rule);
    }

    /// The same before all that was added.
    pub(crate) fn add_first(
        &self,
        method: &'static str,
        part: &'static str,
        times: u64,
        fault: Fault,
    ) {
        self.add(method, part, times, fault);
        lock(&self.state).rules.rotate_right(1);
    }

    /// No fault any more.
    pub(crate) fn heal(&self) {
        lock(&self.state).rules.clear();
    }

    /// The lines of the requests since this was last asked.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).log)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The listening thread looks once more whether it is wanted.
        let state = std::mem::take(&mut self.state);
        drop(state);
        TcpStream::connect(&self.address).ok();
    }
}

fn serve(client: &TcpStream, server: &str, state: &Mutex<State>) {
    client.set_nodelay(true).ok();
    // One request for each connection: the reply says so.
    let Some(mut request) = Message::read(client, false) else {
        return;
    };
    let fault = {
        let mut state = lock(state);
        state.log.push(request.line.clone());
        let found = state.rules.iter_mut().find(|rule| {
            rule.times > 0
                && request.line.starts_with(rule.method)
                && request.line.contains(rule.part)
        });
        found.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        })
    };
    let mut cut = None;
    match &fault {
        Some(Fault::Refuse) => return,
        Some(Fault::Request(edit) | Fault::Both(edit, _)) => {
            edit(&mut request);
            sign_again(&mut request);
        }
        Some(Fault::Cut(bytes)) => cut = Some(*bytes),
        Some(Fault::Page) => {
            let mut reply = Message {
                line: "HTTP/1.1 200 OK".to_owned(),
                body: b"<html><body>We are back soon.</body></html>".to_vec(),
                ..Message::default()
            };
            if request.line.starts_with("HEAD") {
                reply.body.clear();
            }
            reply.set("Content-Type", "text/html");
            reply.set("Content-Length", &reply.body.len().to_string());
            send(client, &mut reply, None);
            return;
        }
        Some(Fault::Answer(status, code, words)) => {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{words}</Message></Error>"
            );
            let mut reply = Message {
                line: format!("HTTP/1.1 {status} Told"),
                ..Message::default()
            };
            if !request.line.starts_with("HEAD") {
                reply.body = body.into_bytes();
            }
            reply.set("Content-Length", &reply.body.len().to_string());
            send(client, &mut reply, None);
            return;
        }
        Some(Fault::LoseReply | Fault::Hold(_) | Fault::Reply(_)) | None => {}
    }
    let Some(mut reply) = forward(&mut request, server) else {
        return;
    };
    match &fault {
        Some(Fault::LoseReply) => return,
        Some(Fault::Hold(bytes)) => {
            hold(client, &reply, *bytes, state);
            return;
        }
        Some(Fault::Reply(edit) | Fault::Both(_, edit)) => {
            edit(&mut reply);
            if !request.line.starts_with("HEAD") {
                reply.set("Content-Length", &reply.body.len().to_string());
            }
        }
        _ => {}
    }
    send(client, &mut reply, cut);
}

fn hold(mut client: &TcpStream, reply: &Message, bytes: Option<usize>, state: &Mutex<State>) {
    if let Some(bytes) = bytes {
        client.write_all(&reply.head()).ok();
        client.write_all(&reply.body[..bytes]).ok();
    }
    client.set_read_timeout(Some(HOLD)).ok();
    // It ends when the other side has gone.
    if client.read(&mut [0]).is_err_and(|e| is_timeout(&e)) {
        lock(state).log.push(HELD.to_owned());
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}

fn forward(request: &mut Message, server: &str) -> Option<Message> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_nodelay(true).ok();
    request.set("Connection", "close");
    request.set("Expect", "");
    stream.write_all(&request.head()).ok()?;
    stream.write_all(&request.body).ok()?;
    Message::read(&stream, request.line.starts_with("HEAD"))
}

fn send(mut client: &TcpStream, reply: &mut Message, cut: Option<usize>) {
    reply.set("Connection", "close");
    let sent = cut.unwrap_or(reply.body.len()).min(reply.body.len());
    // Whoever does not listen any more is not told.
    client.write_all(&reply.head()).ok();
    client.write_all(&reply.body[..sent]).ok();
    client.flush().ok();
    client.shutdown(Shutdown::Both).ok();
}
