//! A guest that writes to its disk all the time, and numbers its writes.

#[allow(dead_code, reason = "the demo uses the rest")]
#[path = "../../../../xtask/src/demo/guest.rs"]
mod guest;

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Guest, MIB, at, run};

/// Puts the guest's program on the disk of a machine that is off, with nothing else in reach of it.
pub(crate) fn install(machine: &mut Guest) {
    machine.model[..at(17 * MIB)].fill(0);
    machine.model[..guest::SECTOR].copy_from_slice(&guest::boot_sector());
    let raw = machine.folder.path().join("raw");
    std::fs::write(&raw, &machine.model).unwrap();
    let (raw, image) = (raw.to_str().unwrap(), machine.image.to_str().unwrap());
    run(
        "qemu-img",
        &["convert", "-f", "raw", "-O", machine.format, raw, image],
    );
}

/// How many writes the guest began, and how many are done.
pub(crate) fn counters(machine: &mut Guest) -> (u32, u32) {
    let line = format!("xp /2wx {:#x}", guest::COUNTERS);
    let said = machine.execute("human-monitor-command", &json!({"command-line": line}));
    let said = said.as_str().unwrap();
    let words = said
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix("0x"));
    let numbers: Vec<u32> = words
        .map(|word| u32::from_str_radix(word, 16).unwrap())
        .collect();
    (numbers[0], numbers[1])
}

/// Waits until the guest has done so many writes.
pub(crate) fn wait_for_writes(machine: &mut Guest, number: u32) {
    let start = Instant::now();
    while counters(machine).1 < number {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the guest does not write"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The disk as it is after some write.
pub(crate) struct Model {
    disk: Vec<u8>,
    number: u32,
}

impl Model {
    /// Before the first write.
    pub(crate) fn new(machine: &Guest) -> Self {
        let disk = machine.model.clone();
        Self { disk, number: 0 }
    }

    /// Fails unless the disk has all writes up to its last one, which is at least this one. Disks are
    /// looked at in the order of their archives; a guest that starts again repeats its writes.
    #[track_caller]
    pub(crate) fn check(&mut self, disk: &[u8], least: u32) {
        let found = guest::last_write(disk);
        assert!(found >= least, "{found} of {least}");
        while self.number < found {
            self.number += 1;
            guest::write(&mut self.disk, self.number);
        }
        assert!(
            self.disk == disk,
            "not all {found} writes are there, or more"
        );
    }
}
