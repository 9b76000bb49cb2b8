//! Disks whose requests QEMU handles in threads of their own: the guest, a boot sector, writes
//! through the device all the time, and numbers its writes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::sync::{Arc, Mutex};

use qemu::writer::{Model, counters, install, wait_for_writes};
use qemu::{DEVICE, Guest, Log, MIB, Meanwhile, back_up, provider, request, restored, tool};
use serde_json::json;
use snapkeep_api::BitmapMode;

const ROUNDS: u32 = 3;
const BOTH: &str = r#"[{"iothread": "io0"}, {"iothread": "io1"}]"#;

/// How often the iothreads of QEMU had something to do.
fn awakenings(machine: &mut Guest) -> u64 {
    let threads = machine.execute("query-iothreads", &json!({}));
    let ids = threads
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| &thread["thread-id"]);
    let of = |id: &serde_json::Value| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    ids.map(of).sum()
}

/// Backs up a guest that never stops writing, and has a second disk.
fn a_chain_restores(format: &'static str, device: &[&str], more: &[&str]) {
    let mut machine = Guest::new(true, format);
    machine.quit();
    install(&mut machine);
    let second = machine.folder.path().join("second");
    std::fs::write(&second, vec![0x77; qemu::at(MIB)]).unwrap();
    let threads = ["-object", "iothread,id=io0", "-object", "iothread,id=io1"];
    let words = threads.iter().chain(device);
    machine.device = words.map(|word| (*word).to_owned()).collect();
    let file = json!({"driver": "file", "filename": second, "node-name": "d1"});
    machine.more = vec!["-blockdev".to_owned(), file.to_string()];
    machine
        .more
        .extend(more.iter().map(|word| (*word).to_owned()));
    machine.start();

    let log = Log::default();
    let provider = provider(&log);
    wait_for_writes(&mut machine, 100);
    let asleep = awakenings(&mut machine);
    wait_for_writes(&mut machine, 200);
    assert!(
        awakenings(&mut machine) > asleep + 50,
        "the iothread is not used"
    );
    let (mut qemu, folder) = (machine.connect(), machine.folder.path().to_owned());
    let machine = Arc::new(Mutex::new(machine));
    let mut archives = Vec::new();
    let mut least = 0;
    for round in 0..ROUNDS {
        least = least.max(counters(&mut machine.lock().unwrap()).1);
        let guest = Arc::clone(&machine);
        let restart = Box::new(move || {
            // The device leaves its threads, with everything that lies on the disk, and comes back.
            let mut guest = guest.lock().unwrap();
            guest.execute("system_reset", &json!({}));
            wait_for_writes(&mut guest, 20);
        });
        let meanwhile: Option<Meanwhile> = if round % 2 == 1 { Some(restart) } else { None };
        let done = back_up(&mut qemu, &provider, request(&folder), &log, meanwhile);
        let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
        assert!(finished.left.is_none(), "{}", log.text());
        for mode in finished.bitmaps.values() {
            assert_eq!(*mode == BitmapMode::Reuse, round > 0, "{}", log.text());
        }
        archives.push((finished.archive, least));
        let mut guest = machine.lock().unwrap();
        let (_, done) = counters(&mut guest);
        wait_for_writes(&mut guest, done + 50);
    }
    let mut model = Model::new(&machine.lock().unwrap());
    for (archive, least) in archives {
        model.check(&restored(&provider, &archive, DEVICE), least);
        assert!(restored(&provider, &archive, "disk1") == vec![0x77; qemu::at(MIB)]);
    }
    let ours = machine.lock().unwrap().ours();
    assert!(ours.iter().all(|name| name.contains('@')), "{ours:?}");
}

fn system(test: &str) -> bool {
    tool(test, "qemu-system-x86_64") && tool(test, "qemu-img")
}

#[test]
fn a_virtio_blk_disk_with_an_iothread_restores() {
    if system("a_virtio_blk_disk_with_an_iothread_restores") {
        let one = [
            "-device",
            "virtio-blk-pci,id=disk0,drive=d0,bootindex=0,iothread=io0",
        ];
        let two = ["-device", "virtio-blk-pci,id=disk1,drive=d1,iothread=io1"];
        a_chain_restores("raw", &one, &two);
    }
}

#[test]
fn a_virtio_scsi_disk_with_an_iothread_restores() {
    if system("a_virtio_scsi_disk_with_an_iothread_restores") {
        let one = [
            "-device",
            "virtio-scsi-pci,id=scsi,iothread=io0",
            "-device",
            "scsi-hd,id=disk0,drive=d0,bootindex=0,bus=scsi.0",
        ];
        let two = ["-device", "scsi-hd,id=disk1,drive=d1,bus=scsi.0"];
        a_chain_restores("qcow2", &one, &two);
    }
}

#[test]
fn a_disk_with_several_iothreads_restores_beside_one_with_none() {
    if system("a_disk_with_several_iothreads_restores_beside_one_with_none") {
        let device = format!(
            r#"{{"driver": "virtio-blk-pci", "id": "disk0", "drive": "d0", "bootindex": 0, "iothread-vq-mapping": {BOTH}}}"#
        );
        let two = ["-device", "virtio-blk-pci,id=disk1,drive=d1"];
        a_chain_restores("raw", &["-smp", "2", "-device", &device], &two);
    }
}

#[test]
fn an_export_with_an_iothread_restores() {
    let test = "an_export_with_an_iothread_restores";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    for export in [",iothread=io0", ",iothread=io0,fixed-iothread=on"] {
        let mut machine = Guest::new(false, "raw");
        machine.quit();
        machine.export = export;
        machine.more = ["--object", "iothread,id=io0"].map(str::to_owned).to_vec();
        machine.start();
        let mut qemu = machine.connect();
        let folder = machine.folder.path().to_owned();
        let machine = Arc::new(Mutex::new(machine));
        let log = Log::default();
        let provider = provider(&log);
        for round in 0..ROUNDS {
            let writer = Arc::clone(&machine);
            let byte = u8::try_from(round + 1).unwrap();
            let meanwhile = Box::new(move || {
                let mut machine = writer.lock().unwrap();
                machine.write(MIB / 2, 3 * MIB, byte);
                machine.write(20 * MIB, 512, byte);
            });
            let model = machine.lock().unwrap().model.clone();
            let request = request(&folder);
            let done = back_up(&mut qemu, &provider, request, &log, Some(meanwhile));
            let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
            assert!(finished.left.is_none(), "{}", log.text());
            let mode = finished.bitmaps[&DEVICE.parse().unwrap()];
            assert_eq!(mode == BitmapMode::Reuse, round > 0, "{}", log.text());
            assert!(restored(&provider, &finished.archive, DEVICE) == model);
            machine.lock().unwrap().write(11 * MIB, MIB, byte);
        }
    }
}
