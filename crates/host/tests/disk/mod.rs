//! A disk in memory with data, holes, and an end that no block size divides; and the tools that
//! read what became of it.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use snapkeep_api::{Cancel, Error, ErrorKind, Region, Result, VolumeReader};
use snapkeep_host::restore::RestoreOptions;

pub(crate) const MIB: u64 = 1 << 20;

/// Data in its first 3 MiB and for 2 MiB and 512 bytes from 8 MiB on; 12 MiB and 512 bytes long.
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    data: [(u64, u64); 2],
    damaged: bool,
    cancel: Option<Cancel>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let data = [(0, 3 * MIB), (8 * MIB, 2 * MIB + 512)];
        let mut bytes = vec![0; at(12 * MIB + 512)];
        for (offset, length) in data {
            for (number, byte) in bytes[at(offset)..at(offset + length)]
                .iter_mut()
                .enumerate()
            {
                *byte = u8::try_from(number % 251 + 1).unwrap();
            }
        }
        Self {
            bytes,
            data,
            damaged: false,
            cancel: None,
        }
    }

    /// Its second run of data cannot be read.
    pub(crate) fn damaged() -> Self {
        Self {
            damaged: true,
            ..Self::new()
        }
    }

    /// Asks for the end when its second run of data is read.
    pub(crate) fn cancelling(cancel: Cancel) -> Self {
        Self {
            cancel: Some(cancel),
            ..Self::new()
        }
    }
}

impl VolumeReader for Disk {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset + buffer.len() as u64 > self.data[1].0 {
            if self.damaged {
                return Err(Error::new(ErrorKind::Corrupt, "the chunk is damaged"));
            }
            if let Some(cancel) = &self.cancel {
                cancel.cancel();
                cancel.check()?;
            }
        }
        buffer.copy_from_slice(&self.bytes[at(offset)..][..buffer.len()]);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let run = self
            .data
            .iter()
            .find(|(from, length)| from + length > offset);
        run.map(|(from, length)| {
            let start = (*from).max(offset);
            Region::new(start, from + length - start)
        })
        .transpose()
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

pub(crate) fn options() -> RestoreOptions {
    RestoreOptions {
        workers: 3,
        overwrite: false,
        bandwidth_limit: None,
        cancel: Cancel::new(),
    }
}

/// Whether a tool is there; says aloud that the test is skipped if it is not.
pub(crate) fn tool(test: &str, name: &str) -> bool {
    let there = Command::new(name).arg("--version").output().is_ok();
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(there || !ci, "{test} needs {name}");
    if !there {
        eprintln!("SKIP: {test}: needs {name}");
    }
    there
}

/// A QEMU tool that has an image open for writing; ended when dropped.
pub(crate) struct User {
    child: Child,
    _words: ChildStdin,
}

impl User {
    pub(crate) fn of(image: &Path) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "raw"])
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = child.stdin.take().unwrap();
        writeln!(words, "read 0 1").unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("read 1/1 bytes")));
        Self {
            child,
            _words: words,
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs a tool to its good end; what it printed.
pub(crate) fn run(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
