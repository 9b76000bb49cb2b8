//! Clients of the server under test that send what they like.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use snapkeep_nbd::{Address, BASE_ALLOCATION};

use crate::memory::Served;
use crate::raw::{self, Request, Style, bytes};

/// Longer than any answer takes; only a test that fails waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client that has read the greeting.
pub(crate) fn greeted(served: &Served) -> UnixStream {
    let mut stream = silent(served);
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[..], raw::greeting(3)[..]);
    stream
}

pub(crate) fn silent(served: &Served) -> UnixStream {
    let Address::Unix(path) = served.server.address() else {
        panic!("not a Unix socket")
    };
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A client that haggles.
pub(crate) fn haggling(served: &Served) -> UnixStream {
    let mut stream = greeted(served);
    raw::send(&mut stream, &bytes![3_u32]);
    stream
}

/// Sends an option; returns the kind of the last reply, and of all replies the data.
pub(crate) fn ask(stream: &mut UnixStream, option: u32, data: &[u8]) -> (u32, Vec<Vec<u8>>) {
    raw::send(stream, &raw::option(option, data));
    let mut all = Vec::new();
    loop {
        let (answered, kind, data) = raw::read_option_reply(stream).unwrap();
        assert_eq!(answered, option);
        if kind == raw::REP_ACK || kind & 1 << 31 != 0 {
            return (kind, all);
        }
        all.push(data);
    }
}

/// A client in transmission, with block status where the style has it.
pub(crate) fn transmitting(served: &Served, style: Style, export: &str) -> UnixStream {
    let mut stream = haggling(served);
    let option = match style {
        Style::Simple => None,
        Style::Structured => Some(raw::STRUCTURED_REPLY),
        Style::Extended => Some(raw::EXTENDED_HEADERS),
    };
    if let Some(option) = option {
        assert_eq!(ask(&mut stream, option, &[]).0, raw::REP_ACK);
        let query = raw::contexts(export, &[BASE_ALLOCATION]);
        assert_eq!(ask(&mut stream, raw::SET_META_CONTEXT, &query).1.len(), 1);
    }
    assert_eq!(ask(&mut stream, raw::GO, &raw::go(export)).0, raw::REP_ACK);
    stream
}

pub(crate) fn request(command: u16, offset: u64, length: u64) -> Request {
    let payload = if command == raw::WRITE {
        vec![9; usize::try_from(length).unwrap()]
    } else {
        Vec::new()
    };
    Request {
        command,
        cookie: offset ^ length,
        offset,
        length,
        payload,
    }
}

/// Sends a request with flags; returns the error of its reply, 0 for none.
pub(crate) fn error_of(stream: &mut UnixStream, style: Style, flags: u16, asked: &Request) -> u32 {
    raw::send(stream, &raw::request(style, flags, asked));
    let read = if asked.command == raw::READ {
        usize::try_from(asked.length).unwrap()
    } else {
        0
    };
    let (cookie, error, _) = raw::read_reply(stream, style, read).unwrap();
    assert_eq!(cookie, asked.cookie);
    error
}

/// That the server has closed the connection. What it said before does not matter.
#[track_caller]
pub(crate) fn is_closed(stream: &mut UnixStream) {
    match io::copy(stream, &mut io::sink()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[track_caller]
pub(crate) fn others_are_unharmed(served: &Served) {
    let mut buffer = [0; 4096];
    served.connect("disk").read_at(8192, &mut buffer).unwrap();
    assert_eq!(buffer[..], served.disk.bytes()[8192..8192 + 4096]);
}
