//! An image behind QEMU's NBD server, for the time of one backup.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is ended when the value is dropped, if it has not ended by itself.
#[derive(Debug)]
pub(crate) struct Export {
    server: Child,
    socket: PathBuf,
}

impl Export {
    /// Serves `image` read-only, with one of its dirty bitmaps if one is named.
    pub(crate) fn serve(
        image: &Path,
        format: &str,
        bitmap: Option<&str>,
        folder: &Path,
    ) -> Result<Self> {
        let socket = folder.join("nbd.sock");
        let mut command = Command::new("qemu-nbd");
        command.args(["-r", "-e", "8", "-f", format, "-x", "drive-scsi0", "-k"]);
        command.arg(&socket);
        if let Some(bitmap) = bitmap {
            command.args(["-B", bitmap]);
        }
        let server = (command.arg(image).stdin(Stdio::null()).spawn())
            .context("could not start qemu-nbd")?;
        let mut export = Self { server, socket };
        let start = Instant::now();
        while !is_listening(&export.socket)? {
            let ended = export.server.try_wait()?;
            ensure!(ended.is_none(), "qemu-nbd ended before it listened");
            ensure!(start.elapsed() < PATIENCE, "qemu-nbd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(export)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the end, which comes when the last client has left.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.server.wait().context("could not wait for qemu-nbd")?;
        ensure!(status.success(), "qemu-nbd failed: {status}");
        Ok(())
    }
}

/// Whether somebody listens on a Unix socket; trying it would count as a client.
fn is_listening(socket: &Path) -> Result<bool> {
    const LISTENS: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix").context("cannot list sockets")?;
    let socket = socket.to_string_lossy();
    Ok(table.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.nth(3) == Some(LISTENS) && words.next_back() == Some(&socket)
    }))
}

impl Drop for Export {
    fn drop(&mut self) {
        // It has ended in most cases; neither call may then do anything.
        if matches!(self.server.try_wait(), Ok(None)) {
            self.server.kill().ok();
            self.server.wait().ok();
        }
        std::fs::remove_file(&self.socket).ok();
    }
}
