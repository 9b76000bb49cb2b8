//! A connected socket of either family. No protocol here.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, set_socket_timeout,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::address::Address;
use crate::limits;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects within the time-out.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> io::Result<Self> {
        let stream = match address {
            Address::Unix(path) => Self::Unix(connect_unix(path, timeout)?),
            Address::Tcp(address) => Self::Tcp(TcpStream::connect_timeout(address, timeout)?),
        };
        stream.prepare();
        Ok(stream)
    }

    /// Asks for what makes large transfers fast. The kernel may refuse; that costs speed only.
    pub(crate) fn prepare(&self) {
        let size = limits::SOCKET_BUFFER_BYTES;
        // The forced variants need a privilege; without it the system's own limit applies.
        if set_socket_send_buffer_size_force(self, size).is_err() {
            set_socket_send_buffer_size(self, size).ok();
        }
        if set_socket_recv_buffer_size_force(self, size).is_err() {
            set_socket_recv_buffer_size(self, size).ok();
        }
        if let Self::Tcp(stream) = self {
            stream.set_nodelay(true).ok();
        }
    }

    /// How long one read or write may take without any progress; `None` for ever.
    pub(crate) fn set_timeouts(
        &self,
        read: Option<Duration>,
        write: Option<Duration>,
    ) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(read)?;
                stream.set_write_timeout(write)
            }
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }

    /// Ends one direction: what has arrived can still be read, then comes the end.
    pub(crate) fn shutdown_reading(&self) {
        // It fails only if the peer is already gone.
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Read).ok(),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Read).ok(),
        };
    }

    /// Ends both directions; whoever is blocked on the socket wakes up.
    pub(crate) fn shutdown(&self) {
        // It fails only if the peer is already gone.
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both).ok(),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both).ok(),
        };
    }

    /// Writes both slices completely, in few system calls; `check` is called before each and ends
    /// it by failing.
    pub(crate) fn write_both(
        &mut self,
        mut head: &[u8],
        mut body: &[u8],
        mut check: impl FnMut(&Self) -> io::Result<()>,
    ) -> io::Result<()> {
        while !head.is_empty() || !body.is_empty() {
            check(self)?;
            let part = &body[..body.len().min(limits::SEND_STEP_BYTES)];
            match self.write_vectored(&[IoSlice::new(head), IoSlice::new(part)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let of_head = count.min(head.len());
                    head = &head[of_head..];
                    body = &body[count - of_head..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some bytes; 0 only at the end of the stream.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write_vectored(buffers),
            Self::Tcp(stream) => stream.write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// Like `UnixStream::connect`, which would wait for ever for a server that does not accept.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // On Linux the send time-out covers connecting, too.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}
