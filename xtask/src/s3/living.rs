//! A proxy before the nodes of a cluster: each connection goes to the next one that lives.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

/// A running proxy; it ends with the process.
pub(crate) struct Living {
    /// Host and port.
    pub(crate) address: String,
    passed: Arc<AtomicU64>,
}

impl Living {
    /// Before the servers on these addresses.
    pub(crate) fn start(servers: Vec<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let passed = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&passed);
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().flatten().enumerate() {
                let mut from_here = servers.iter().cycle().skip(turn % servers.len());
                let mut in_turn = from_here.by_ref().take(servers.len());
                let living = in_turn.find_map(|server| TcpStream::connect(server).ok());
                // Where none lives the connection is closed.
                let Some(up) = living else { continue };
                let (Ok(client2), Ok(up2)) = (client.try_clone(), up.try_clone()) else {
                    continue;
                };
                pass(client, up, Arc::clone(&counted));
                pass(up2, client2, Arc::clone(&counted));
            }
        });
        Ok(Self { address, passed })
    }

    /// Bytes that went through so far, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, passed: Arc<AtomicU64>) {
    to.set_nodelay(true).ok();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            passed.fetch_add(length as u64, Ordering::Relaxed);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    });
}
