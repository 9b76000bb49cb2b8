//! Listening: taking the address, accepting, and ending.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::{Running, Shared, connection};
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::stream::Stream;

/// A bound socket; a Unix socket's file is removed with it.
pub(super) enum Listener {
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
    Tcp(TcpListener),
}

impl Listener {
    /// Binds; returns the address with the port that was taken.
    pub(super) fn bind(address: Address) -> Result<(Self, Address)> {
        let failed = |error| {
            Error::io(
                ErrorKind::Io,
                format!("binding the NBD server to {address}"),
                error,
            )
        };
        match &address {
            Address::Unix(path) => {
                replace_stale(path)?;
                let listener = bind_unix(path).map_err(failed)?;
                Ok((
                    Self::Unix {
                        listener,
                        path: path.clone(),
                    },
                    address,
                ))
            }
            Address::Tcp(wanted) => {
                let listener = TcpListener::bind(wanted).map_err(failed)?;
                let taken = listener.local_addr().map_err(failed)?;
                Ok((Self::Tcp(listener), Address::Tcp(taken)))
            }
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix { listener, .. } => Stream::Unix(listener.accept()?.0),
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // Somebody may have removed it already.
            fs::remove_file(path).ok();
        }
    }
}

/// Accepts until the server stops.
pub(super) fn accept(listener: &Listener, woken: &UnixStream, shared: &Arc<Shared>) {
    let mut next = 0;
    while !shared.is_stopping() {
        let mut ready = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN),
        ];
        if let Err(error) = poll(&mut ready, None) {
            if error == rustix::io::Errno::INTR {
                continue;
            }
            shared.log("no more clients are accepted", &error.to_string());
            return;
        }
        if shared.is_stopping() {
            return;
        }
        if !ready[0].revents().is_empty() {
            next += 1;
            if let Err(error) = accept_one(listener, shared, next) {
                shared.log("a client could not be accepted", &error.to_string());
                // Out of file descriptors or threads: the client is still waiting, and asking again
                // at once would only burn time.
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn accept_one(listener: &Listener, shared: &Arc<Shared>, number: u64) -> io::Result<()> {
    let stream = listener.accept()?;
    stream.prepare();
    let mut connections = shared.connections();
    connections.retain(|_, running| {
        running
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    });
    if connections.len() >= shared.options.max_connections {
        drop(connections);
        let most = shared.options.max_connections;
        shared.log(
            &format!("client {number} is turned away"),
            &format!("all {most} connections are taken"),
        );
        return Ok(());
    }
    let handle = stream.try_clone()?;
    let thread = {
        let shared = Arc::clone(shared);
        let run = move || {
            // Dropped after the stream, whatever happens.
            let _closing = Closing {
                shared: &shared,
                number,
            };
            connection::serve(stream, number, &shared);
        };
        thread::Builder::new()
            .name("nbd-connection".to_owned())
            .spawn(run)?
    };
    connections.insert(
        number,
        Running {
            stream: Some(handle),
            thread: Some(thread),
        },
    );
    Ok(())
}

/// Lets go of the handle by which the server can end a connection, so that the socket is really
/// closed. Shutting it down would not do: what the client sent and nobody read would stay queued, and
/// a client that waits for room to send more, as QEMU does, would never be told.
struct Closing<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.shared.connections().get_mut(&self.number) {
            running.stream = None;
        }
        self.shared.ended.notify_all();
    }
}

/// Removes the socket of a server that is gone.
fn replace_stale(path: &Path) -> Result<()> {
    let failed = |error| {
        Error::io(
            ErrorKind::Io,
            format!("looking for an old socket at {}", path.display()),
            error,
        )
    };
    let taken = |what: &str| {
        Err(Error::new(
            ErrorKind::Io,
            format!("{} {what}", path.display()),
        ))
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return taken("is in the way and not a socket");
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => taken("is the socket of a server that is running"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let socket: OwnedFd = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The file takes its mode from the socket, so it is never open to others, not even for a moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, limits::LISTEN_BACKLOG)?;
    Ok(UnixListener::from(socket))
}
