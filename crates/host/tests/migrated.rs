//! A guest that is migrated live while it writes, its bitmaps with it: the next backup is incremental,
//! and lacks no write. What a bitmap with a fixed name needs beside that is in
//! `provider/tests/lineage.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use qemu::writer::{Model, counters, install, wait_for_writes};
use qemu::{DEVICE, Guest, Log, back_up, provider, request, restored, tool};
use snapkeep_api::BitmapMode::{self, New, Reuse};

/// What happens to a guest, and how its disk is read then.
type Step = (fn(&mut Guest), BitmapMode);

/// Backs up a guest that never stops writing, and does something with it after each backup but the
/// last.
fn a_chain_restores(test: &str, steps: &[Step]) {
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut machine = Guest::new(true, "raw");
    machine.quit();
    install(&mut machine);
    machine.device = vec![
        "-device".to_owned(),
        format!("virtio-blk-pci,id={DEVICE},drive=d0,bootindex=0"),
    ];
    machine.start();
    let log = Log::default();
    let provider = provider(&log);
    let mut model = Model::new(&machine);
    wait_for_writes(&mut machine, 100);
    let mut expected = New;
    let mut steps = steps.iter();
    loop {
        let least = counters(&mut machine).1;
        let request = request(machine.folder.path());
        let done = back_up(&mut machine.connect(), &provider, request, &log, None);
        let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
        let mode = finished.bitmaps[&DEVICE.parse().unwrap()];
        assert_eq!(mode, expected, "{}", log.text());
        model.check(&restored(&provider, &finished.archive, DEVICE), least);
        let Some((happens, mode)) = steps.next() else {
            return;
        };
        expected = *mode;
        wait_for_writes(&mut machine, least + 50);
        happens(&mut machine);
        let done = counters(&mut machine).1;
        assert!(done >= least + 50, "the guest began anew");
        wait_for_writes(&mut machine, done + 50);
    }
}

#[test]
fn a_guest_that_is_migrated_live_while_it_writes_keeps_its_bitmap() {
    a_chain_restores(
        "a_guest_that_is_migrated_live_while_it_writes_keeps_its_bitmap",
        &[
            (Guest::migrate, Reuse),
            (Guest::migrate, Reuse),
            (|_| {}, Reuse),
        ],
    );
}

#[test]
fn a_live_migration_that_fails_leaves_the_bitmap_as_it_is() {
    a_chain_restores(
        "a_live_migration_that_fails_leaves_the_bitmap_as_it_is",
        &[
            (Guest::migrate_in_vain, Reuse),
            (Guest::migrate_in_vain, Reuse),
            (|_| {}, Reuse),
        ],
    );
}

#[test]
fn a_guest_whose_migration_failed_is_migrated_later() {
    a_chain_restores(
        "a_guest_whose_migration_failed_is_migrated_later",
        &[
            (Guest::migrate_in_vain, Reuse),
            (Guest::migrate, Reuse),
            (Guest::migrate_in_vain, Reuse),
        ],
    );
}

#[test]
fn a_guest_that_is_migrated_without_its_bitmaps_is_read_whole() {
    a_chain_restores(
        "a_guest_that_is_migrated_without_its_bitmaps_is_read_whole",
        &[(Guest::migrate_without_bitmaps, New), (|_| {}, Reuse)],
    );
}
