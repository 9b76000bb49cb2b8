//! What becomes of dirty bitmaps when a backup fails, QEMU ends, or the disk changes its size.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use qemu::{DEVICE, Guest, KIB, Log, MIB, SIZE, back_up, provider, request, restored, tool};
use serde_json::json;
use snapkeep_api::{BackupStats, BitmapMode, Provider};
use snapkeep_host::limits::GENERATIONS_MAX;

const CLUSTER: u64 = 256 * KIB;

/// A backup that succeeds and restores to the model.
fn good(guest: &mut Guest, provider: &dyn Provider, log: &Log) -> (BitmapMode, BackupStats) {
    let mut qemu = guest.connect();
    let request = request(guest.folder.path());
    let finished = back_up(&mut qemu, provider, request, log, None)
        .unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
    assert!(finished.left.is_none(), "{}", log.text());
    assert!(restored(provider, &finished.archive, DEVICE) == guest.model);
    assert_eq!(guest.ours().len(), 1, "{:?}", guest.ours());
    (finished.bitmaps[&DEVICE.parse().unwrap()], finished.stats)
}

#[test]
fn a_failed_backup_leaves_nothing_and_loses_no_write() {
    let test = "a_failed_backup_leaves_nothing_and_loses_no_write";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let log = Log::default();
    let provider = provider(&log);
    good(&mut guest, &provider, &log);
    let kept = guest.ours();
    guest.write(5 * MIB, 10, 9);
    {
        let mut qemu = guest.connect();
        let cancel = snapkeep_api::Cancel::new();
        let failing = provider.clone().with_cancel(cancel.clone());
        let meanwhile = Box::new(move || cancel.cancel());
        let request = request(guest.folder.path());
        let error = back_up(&mut qemu, &failing, request, &log, Some(meanwhile)).unwrap_err();
        assert_eq!(error.kind(), snapkeep_api::ErrorKind::Cancelled);
    }
    assert_eq!(guest.ours(), kept);
    assert_eq!(guest.folders(), 0);
    guest.write(7 * MIB, 10, 9);
    let (mode, stats) = good(&mut guest, &provider, &log);
    assert_eq!(mode, BitmapMode::Reuse, "{}", log.text());
    assert_eq!(stats.read, 2 * CLUSTER);
}

#[test]
fn a_backup_that_is_not_incremental_reads_all_and_is_a_base() {
    let test = "a_backup_that_is_not_incremental_reads_all_and_is_a_base";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let log = Log::default();
    let provider = provider(&log);
    good(&mut guest, &provider, &log);
    let mut qemu = guest.connect();
    let mut request = request(guest.folder.path());
    request.incremental = false;
    let finished = back_up(&mut qemu, &provider, request, &log, None).unwrap();
    assert_eq!(finished.bitmaps[&DEVICE.parse().unwrap()], BitmapMode::New);
    drop(qemu);
    assert_eq!(guest.ours().len(), 2, "both archives have a bitmap");
    guest.write(MIB, 10, 9);
    let mut qemu = guest.connect();
    let disks = qemu.disks().unwrap();
    assert_eq!(disks[0].bitmaps[0].base, finished.archive, "newest first");
    assert_eq!(disks[0].bitmaps[0].dirty, CLUSTER);
}

#[test]
fn bitmaps_of_a_qcow2_image_outlive_a_qemu_that_ends_in_good_order_only() {
    let test = "bitmaps_of_a_qcow2_image_outlive_a_qemu_that_ends_in_good_order_only";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "qcow2");
    let log = Log::default();
    let provider = provider(&log);
    good(&mut guest, &provider, &log);
    guest.write(6 * MIB, 10, 9);
    guest.quit();
    guest.start();
    guest.write(8 * MIB, 10, 9);
    let (mode, stats) = good(&mut guest, &provider, &log);
    assert_eq!((mode, stats.read), (BitmapMode::Reuse, 2 * CLUSTER));
    // Now the image has a bitmap that says it is in use, and what it says is old.
    guest.quit();
    guest.start();
    guest.write(9 * MIB, 10, 9);
    guest.flush();
    guest.kill();
    guest.start();
    let (mode, _) = good(&mut guest, &provider, &log);
    assert_eq!(mode, BitmapMode::New, "{}", log.text());
}

#[test]
fn bitmaps_of_a_raw_image_end_with_qemu() {
    let test = "bitmaps_of_a_raw_image_end_with_qemu";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let log = Log::default();
    let provider = provider(&log);
    good(&mut guest, &provider, &log);
    guest.quit();
    guest.start();
    assert!(guest.ours().is_empty());
    let (mode, _) = good(&mut guest, &provider, &log);
    assert_eq!(mode, BitmapMode::New);
}

#[test]
fn a_disk_that_grew_is_read_whole() {
    let test = "a_disk_that_grew_is_read_whole";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let log = Log::default();
    let provider = provider(&log);
    good(&mut guest, &provider, &log);
    let size = SIZE + MIB;
    guest.execute("block_resize", &json!({"node-name": "d0", "size": size}));
    guest.model.resize(qemu::at(size), 0);
    guest.write(size - 512, 512, 7);
    let (mode, _) = good(&mut guest, &provider, &log);
    assert_eq!(mode, BitmapMode::New, "{}", log.text());
    let (mode, stats) = good(&mut guest, &provider, &log);
    assert_eq!((mode, stats.read), (BitmapMode::Reuse, 0));
}

#[test]
fn no_more_bitmaps_stay_than_are_allowed() {
    let test = "no_more_bitmaps_stay_than_are_allowed";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let log = Log::default();
    let provider = provider(&log);
    let mut qemu = guest.connect();
    let mut newest = Vec::new();
    for round in 0..GENERATIONS_MAX as u64 + 2 {
        let mut request = request(guest.folder.path());
        request.incremental = false;
        let finished = back_up(&mut qemu, &provider, request, &log, None).unwrap();
        newest.insert(0, finished.archive);
        guest.write(round * MIB, 10, 9);
    }
    newest.truncate(GENERATIONS_MAX);
    let disks = qemu.disks().unwrap();
    let bases: Vec<_> = disks[0].bitmaps.iter().map(|b| b.base.clone()).collect();
    assert_eq!(bases, newest);
}
