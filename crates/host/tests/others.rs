//! What somebody else does to the guest's disks while a backup begins, runs or ends. The guest
//! keeps its disk, and each archive is of one instant or there is none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qemu::between::{self, Moment};
use qemu::{DEVICE, Guest, KIB, Log, MIB, SIZE, back_up, provider, request, restored, tool};
use serde_json::json;
use snapkeep_api::{ErrorKind, SystemClock};
use snapkeep_host::Qemu;

fn tools(test: &str, system: bool) -> bool {
    let program = if system {
        "qemu-system-x86_64"
    } else {
        "qemu-storage-daemon"
    };
    tool(test, program) && tool(test, "qemu-img")
}

/// A node with a new raw image of the disk's size.
fn add_node(guest: &mut Guest, name: &str) {
    let image = guest.folder.path().join(name);
    std::fs::File::create(&image)
        .unwrap()
        .set_len(SIZE)
        .unwrap();
    let file = json!({"driver": "file", "filename": image, "discard": "unmap"});
    let node = json!({"driver": "raw", "node-name": name, "file": file, "discard": "unmap"});
    guest.execute("blockdev-add", &node);
}

/// Waits until the only block job is in this state, or is gone.
fn wait_for_job(guest: &mut Guest, status: Option<&str>) {
    let start = Instant::now();
    loop {
        let jobs = guest.execute("query-block-jobs", &json!({}));
        if jobs
            .pointer("/0/status")
            .and_then(serde_json::Value::as_str)
            == status
        {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{jobs}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Copies the disk to a new node, which the guest uses from then on. Whether QEMU let it.
fn move_disk(guest: &mut Guest, to: &str) -> bool {
    if !start_mirror(guest, to) {
        guest.execute("blockdev-del", &json!({"node-name": to}));
        return false;
    }
    guest.execute("block-job-complete", &json!({"device": "mirror"}));
    wait_for_job(guest, None);
    true
}

fn start_mirror(guest: &mut Guest, to: &str) -> bool {
    add_node(guest, to);
    let root = guest.root();
    let job = json!({"job-id": "mirror", "device": root, "target": to, "sync": "full"});
    let done = guest.attempt("blockdev-mirror", &job).is_ok();
    if done {
        wait_for_job(guest, Some("ready"));
    }
    done
}

fn a_block_job_is_waited_for(system: bool) {
    let mut guest = Guest::new(system, "raw");
    let log = Log::default();
    let provider = provider(&log);
    let mut qemu = guest.connect();
    assert!(start_mirror(&mut guest, "copy"));
    let request = request(guest.folder.path());
    let error = back_up(&mut qemu, &provider, request.clone(), &log, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    let chain = error.chain();
    assert!(
        chain.contains(DEVICE) && chain.contains("job mirror (mirror)"),
        "{chain}"
    );
    assert!(guest.ours().is_empty(), "{:?}", guest.ours());
    guest.write(MIB, KIB, 7);
    guest.execute("block-job-complete", &json!({"device": "mirror"}));
    wait_for_job(&mut guest, None);
    assert_eq!(guest.root(), "copy");
    guest.write(2 * MIB, KIB, 8);
    let finished = back_up(&mut qemu, &provider, request, &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
    assert_eq!(guest.root(), "copy");
}

#[test]
fn a_disk_of_an_emulated_machine_with_a_block_job_is_not_touched() {
    let test = "a_disk_of_an_emulated_machine_with_a_block_job_is_not_touched";
    if tools(test, true) {
        a_block_job_is_waited_for(true);
    }
}

#[test]
fn a_disk_behind_a_storage_daemon_with_a_block_job_is_not_touched() {
    let test = "a_disk_behind_a_storage_daemon_with_a_block_job_is_not_touched";
    if tools(test, false) {
        a_block_job_is_waited_for(false);
    }
}

/// What somebody else does before a command; whether QEMU let it.
type Act = fn(&mut Guest, usize) -> bool;

/// A disk can be moved elsewhere at any time but one: a job that begins and ends between the look
/// at the guest's way and the next command, which leads the guest past a filter again, is not seen.
fn is_unseen(name: &str, times: usize) -> bool {
    name == "qom-set" && times > 1
}

/// Backs up again and again; before each command in turn somebody else does something, after which
/// the guest's disk must have this node on top. Returns how many backups succeeded and failed.
fn at_every_command(system: bool, act: Act, node: fn(usize) -> String) -> (u32, u32) {
    let guest = Guest::new(system, "raw");
    let (folder, monitor) = (guest.folder.path().to_owned(), guest.socket());
    let guest = Arc::new(Mutex::new(guest));
    let log = Log::default();
    let provider = provider(&log);
    let mut root = guest.lock().unwrap().root();
    let (mut succeeded, mut failed) = (0, 0);
    for at in 1.. {
        let before = guest.lock().unwrap().model.clone();
        let acted = Arc::new(Mutex::new(None));
        // The thread that asks outlives the test.
        let (others, done) = (Arc::downgrade(&guest), Arc::clone(&acted));
        let mut times = BTreeMap::<String, usize>::new();
        let pass = move |number: usize, name: &str, moment| {
            if moment == Moment::After {
                return true;
            }
            *times.entry(name.to_owned()).or_default() += 1;
            if number == at {
                let guest = others.upgrade().unwrap();
                let mut guest = guest.lock().unwrap();
                let allowed = !is_unseen(name, times[name]) && act(&mut guest, at);
                // A guest that stands still does not write.
                if !system || guest.execute("query-status", &json!({}))["status"] == "running" {
                    guest.write(
                        at as u64 % 23 * MIB + 100 * KIB,
                        KIB,
                        u8::try_from(at % 200).unwrap(),
                    );
                }
                *done.lock().unwrap() = Some((allowed, name.to_owned()));
            }
            true
        };
        let socket = between::start(&folder, &format!("between-{at}"), monitor.clone(), pass);
        let mut qemu = Qemu::connect(&socket, Arc::new(SystemClock::new())).unwrap();
        if !system {
            qemu = qemu.with_nbd_server(&folder.join("nbd"));
        }
        let ran = back_up(&mut qemu, &provider, request(&folder), &log, None);
        drop(qemu);
        let Some((allowed, name)) = acted.lock().unwrap().take() else {
            ran.unwrap();
            break;
        };
        let mut guest = guest.lock().unwrap();
        let place = format!(
            "before command {at}, {name}: {allowed}, {ran:?}\n{}",
            log.text()
        );
        match &ran {
            Ok(finished) => {
                assert!(finished.left.is_none(), "{place}");
                let disk = restored(&provider, &finished.archive, DEVICE);
                assert!(disk == before || disk == guest.model, "{place}");
                succeeded += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unavailable, "{}\n{place}", e.chain());
                assert!(e.chain().contains(DEVICE), "{}", e.chain());
                failed += 1;
            }
        }
        if allowed {
            root = node(at);
        }
        assert_eq!(guest.root(), root, "{place}");
        let ours = guest.ours();
        assert!(
            ours.iter().all(|name| name.contains('@')),
            "{ours:?}\n{place}"
        );
    }
    let mut qemu = guest.lock().unwrap().connect();
    let finished = back_up(&mut qemu, &provider, request(&folder), &log, None).unwrap();
    let disk = restored(&provider, &finished.archive, DEVICE);
    assert!(disk == guest.lock().unwrap().model);
    (succeeded, failed)
}

fn a_disk_that_moves(system: bool) {
    let act: Act = |guest, at| move_disk(guest, &format!("copy-{at}"));
    let (succeeded, failed) = at_every_command(system, act, |at| format!("copy-{at}"));
    assert!(succeeded > 10 && failed > 5, "{succeeded} {failed}");
}

#[test]
fn a_guest_of_an_emulated_machine_keeps_the_disk_it_moves_to() {
    let test = "a_guest_of_an_emulated_machine_keeps_the_disk_it_moves_to";
    if tools(test, true) {
        a_disk_that_moves(true);
    }
}

#[test]
fn a_guest_of_a_storage_daemon_keeps_the_disk_it_moves_to() {
    let test = "a_guest_of_a_storage_daemon_keeps_the_disk_it_moves_to";
    if tools(test, false) {
        a_disk_that_moves(false);
    }
}
