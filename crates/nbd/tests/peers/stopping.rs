//! What a server that stops owes its clients.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use snapkeep_nbd::{
    Address, Client, ClientOptions, ErrorKind, Export, ExportError, Extent, Server, ServerOptions,
};

use crate::memory::serve_with;
use crate::raw::{self, Style};
use crate::raw_client::{is_closed, request, transmitting};

/// Reads as sevens, once a test lets it.
struct Gate {
    entered: Barrier,
    opened: Barrier,
}

impl Export for Gate {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        self.entered.wait();
        self.opened.wait();
        buffer.fill(7);
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
fn a_server_that_stops_answers_what_it_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let gate = Arc::new(Gate {
        entered: Barrier::new(2),
        opened: Barrier::new(2),
    });
    let exports = BTreeMap::from([(String::new(), Arc::clone(&gate) as Arc<dyn Export>)]);
    let address = Address::Unix(path.clone());
    let server = Server::bind(address, exports, ServerOptions::default()).unwrap();
    let options = ClientOptions {
        connections: 1,
        ..ClientOptions::default()
    };
    let client = Client::connect(server.address(), &options).unwrap();
    let mut idle = UnixStream::connect(path).unwrap();
    // Greeted, it has been accepted: one that still waits is not let go but cut off.
    idle.read_exact(&mut [0; 18]).unwrap();
    let mut buffer = vec![0; 4096];
    thread::scope(|scope| {
        let reading = scope.spawn(|| client.read_at(0, &mut buffer));
        gate.entered.wait();
        let stopping = scope.spawn(|| server.stop());
        // Whoever asked for nothing is let go at once: then the end has begun.
        let let_go = io::copy(&mut idle, &mut io::sink());
        gate.opened.wait();
        let_go.unwrap();
        reading.join().unwrap().unwrap();
        stopping.join().unwrap();
    });
    assert_eq!(buffer, [7; 4096]);
    let error = client.read_at(0, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_server_that_stops_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let options = ServerOptions {
        stop_grace: Duration::from_millis(20),
        ..ServerOptions::default()
    };
    let served = serve_with(options, false);
    let mut stream = transmitting(&served, Style::Simple, "disk");
    for _ in 0..10 {
        let read = raw::request(Style::Simple, 0, &request(raw::READ, 0, 8 << 20));
        raw::send(&mut stream, &read);
    }
    served.server.stop();
    is_closed(&mut stream);
}
