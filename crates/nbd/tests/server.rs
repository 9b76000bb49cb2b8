//! The server against this crate's client and against the real tools.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Client, ClientOptions, Errno, ErrorKind, Export, ExportError, Extent,
    Server, ServerOptions,
};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

/// Eight MiB, of which the second half is a hole.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn new() -> Self {
        let mut bytes = vec![0; 8 * MIB];
        for (index, byte) in bytes[..4 * MIB].iter_mut().enumerate() {
            *byte = u8::try_from(index * 31 % 251).unwrap();
        }
        Self(Mutex::new(bytes))
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + length
}

impl Export for Memory {
    fn size(&self) -> u64 {
        u64::try_from(8 * MIB).unwrap()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        buffer.copy_from_slice(&self.0.lock().unwrap()[range(offset, buffer.len())]);
        Ok(())
    }

    fn can_trim(&self) -> bool {
        true
    }

    fn trim(&self, _: u64, _: u64) -> Result<(), ExportError> {
        Err(ExportError::new(Errno::Io, "the disk is broken"))
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> Result<(), ExportError> {
        self.0.lock().unwrap()[range(offset, buffer.len())].copy_from_slice(buffer);
        Ok(())
    }

    fn extents(&self, _: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        let (half, end) = (u64::try_from(4 * MIB).unwrap(), offset + length);
        let extents = [(0, half, 0), (half, 2 * half, Extent::HOLE | Extent::ZERO)]
            .map(|(from, to, flags)| (offset.max(from), end.min(to), flags));
        Ok(extents
            .into_iter()
            .filter(|(from, to, _)| from < to)
            .map(|(offset, to, flags)| Extent {
                offset,
                length: to - offset,
                flags,
            })
            .collect())
    }
}

fn serve(directory: &TempDir) -> (Server, Arc<Memory>) {
    let address = Address::Unix(directory.path().join("s"));
    let memory = Arc::new(Memory::new());
    let export: Arc<dyn Export> = memory.clone();
    let exports = BTreeMap::from([("disk".to_owned(), export)]);
    let server = Server::bind(address, exports, ServerOptions::default()).unwrap();
    (server, memory)
}

fn connect(server: &Server) -> Client {
    let options = ClientOptions {
        export: "disk".to_owned(),
        contexts: vec![BASE_ALLOCATION.to_owned()],
        ..ClientOptions::default()
    };
    Client::connect(server.address(), &options).unwrap()
}

/// Runs a tool; `None`, said aloud, if it is missing.
fn tool(test: &str, name: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{name}: {output:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "{test} needs {name}: {error}");
            eprintln!("SKIP: {test}: needs {name}");
            None
        }
    }
}

#[test]
fn the_client_reads_what_the_export_holds() {
    let directory = TempDir::new().unwrap();
    let (server, memory) = serve(&directory);
    let mut read = vec![1; 8 * MIB];
    connect(&server).read_at(0, &mut read).unwrap();
    assert!(read == *memory.0.lock().unwrap());
}

#[test]
fn the_export_holds_what_the_client_wrote() {
    let directory = TempDir::new().unwrap();
    let (server, memory) = serve(&directory);
    let client = connect(&server);
    client.write_at(12345, &vec![7; 3 * MIB]).unwrap();
    client.flush().unwrap();
    let bytes = memory.0.lock().unwrap();
    assert!(bytes[12345..12345 + 3 * MIB].iter().all(|byte| *byte == 7));
    assert_ne!(bytes[12344], 7);
}

#[test]
fn the_extents_are_the_exports() {
    let directory = TempDir::new().unwrap();
    let (server, _memory) = serve(&directory);
    let client = connect(&server);
    let found: Vec<_> = client
        .extents(BASE_ALLOCATION, 0, client.size())
        .map(|extent| extent.unwrap().flags)
        .collect();
    assert_eq!(found, [0, Extent::HOLE | Extent::ZERO]);
}

#[test]
fn an_error_of_the_export_leaves_the_connection_usable() {
    let directory = TempDir::new().unwrap();
    let (server, _memory) = serve(&directory);
    let client = connect(&server);
    assert_eq!(client.trim(0, 4096).unwrap_err().kind(), ErrorKind::Refused);
    client.read_at(0, &mut [0; 4096]).unwrap();
}

#[test]
fn a_live_socket_is_not_taken_over() {
    let directory = TempDir::new().unwrap();
    let (server, _memory) = serve(&directory);
    let second = Server::bind(
        server.address().clone(),
        BTreeMap::new(),
        ServerOptions::default(),
    );
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_stale_socket_is_replaced_and_private() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (server, _memory) = serve(&directory);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    connect(&server);
}

#[test]
fn qemu_img_converts_the_export() {
    let directory = TempDir::new().unwrap();
    let (server, memory) = serve(&directory);
    let target = directory.path().join("out");
    let uri = server.address().uri("disk");
    let arguments = [
        "convert",
        "-f",
        "raw",
        "-O",
        "raw",
        &uri,
        target.to_str().unwrap(),
    ];
    if tool("qemu_img_converts_the_export", "qemu-img", &arguments).is_some() {
        assert!(fs::read(&target).unwrap() == *memory.0.lock().unwrap());
    }
}

#[test]
fn nbdcopy_copies_the_export() {
    let directory = TempDir::new().unwrap();
    let (server, memory) = serve(&directory);
    let target = directory.path().join("out");
    let uri = server.address().uri("disk");
    let arguments = [uri.as_str(), target.to_str().unwrap()];
    if tool("nbdcopy_copies_the_export", "nbdcopy", &arguments).is_some() {
        assert!(fs::read(&target).unwrap() == *memory.0.lock().unwrap());
    }
}

#[test]
fn nbdinfo_sees_the_size() {
    let directory = TempDir::new().unwrap();
    let (server, _memory) = serve(&directory);
    let uri = server.address().uri("disk");
    if let Some(size) = tool("nbdinfo_sees_the_size", "nbdinfo", &["--size", &uri]) {
        assert_eq!(size.trim(), "8388608");
    }
}
