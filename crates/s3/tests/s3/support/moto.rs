//! A server of S3 that keeps all in memory, shared by the tests of one program: moto, which
//! `cargo xtask setup` installs. Its end is that of this process, however that ends.
//!
//! `SNAPKEEP_S3_SERVER` names another by host and port, which knows what `sign.rs` signs with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sign::{ACCESS, Unsigned, hash, now};

/// Starts the server, and ends with whoever started it.
const PROGRAM: &str = include_str!("moto.py");

/// A running server.
pub(crate) struct Moto {
    /// Host and port.
    pub(crate) address: String,
    /// Its standard input is closed when this process ends. None if another has started it.
    _child: Option<Child>,
}

/// Python with moto: named by the environment, or installed below the target folder.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("SNAPKEEP_MOTO").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("../moto/bin/python"),
        PathBuf::from,
    )
}

/// The server. Without it the test is skipped, and that is told, and is a failure where there must
/// be no skip.
pub(crate) fn moto(test: &str) -> Option<&'static Moto> {
    static SERVER: OnceLock<Option<Moto>> = OnceLock::new();
    let server = SERVER
        .get_or_init(|| named().or_else(|| python().is_file().then(start)))
        .as_ref();
    if server.is_none() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "{test} needs moto: run `cargo xtask setup`");
        eprintln!("SKIP: {test}: needs moto (`cargo xtask setup` installs it)");
    }
    server
}

/// The server that the environment names.
fn named() -> Option<Moto> {
    let address = std::env::var("SNAPKEEP_S3_SERVER").ok()?;
    Some(Moto {
        address,
        _child: None,
    })
}

fn start() -> Moto {
    let mut child = Command::new(python())
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let said = child.stderr.take().expect("it is a pipe");
    let mut lines = BufReader::new(said).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("Running on http://")?.1.trim().to_owned()))
        .expect("moto says where it listens");
    // It must not be held up by what nobody reads.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Moto {
        address,
        _child: Some(child),
    }
}

impl Moto {
    /// A new bucket that nobody else has, made with these headers, each with its line's end.
    pub(crate) fn bucket_with(&self, headers: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let bucket = format!("bucket-{}-{number}", std::process::id());
        let reply = self.ask(&format!("PUT /{bucket}"), headers, b"");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        bucket
    }

    /// One request, with further headers, each with its line's end. The whole reply as text.
    pub(crate) fn ask(&self, request: &str, headers: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("moto listens");
        let (address, date, payload) = (&self.address, now(), hash(body));
        let (method, target) = request.split_once(' ').expect("a method and a path");
        let signed = [
            ("host", address),
            ("x-amz-date", &date),
            ("x-amz-content-sha256", &payload),
        ];
        let further = headers.lines().filter_map(|line| line.split_once(": "));
        let unsigned = Unsigned {
            method,
            target,
            headers: (signed
                .map(|(name, value)| (name, value.as_str()))
                .into_iter())
            .chain(further)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
            payload: &payload,
            date: &date,
            access: ACCESS,
        };
        let authorization = unsigned.authorization();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nx-amz-date: {date}\r\n\
             x-amz-content-sha256: {payload}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("moto reads");
        stream.write_all(body).expect("moto reads");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("moto answers");
        String::from_utf8_lossy(&reply).into_owned()
    }
}
