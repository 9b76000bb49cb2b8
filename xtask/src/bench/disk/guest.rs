//! A QEMU with a disk, as `snapkeep backup vm` finds it. Its guest never runs: what the guest
//! would write is written through its device.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::corpus::Change;
use crate::monitor::{Monitor, end};

const DEVICE: &str = "drive-scsi0";
/// The part of the device that has the disk.
const BACKEND: &str = "/machine/peripheral/drive-scsi0/virtio-backend";

#[derive(Debug)]
pub(crate) struct Guest {
    process: Child,
    folder: PathBuf,
    monitor: Monitor,
}

impl Guest {
    /// Starts QEMU on a raw image; its sockets are in `folder`.
    pub(crate) fn start(image: &Path, folder: &Path) -> Result<Self> {
        let image = image.to_str().context("the image's path is not UTF-8")?;
        let disk = json!({
            "driver": "raw", "node-name": "disk", "discard": "unmap",
            "file": {"driver": "file", "filename": image, "discard": "unmap"},
        });
        let mut process = Command::new("qemu-system-x86_64")
            .current_dir(folder)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-S"])
            .args(["-machine", "pc", "-accel", "tcg", "-m", "32"])
            .args(["-qmp", "unix:bench.qmp,server=on,wait=off"])
            .args(["-qmp", "unix:backup.qmp,server=on,wait=off"])
            .args(["-blockdev", &disk.to_string()])
            .args(["-device", &format!("virtio-blk-pci,id={DEVICE},drive=disk")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("could not start qemu-system-x86_64")?;
        match Monitor::of_new(&folder.join("bench.qmp"), &mut process) {
            Ok(monitor) => Ok(Self {
                process,
                folder: folder.to_owned(),
                monitor,
            }),
            Err(error) => {
                end(&mut process);
                Err(error)
            }
        }
    }

    /// The monitor for backups.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("backup.qmp")
    }

    /// Writes to the disk, and waits until that is done.
    pub(crate) fn write(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            let Change {
                offset,
                length,
                bytes,
            } = change;
            let write = format!("write -q -s {} {offset} {length}", bytes.display());
            let line = json!({"command-line": format!("qemu-io -d {BACKEND} \"{write}\"")});
            let (said, _) = self.monitor.execute("human-monitor-command", &line)?;
            ensure!(said == "", "QEMU says of {write}: {said}");
        }
        Ok(())
    }

    /// Processor seconds that QEMU has used so far.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        const TICKS_A_SECOND: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.process.id());
        let text = std::fs::read_to_string(&path).context(path)?;
        // The name in parentheses may have spaces; user and system time are fields 14 and 15.
        let (_, rest) = text.rsplit_once(") ").context("stat has no name")?;
        let fields = rest.split(' ').skip(11).take(2);
        let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS_A_SECOND)
    }

    /// Ends QEMU in good order.
    pub(crate) fn quit(mut self) -> Result<()> {
        self.monitor.quit()?;
        let status = self.process.wait().context("could not wait for QEMU")?;
        ensure!(status.success(), "QEMU failed: {status}");
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
