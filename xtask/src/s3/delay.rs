//! A proxy that makes a server far away: what goes through it comes later, as on a long line, which
//! takes as much at once as a short one. It counts what goes through.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::requests::{Traffic, Watch};

/// Bytes that are on the way at once in one direction of a connection, at most 16 MiB.
const PIECE: usize = 64 << 10;
const PIECES: usize = 256;

/// A running proxy; it ends with the process.
pub(crate) struct Delay {
    /// Host and port.
    pub(crate) address: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    traffic: Traffic,
    lost: bool,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Delay {
    /// Before the server on this address; there and back takes this long more, and a connection takes
    /// one journey there and back before anything goes through it.
    pub(crate) fn start(server: &str, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (server, counted) = (server.to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let opened = Instant::now() + round_trip;
                let Ok(up) = TcpStream::connect(&server) else {
                    continue;
                };
                let (Ok(client2), Ok(up2)) = (client.try_clone(), up.try_clone()) else {
                    continue;
                };
                lock(&counted).traffic.connections += 1;
                let (there, back) = (Arc::clone(&counted), Arc::clone(&counted));
                let mut watch = Watch::new();
                late(client, up, opened, round_trip / 2, move |bytes| {
                    let mut seen = lock(&there);
                    seen.traffic.sent += bytes.len() as u64;
                    watch.see(bytes, &mut seen.traffic);
                    seen.lost |= watch.is_lost();
                });
                late(up2, client2, opened, round_trip / 2, move |bytes| {
                    lock(&back).traffic.received += bytes.len() as u64;
                });
            }
        });
        Ok(Self { address, seen })
    }

    /// What went through since the last call.
    pub(crate) fn take(&self) -> Result<Traffic> {
        let Seen { traffic, lost } = std::mem::take(&mut *lock(&self.seen));
        ensure!(!lost, "a request does not say how long it is");
        Ok(traffic)
    }
}

/// Passes on what comes, each piece so much later.
fn late(
    mut from: TcpStream,
    mut to: TcpStream,
    opened: Instant,
    delay: Duration,
    mut seen: impl FnMut(&[u8]) + Send + 'static,
) {
    from.set_nodelay(true).ok();
    to.set_nodelay(true).ok();
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(PIECES);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let piece = buffer[..length].to_vec();
            seen(&piece);
            let due = Instant::now().max(opened) + delay;
            if sender.send((due, piece)).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Read).ok();
    });
    std::thread::spawn(move || {
        while let Ok((due, piece)) = receiver.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    });
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::Delay;

    #[test]
    fn a_connection_takes_one_journey_and_each_request_another() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut byte = [0];
            let mut last = [0; 4];
            while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                last.rotate_left(1);
                last[3] = byte[0];
                if &last == b"\r\n\r\n" {
                    stream.write_all(b"!").unwrap();
                }
            }
        });
        let round_trip = Duration::from_millis(40);
        let proxy = Delay::start(&address, round_trip).unwrap();
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&proxy.address).unwrap();
        for journeys in [2, 3] {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            // Whatever else the machine does, it is never sooner.
            assert!(begun.elapsed() >= round_trip * journeys);
        }
        let traffic = proxy.take().unwrap();
        assert_eq!((traffic.gets, traffic.connections), (2, 1));
        assert_eq!((traffic.sent, traffic.received), (36, 2));
        assert_eq!(proxy.take().unwrap().requests(), 0);
    }
}
