//! Which disks are backed up, how they are called, and which are refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use qemu::{Guest, KIB, Log, MIB, back_up, provider, request, restored, tool};

fn system(test: &str) -> bool {
    tool(test, "qemu-system-x86_64") && tool(test, "qemu-img")
}

/// An image filled with one byte, as a file of the guest's folder.
fn image(guest: &Guest, name: &str, byte: u8) -> String {
    let path = guest.folder.path().join(name);
    std::fs::write(&path, vec![byte; qemu::at(MIB)]).unwrap();
    path.into_os_string().into_string().unwrap()
}

#[test]
fn all_kinds_of_disks_are_called_by_their_names_and_backed_up_together() {
    if !system("all_kinds_of_disks_are_called_by_their_names_and_backed_up_together") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let (a, b, c) = (
        image(&guest, "a", 0xa1),
        image(&guest, "b", 0xb1),
        image(&guest, "c", 0xc1),
    );
    guest.quit();
    for argument in [
        "-drive",
        &format!("if=virtio,id=virtio0,format=raw,file={a}"),
        "-device",
        "virtio-scsi-pci,id=scsi",
        "-drive",
        &format!("if=none,id=drive-scsi0,format=raw,file={b}"),
        "-device",
        "scsi-hd,drive=drive-scsi0,id=scsi0",
        "-drive",
        &format!("if=none,id=other,format=raw,file={c},read-only=on"),
        "-device",
        "scsi-cd,drive=other,id=cd",
        "-device",
        "virtio-scsi-pci,id=scsi1",
        "-device",
        "scsi-cd,id=empty,bus=scsi1.0",
    ] {
        guest.more.push(argument.to_owned());
    }
    guest.start();
    let log = Log::default();
    let provider = provider(&log);
    for _ in 0..2 {
        let request = request(guest.folder.path());
        let done = back_up(&mut guest.connect(), &provider, request, &log, None);
        let finished = done.unwrap_or_else(|e| panic!("{}", e.chain()));
        assert_eq!(finished.bitmaps.len(), 3);
        assert!(restored(&provider, &finished.archive, qemu::DEVICE) == guest.model);
        for (device, byte) in [("virtio0", 0xa1), ("drive-scsi0", 0xb1)] {
            let bytes = restored(&provider, &finished.archive, device);
            assert!(bytes == vec![byte; qemu::at(MIB)], "{device}");
        }
    }
    assert!(
        log.text().contains("other is left out: it is removable"),
        "{}",
        log.text()
    );
    let mut request = request(guest.folder.path());
    request.disks = Some(vec!["other".parse().unwrap()]);
    let error = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap_err();
    assert!(error.chain().contains("read-only"), "{}", error.chain());
}

#[test]
fn storage_that_qemu_does_not_see_is_warned_of() {
    let test = "storage_that_qemu_does_not_see_is_warned_of";
    if !system(test) {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let pmem = image(&guest, "pmem", 0xa1);
    guest.quit();
    let memory = format!("memory-backend-file,id=mem,share=on,size=1M,mem-path={pmem}");
    for argument in [
        "-object",
        &memory,
        "-device",
        "virtio-pmem-pci,id=pmem,memdev=mem",
    ] {
        guest.more.push(argument.to_owned());
    }
    // What such a device is put into.
    guest
        .more
        .extend(["-m".to_owned(), "32,maxmem=1G".to_owned()]);
    guest.start();
    let log = Log::default();
    let request = request(guest.folder.path());
    back_up(&mut guest.connect(), &provider(&log), request, &log, None).unwrap();
    let warned = "Warn: /machine/peripheral/pmem (virtio-pmem-pci) is not backed up";
    assert!(log.text().contains(warned), "{}", log.text());
    assert_eq!(log.text().matches("Warn").count(), 1, "{}", log.text());
}

#[test]
fn a_disk_that_is_not_there_is_named_with_those_that_are() {
    let test = "a_disk_that_is_not_there_is_named_with_those_that_are";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let guest = Guest::new(false, "raw");
    let log = Log::default();
    let mut request = request(guest.folder.path());
    request.disks = Some(vec!["disk9".parse().unwrap()]);
    let error = back_up(&mut guest.connect(), &provider(&log), request, &log, None).unwrap_err();
    assert!(error.chain().contains("disk9") && error.chain().contains("disk0"));
}

#[test]
fn a_fleecing_image_that_is_full_fails_the_backup_and_not_the_guest() {
    let test = "a_fleecing_image_that_is_full_fails_the_backup_and_not_the_guest";
    if !system(test) {
        return;
    }
    let small = tempfile::TempDir::new().unwrap();
    let Some(_mount) = qemu::Mount::tmpfs(test, small.path(), "17m") else {
        return;
    };
    let guest = Guest::new(true, "raw");
    let folder = guest.folder.path().to_owned();
    let log = Log::default();
    let provider = provider(&log);
    let guest = std::sync::Arc::new(std::sync::Mutex::new(guest));
    let writer = std::sync::Arc::clone(&guest);
    let meanwhile = Box::new(move || {
        let mut guest = writer.lock().unwrap();
        for number in 0..23 {
            guest.write(number * MIB, MIB, 7);
        }
    });
    let mut qemu = guest.lock().unwrap().connect();
    let done = back_up(
        &mut qemu,
        &provider,
        request(small.path()),
        &log,
        Some(meanwhile),
    );
    assert_eq!(done.unwrap_err().kind(), snapkeep_api::ErrorKind::Source);
    let mut guest = guest.lock().unwrap();
    assert!(guest.ours().is_empty(), "{:?}", guest.ours());
    let status = guest.execute("query-status", &serde_json::json!({}));
    assert_eq!(status["status"], "running");
    guest.write(5 * KIB, KIB, 8);
    let finished = back_up(&mut qemu, &provider, request(&folder), &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, qemu::DEVICE) == guest.model);
}

#[test]
fn an_nbd_server_that_nobody_named_is_let_alone() {
    let test = "an_nbd_server_that_nobody_named_is_let_alone";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let clock = std::sync::Arc::new(snapkeep_api::SystemClock::new());
    let mut qemu = snapkeep_host::Qemu::connect(&guest.socket(), clock).unwrap();
    let log = Log::default();
    let request = request(guest.folder.path());
    let error = back_up(&mut qemu, &provider(&log), request, &log, None).unwrap_err();
    assert!(
        error.chain().contains("name its socket"),
        "{}",
        error.chain()
    );
    assert!(guest.ours().is_empty(), "{:?}", guest.ours());
    guest.write(0, 512, 9);
}
