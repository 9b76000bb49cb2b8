//! The virtual machine of the demo: a real QEMU, without acceleration, that boots the
//! guest's disk, and writes to that disk through the device, as a guest does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::guest;
use super::model::{Fill, Write};
use crate::monitor::{Monitor, end};

/// How long the guest may take to do its first write.
const PATIENCE: Duration = Duration::from_secs(60);
/// The device's name.
pub(super) const DEVICE: &str = "disk0";
/// The part of the device that has the disk.
const BACKEND: &str = "/machine/peripheral/disk0/virtio-backend";
/// Where QEMU's standard output goes.
const OUTPUT: &str = "qemu.out";
/// Where QEMU finds what a write is filled with.
const PATTERN: &str = "pattern";

#[derive(Debug)]
pub(super) struct Qemu {
    process: Child,
    folder: PathBuf,
    monitor: Monitor,
    /// What QEMU has to say of each write. It prints that on its own standard output,
    /// which is complete only when QEMU has ended.
    written: Vec<String>,
}

impl Qemu {
    /// Starts the guest on a raw image, with two monitors in `folder`: the demo's own,
    /// and [`Qemu::socket`] for whoever makes backups.
    pub(super) fn start(folder: &Path, disk: &Path) -> Result<Self> {
        let errors = folder.join("qemu.log");
        // The folder is QEMU's own, so that no path with odd letters is in an option.
        let mut process = Command::new("qemu-system-x86_64")
            .current_dir(folder)
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc", "-accel", "tcg", "-m", "32"])
            .args(["-qmp", "unix:demo.qmp,server=on,wait=off"])
            .args(["-qmp", "unix:backup.qmp,server=on,wait=off"])
            .args(["-blockdev", &blockdev(disk)?])
            .args(["-device", &format!("virtio-blk-pci,id={DEVICE},drive=disk")])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.join(OUTPUT))?)
            .stderr(std::fs::File::create(&errors)?)
            .spawn()
            .context("could not start qemu-system-x86_64")?;
        match Monitor::of_new(&folder.join("demo.qmp"), &mut process) {
            Ok(monitor) => Ok(Self {
                process,
                folder: folder.to_owned(),
                monitor,
                written: Vec::new(),
            }),
            Err(error) => {
                end(&mut process);
                let words = std::fs::read_to_string(&errors).unwrap_or_default();
                Err(error.context(format!("QEMU: {}", words.trim())))
            }
        }
    }

    /// The monitor for backups.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("backup.qmp")
    }

    /// How many writes the guest itself began, and how many of them are done.
    pub(super) fn guest_writes(&mut self) -> Result<(u32, u32)> {
        let command = format!("xp /2wx {:#x}", guest::COUNTERS);
        let (text, _) = self.human(&command)?;
        two_words(&text).with_context(|| format!("QEMU answers {command} with {text:?}"))
    }

    /// Waits until the guest writes.
    pub(super) fn wait_for_guest(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.guest_writes()?.1 == 0 {
            ensure!(start.elapsed() < PATIENCE, "the guest does not write");
            self.events(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Writes to the disk through its device. Gives the events that came before the end.
    pub(super) fn write(&mut self, write: &Write) -> Result<Vec<String>> {
        let Write { offset, length, .. } = write;
        let how = match write.fill {
            Fill::Zeroes => "-z -u".to_owned(),
            Fill::Byte(byte) => format!("-P {byte}"),
            Fill::Random(_) => {
                std::fs::write(self.folder.join(PATTERN), write.bytes())?;
                format!("-s {PATTERN}")
            }
        };
        let command = format!("qemu-io -d {BACKEND} \"write {how} {offset} {length}\"");
        let (answer, events) = self.human(&command)?;
        ensure!(answer.is_empty(), "QEMU answers {command} with {answer:?}");
        self.written
            .push(format!("wrote {length}/{length} bytes at offset {offset}"));
        Ok(events)
    }

    /// The events that come within this time.
    pub(super) fn events(&mut self, time: Duration) -> Result<Vec<String>> {
        self.monitor.events(time)
    }

    /// Ends QEMU, with everything on the disk, and checks that it did each write.
    pub(super) fn quit(mut self) -> Result<()> {
        self.monitor.quit()?;
        let status = self.process.wait().context("could not wait for QEMU")?;
        ensure!(status.success(), "QEMU failed: {status}");
        let output = std::fs::read_to_string(self.folder.join(OUTPUT))?;
        // After each of these is a line about the time that it took.
        let said: Vec<&str> = output.lines().step_by(2).collect();
        let first = said
            .iter()
            .zip(&self.written)
            .find(|(said, done)| said != done);
        if let Some((said, done)) = first {
            bail!("QEMU said {said:?}, not {done:?}");
        }
        ensure!(
            said.len() == self.written.len(),
            "QEMU said something {} times about {} writes",
            said.len(),
            self.written.len()
        );
        Ok(())
    }

    /// A command for people, and what it prints.
    fn human(&mut self, command: &str) -> Result<(String, Vec<String>)> {
        let arguments = json!({"command-line": command});
        let (answer, events) = self.monitor.execute("human-monitor-command", &arguments)?;
        let text = answer.as_str().context("QEMU printed no text")?;
        Ok((text.to_owned(), events))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn blockdev(disk: &Path) -> Result<String> {
    let disk = disk.to_str().context("the path of the disk is not UTF-8")?;
    let options = json!({
        "driver": "raw", "node-name": "disk", "discard": "unmap",
        "file": {"driver": "file", "filename": disk, "discard": "unmap"},
    });
    Ok(options.to_string())
}

/// The two numbers of `0000000000008200: 0x00000001 0x00000002`.
fn two_words(text: &str) -> Option<(u32, u32)> {
    let (_, numbers) = text.trim().split_once(": ")?;
    let (one, two) = numbers.split_once(' ')?;
    let number = |word: &str| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some((number(one)?, number(two)?))
}

#[cfg(test)]
mod tests {
    use super::two_words;

    #[test]
    fn the_monitors_dump_of_memory_is_understood() {
        let text = "0000000000008200: 0x0000001f 0x0000001e\r\n";
        assert_eq!(two_words(text), Some((31, 30)));
        assert_eq!(two_words("Cannot access memory"), None);
    }
}
