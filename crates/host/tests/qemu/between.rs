//! What stands between a client and a monitor, sees every command, and may hang up.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where a command is that somebody is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moment {
    /// The monitor has not got it.
    Before,
    /// It is done, and the client has no reply.
    After,
}

/// Listens at the path that is returned. `pass` is asked twice about each command, by its number
/// and name; `false` hangs up.
pub(crate) fn start(
    folder: &Path,
    name: &str,
    monitor: PathBuf,
    mut pass: impl FnMut(usize, &str, Moment) -> bool + Send + 'static,
) -> PathBuf {
    let socket = folder.join(name);
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut number = 0;
        while let Ok((client, _)) = listener.accept() {
            let Ok(server) = UnixStream::connect(&monitor) else {
                return;
            };
            serve(&client, &server, &mut number, &mut pass);
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        }
    });
    socket
}

/// Passes lines on, one command and its replies at a time.
fn serve(
    client: &UnixStream,
    server: &UnixStream,
    number: &mut usize,
    pass: &mut impl FnMut(usize, &str, Moment) -> bool,
) -> Option<()> {
    let (mut to_client, mut to_server) = (client, server);
    let mut commands = BufReader::new(client).lines();
    let mut replies = BufReader::new(server).lines();
    writeln!(to_client, "{}", replies.next()?.ok()?).ok()?;
    loop {
        let command = commands.next()?.ok()?;
        *number += 1;
        let parsed: Value = serde_json::from_str(&command).ok()?;
        let name = parsed["execute"].as_str()?;
        if !pass(*number, name, Moment::Before) {
            return None;
        }
        writeln!(to_server, "{command}").ok()?;
        loop {
            let reply = replies.next()?.ok()?;
            let is_event = serde_json::from_str::<Value>(&reply).ok()?["event"].is_string();
            if !is_event && !pass(*number, name, Moment::After) {
                return None;
            }
            writeln!(to_client, "{reply}").ok()?;
            if !is_event {
                break;
            }
        }
    }
}
