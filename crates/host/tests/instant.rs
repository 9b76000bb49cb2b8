//! A backup is of one instant: a guest that never stops writing, and numbers its writes, shows
//! which instant that was, and whether a write is missing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use qemu::between;
use qemu::{DEVICE, Guest, Log, MIB, SIZE, at, back_up, provider, request, restored, tool};
use snapkeep_api::BitmapMode;

const SECTOR: usize = 512;
const CLUSTER: u64 = 256 << 10;
const SLOTS: usize = 4093;
const SLOT: usize = 4096;
const START: u64 = MIB;

/// Where write `number` goes: to another cluster than the one before.
fn slot(number: u32) -> usize {
    at(START) + usize::try_from(number).unwrap() * 97 % SLOTS * SLOT
}

fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(SECTOR / 4)
}

/// The last write that a disk has, if it has each one before that too.
fn last_write(disk: &[u8], before: &[u8]) -> Option<u32> {
    let numbers = (0..SLOTS).map(|number| {
        let bytes = &disk[at(START) + number * SLOT..][..4];
        u32::from_le_bytes(bytes.try_into().unwrap())
    });
    let last = numbers.max().unwrap();
    let mut model = before.to_vec();
    for number in 1..=last {
        model[slot(number)..][..SECTOR].copy_from_slice(&content(number));
    }
    (model == disk).then_some(last)
}

/// The most that one backup can miss, if it misses any, is what was written between two commands;
/// and only a cluster that nothing is written to later shows it.
#[test]
fn no_write_is_missing_that_comes_between_two_commands() {
    let test = "no_write_is_missing_that_comes_between_two_commands";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    guest.write(0, SIZE - 512, 0);
    let client = guest.client();
    let writes = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&writes);
    let pass = move |_, _: &str, _| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        client.write_at(place(number), &content(number)).unwrap();
        client.write_at(SIZE - 512, &content(number)).unwrap();
        true
    };
    let socket = between::start(guest.folder.path(), "between", guest.socket(), pass);
    let clock = Arc::new(snapkeep_api::SystemClock::new());
    let qemu = snapkeep_host::Qemu::connect(&socket, clock).unwrap();
    let mut qemu = qemu.with_nbd_server(&guest.folder.path().join("nbd"));
    let log = Log::default();
    let provider = provider(&log);
    for round in 0..4 {
        let request = request(guest.folder.path());
        let done = back_up(&mut qemu, &provider, request, &log, None);
        let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
        let mode = finished.bitmaps[&DEVICE.parse().unwrap()];
        assert_eq!(mode == BitmapMode::Reuse, round > 0, "{}", log.text());
        let disk = restored(&provider, &finished.archive, DEVICE);
        // The last sector tells the instant: it is written each time, and so is always read.
        let last = u32::from_le_bytes(disk[at(SIZE) - 512..][..4].try_into().unwrap());
        assert!(last > 0 && last <= writes.load(Ordering::SeqCst));
        let mut model = guest.model.clone();
        for number in 1..=last {
            model[at(place(number))..][..SECTOR].copy_from_slice(&content(number));
        }
        model[at(SIZE) - 512..].copy_from_slice(&content(last));
        assert!(
            model == disk,
            "round {round}: not all {last} writes are there"
        );
    }
}

/// Each write has a cluster that it does not share with the ninety before it.
fn place(number: u32) -> u64 {
    let clusters = u32::try_from(SIZE / CLUSTER).unwrap();
    u64::from(number % clusters) * CLUSTER + u64::from(number / clusters % 500) * 512
}

#[test]
fn every_archive_of_a_guest_that_never_stops_writing_is_of_one_instant() {
    let test = "every_archive_of_a_guest_that_never_stops_writing_is_of_one_instant";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    assert!(slot(0) < at(SIZE) - SLOTS * SLOT);
    let mut guest = Guest::new(false, "raw");
    // What the numbers are told from.
    guest.write(START, (SLOTS * SLOT) as u64, 0);
    let client = guest.client();
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let mut number = 0;
        while !until.load(Ordering::SeqCst) {
            number += 1;
            client
                .write_at(slot(number) as u64, &content(number))
                .unwrap();
        }
        number
    });
    let log = Log::default();
    let provider = provider(&log);
    let mut qemu = guest.connect();
    let mut archives = Vec::new();
    for round in 0..6 {
        let request = request(guest.folder.path());
        let done = back_up(&mut qemu, &provider, request, &log, None);
        let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
        let mode = finished.bitmaps[&DEVICE.parse().unwrap()];
        assert_eq!(mode == BitmapMode::Reuse, round > 0, "{}", log.text());
        archives.push(finished.archive);
    }
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    let mut last = 0;
    for archive in archives {
        let disk = restored(&provider, &archive, DEVICE);
        let number = last_write(&disk, &guest.model).expect("no write is missing or too many");
        assert!(
            number > last && number <= written,
            "{last} {number} {written}"
        );
        last = number;
    }
}
