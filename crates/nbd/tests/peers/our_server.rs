//! The server against this crate's own client.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Client, ClientOptions, Errno, ErrorKind, Export, ExportError, Extent,
    Server, ServerOptions, list_exports,
};

use crate::memory::{MIB, serve, serve_with};

#[test]
fn the_client_reads_what_the_export_holds() {
    for tcp in [false, true] {
        let served = serve_with(ServerOptions::default(), tcp);
        let mut read = vec![1; 8 * MIB];
        served.connect("disk").read_at(0, &mut read).unwrap();
        assert!(read == served.disk.bytes());
    }
}

#[test]
fn the_export_holds_what_the_client_wrote_zeroed_and_trimmed() {
    let served = serve();
    let client = served.connect("disk");
    let mut expected = served.disk.bytes();
    client.write_at(12345, &vec![7; 3 * MIB]).unwrap();
    expected[12345..12345 + 3 * MIB].fill(7);
    client.write_zeroes(999, 200_000).unwrap();
    expected[999..200_999].fill(0);
    client.trim(MIB as u64, 77).unwrap();
    expected[MIB..MIB + 77].fill(0);
    client.flush().unwrap();
    assert!(served.disk.bytes() == expected);
}

#[test]
fn the_extents_are_the_exports() {
    let served = serve();
    let client = served.connect("disk");
    let found: Vec<_> = client
        .extents(BASE_ALLOCATION, 0, client.size())
        .map(|extent| extent.unwrap().flags)
        .collect();
    assert_eq!(found, [0, Extent::HOLE | Extent::ZERO]);
}

#[test]
fn holes_too_small_to_be_worth_a_question_are_called_data() {
    for (coalesce_bytes, expected) in [(0, 5), (65536, 3), (65537, 1)] {
        let options = ServerOptions {
            coalesce_bytes,
            ..ServerOptions::default()
        };
        let served = serve_with(options, false);
        served.disk.bytes.lock().unwrap().fill(1);
        let client = served.connect("disk");
        client.write_zeroes(4096, 4096).unwrap();
        client.write_zeroes(MIB as u64, 65536).unwrap();
        assert_eq!(
            client.extents(BASE_ALLOCATION, 0, client.size()).count(),
            expected
        );
    }
}

#[test]
fn an_export_that_fails_panics_or_contradicts_itself_fails_the_request_alone() {
    let served = serve();
    let client = served.connect("broken");
    let refusals = [
        client.read_at(8192, &mut [0; 512]).unwrap_err(),
        client.read_at(0, &mut [0; 512]).unwrap_err(),
        client.trim(0, 4096).unwrap_err(),
        client.write_at(0, &[1]).unwrap_err(),
        client
            .block_status(BASE_ALLOCATION, 0, 1 << 20)
            .unwrap_err(),
    ];
    let words = [
        "is broken",
        "panicked",
        "cannot be trimmed",
        "read-only",
        "a gap",
    ];
    for (error, words) in refusals.iter().zip(words) {
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("\"broken\""), "{error}");
    }
    assert_eq!(refusals[0].errno(), Some(Errno::Io));
    assert_eq!(client.connections(), 4);
    client.flush().unwrap();
    let log = served.log.lock().unwrap();
    assert_eq!(log.len(), refusals.len());
    for line in log.iter() {
        let address = served.server.address().to_string();
        assert!(
            line.contains("\"broken\"") && line.contains(&address),
            "{line}"
        );
    }
}

#[test]
fn a_live_socket_is_not_taken_over() {
    let served = serve();
    let second = Server::bind(
        served.server.address().clone(),
        BTreeMap::new(),
        ServerOptions::default(),
    );
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_stale_socket_is_replaced_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(
        Address::Unix(path.clone()),
        BTreeMap::new(),
        ServerOptions::default(),
    );
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_time_out_that_no_clock_can_count_to_is_refused() {
    let served = serve();
    for timeout in [Duration::ZERO, Duration::MAX] {
        let options = ClientOptions {
            export: "disk".to_owned(),
            timeout,
            ..ClientOptions::default()
        };
        let error = Client::connect(served.server.address(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let listed = list_exports(served.server.address(), timeout);
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Invalid);
        let options = ServerOptions {
            handshake_timeout: timeout,
            ..ServerOptions::default()
        };
        let address = Address::Unix(served.folder.path().join("other"));
        let error = Server::bind(address, BTreeMap::new(), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// Answers no read before sixteen are there.
struct Together(std::sync::Barrier);

impl Export for Together {
    fn size(&self) -> u64 {
        64 << 20
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        self.0.wait();
        buffer.fill(5);
        Ok(())
    }

    fn extents(&self, _: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        Ok(vec![Extent {
            offset,
            length,
            flags: 0,
        }])
    }
}

#[test]
fn sixteen_requests_of_one_connection_are_worked_on_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let export: Arc<dyn Export> = Arc::new(Together(std::sync::Barrier::new(16)));
    let server = Server::bind(
        Address::Unix(folder.path().join("s")),
        BTreeMap::from([(String::new(), export)]),
        ServerOptions::default(),
    )
    .unwrap();
    let options = ClientOptions {
        connections: 1,
        ..ClientOptions::default()
    };
    let client = Client::connect(server.address(), &options).unwrap();
    let mut buffer = vec![0; 32 * MIB];
    client.read_at(0, &mut buffer).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 5));
}
