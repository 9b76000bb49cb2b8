//! Backups of running guests, each restored and compared with a model of what the guest wrote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::sync::{Arc, Mutex};

use qemu::{DEVICE, Guest, KIB, Log, MIB, SIZE, back_up, provider, request, restored, tool};
use snapkeep_api::BitmapMode;

const CLUSTER: u64 = 256 * KIB;

/// Whether the tools are here.
fn tools(test: &str, system: bool) -> bool {
    let program = if system {
        "qemu-system-x86_64"
    } else {
        "qemu-storage-daemon"
    };
    tool(test, program) && tool(test, "qemu-img")
}

/// A full backup and two incremental ones, with writes before, during and between them.
fn a_chain_restores(system: bool, format: &'static str) {
    let guest = Guest::new(system, format);
    let mut qemu = guest.connect();
    let folder = guest.folder.path().to_owned();
    let guest = Arc::new(Mutex::new(guest));
    let log = Log::default();
    let provider = provider(&log);
    let mut wanted = Vec::new();
    for round in 0..3_u8 {
        let meanwhile = {
            let guest = Arc::clone(&guest);
            Box::new(move || {
                let mut guest = guest.lock().unwrap();
                // Over data, over holes, over what is dirty and what is not, and at the very end.
                guest.write(MIB, 2 * MIB, 40 + round);
                guest.write(14 * MIB + u64::from(round) * MIB, 5 * KIB, 50 + round);
                guest.write(SIZE - 512, 512, 60 + round);
            })
        };
        let model = guest.lock().unwrap().model.clone();
        let finished = back_up(
            &mut qemu,
            &provider,
            request(&folder),
            &log,
            Some(meanwhile),
        )
        .unwrap_or_else(|e| panic!("round {round}: {}\n{}", e.chain(), log.text()));
        assert!(finished.left.is_none(), "{}", log.text());
        let mode = finished.bitmaps[&DEVICE.parse().unwrap()];
        if round == 0 {
            assert_eq!(mode, BitmapMode::New);
        } else {
            assert_eq!(mode, BitmapMode::Reuse, "{}", log.text());
            // 2 MiB, 5 KiB and the end, written in the round before; 100 KiB in between.
            let most = (2 * MIB + 4 * CLUSTER) + 2 * CLUSTER;
            assert!(finished.stats.read <= most, "{}", finished.stats.read);
        }
        wanted.push((finished.archive, model));
        let mut guest = guest.lock().unwrap();
        assert_eq!(guest.ours().len(), 1, "{:?}", guest.ours());
        guest.write(20 * MIB + 3, 100 * KIB + 509, 70 + round);
    }
    for (archive, model) in wanted {
        assert!(restored(&provider, &archive, DEVICE) == model, "{archive}");
    }
}

#[test]
fn a_chain_of_a_raw_disk_behind_a_storage_daemon_restores() {
    let test = "a_chain_of_a_raw_disk_behind_a_storage_daemon_restores";
    if tools(test, false) {
        a_chain_restores(false, "raw");
    }
}

#[test]
fn a_chain_of_a_qcow2_disk_of_an_emulated_machine_restores() {
    let test = "a_chain_of_a_qcow2_disk_of_an_emulated_machine_restores";
    if tools(test, true) {
        a_chain_restores(true, "qcow2");
    }
}
