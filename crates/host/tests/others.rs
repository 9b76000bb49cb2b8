//! What somebody else does to the guest's disks while a backup begins, runs or ends. The guest
//! keeps its disk, and each archive is of one instant or there is none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qemu::between::{self, Moment};
use qemu::{DEVICE, Guest, KIB, Log, MIB, SIZE, back_up, provider, request, restored, tool};
use serde_json::{Value, json};
use snapkeep_api::{BitmapMode, ErrorKind, Provider, SystemClock};
use snapkeep_host::{Finished, Qemu};

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
        if jobs.pointer("/0/status").and_then(Value::as_str) == status {
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
    name == "qom-set" && times > 2
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

/// An external snapshot: the guest writes to an overlay from now on.
fn snapshot(guest: &mut Guest, on: &str, name: &str) -> bool {
    let image = guest.folder.path().join(name);
    let path = image.to_str().unwrap();
    qemu::run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", path, &SIZE.to_string()],
    );
    let file = json!({"driver": "file", "filename": path});
    let mut node = json!({"driver": "qcow2", "node-name": name, "file": file});
    node["backing"] = json!(null);
    guest.execute("blockdev-add", &node);
    let done = guest.attempt("blockdev-snapshot", &json!({"node": on, "overlay": name}));
    if done.is_err() {
        guest.execute("blockdev-del", &json!({"node-name": name}));
    }
    done.is_ok()
}

/// The node that is the file or the backing file of another.
fn under(guest: &mut Guest, node: &str) -> String {
    let graph = guest.execute("x-debug-query-block-graph", &json!({}));
    let (nodes, edges) = (graph["nodes"].as_array(), graph["edges"].as_array());
    let is_node = |member: &&Value| member["type"] == "block-driver" && member["name"] == node;
    let id = &nodes.unwrap().iter().find(is_node).unwrap()["id"];
    let edges = edges.unwrap().iter().filter(|edge| edge["parent"] == *id);
    // A qcow2 node has a file too.
    let below = edges.min_by_key(|edge| edge["name"] != "backing").unwrap();
    let mut nodes = nodes.unwrap().iter();
    let below = nodes.find(|member| member["id"] == below["child"]);
    below.unwrap()["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_guest_keeps_the_overlays_of_snapshots_at_any_time() {
    let test = "a_guest_keeps_the_overlays_of_snapshots_at_any_time";
    if !tools(test, true) {
        return;
    }
    let act: Act = |guest, at| {
        let root = guest.root();
        snapshot(guest, &root, &format!("overlay-{at}"))
    };
    let (succeeded, failed) = at_every_command(true, act, |at| format!("overlay-{at}"));
    assert!(succeeded > 15 && failed > 5, "{succeeded} {failed}");
}

#[test]
fn a_guest_of_a_storage_daemon_keeps_the_overlays_of_snapshots() {
    let test = "a_guest_of_a_storage_daemon_keeps_the_overlays_of_snapshots";
    if !tools(test, false) {
        return;
    }
    // The export's own node stays on top: a filter has its place under it.
    let act: Act = |guest, at| {
        let on = under(guest, "top");
        let done = snapshot(guest, &on, &format!("overlay-{at}"));
        assert!(done, "{on}");
        done
    };
    let (succeeded, failed) = at_every_command(false, act, |_| "top".to_owned());
    assert!(succeeded > 15 && failed > 5, "{succeeded} {failed}");
}

/// A backup during which somebody else does something and the guest writes.
fn while_frozen(
    guest: Guest,
    provider: &dyn Provider,
    log: &Log,
    act: impl FnOnce(&mut Guest) + Send + 'static,
) -> (Guest, Finished) {
    let (mut qemu, model) = (guest.connect(), guest.model.clone());
    let request = request(guest.folder.path());
    let guest = Arc::new(Mutex::new(guest));
    let others = Arc::clone(&guest);
    let meanwhile = Box::new(move || {
        let mut guest = others.lock().unwrap();
        guest.write(MIB, MIB, 0x31);
        act(&mut guest);
        guest.write(2 * MIB, MIB, 0x32);
        guest.write(17 * MIB, MIB, 0x33);
    });
    let done = back_up(&mut qemu, provider, request, log, Some(meanwhile));
    let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
    assert!(
        restored(provider, &finished.archive, DEVICE) == model,
        "{}",
        log.text()
    );
    let guest = Arc::into_inner(guest).unwrap().into_inner().unwrap();
    (guest, finished)
}

/// The next backup, of a guest that wrote once more.
fn then_back_up(guest: &mut Guest, provider: &dyn Provider, log: &Log) -> BitmapMode {
    guest.write(4 * MIB, MIB, 0x34);
    let request = request(guest.folder.path());
    let done = back_up(&mut guest.connect(), provider, request, log, None);
    let finished = done.unwrap_or_else(|e| panic!("{}\n{}", e.chain(), log.text()));
    assert!(restored(provider, &finished.archive, DEVICE) == guest.model);
    assert!(finished.left.is_none(), "{}", log.text());
    let ours = guest.ours();
    assert!(ours.iter().all(|name| name.contains('@')), "{ours:?}");
    finished.bitmaps[&DEVICE.parse().unwrap()]
}

#[test]
fn another_backup_of_the_disk_changes_nothing_in_ours() {
    let test = "another_backup_of_the_disk_changes_nothing_in_ours";
    if !tools(test, true) {
        return;
    }
    let log = Log::default();
    let provider = provider(&log);
    let (mut guest, finished) = while_frozen(Guest::new(true, "raw"), &provider, &log, |guest| {
        add_node(guest, "theirs");
        let root = guest.root();
        let job = json!({"job-id": "theirs", "device": root, "target": "theirs", "sync": "none"});
        guest.execute("blockdev-backup", &job);
    });
    // It lies on our filter, which has to stay.
    let left = finished.left.expect("something is left").chain();
    assert!(left.contains("job theirs"), "{left}");
    let request = request(guest.folder.path());
    let again = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap_err();
    assert!(again.chain().contains("job theirs"), "{}", again.chain());
    guest.write(3 * MIB, MIB, 0x35);
    guest.execute("block-job-cancel", &json!({"device": "theirs"}));
    wait_for_job(&mut guest, None);
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::Reuse);
    assert_eq!(guest.root(), "d0");
    assert_eq!(guest.folders(), 0);
}

#[test]
fn a_disk_that_moves_while_it_is_read_is_backed_up_as_it_was() {
    let test = "a_disk_that_moves_while_it_is_read_is_backed_up_as_it_was";
    if !tools(test, true) {
        return;
    }
    let log = Log::default();
    let provider = provider(&log);
    let (mut guest, finished) = while_frozen(Guest::new(true, "raw"), &provider, &log, |guest| {
        assert!(move_disk(guest, "copy"));
    });
    assert!(finished.left.is_none(), "{}", log.text());
    assert_eq!(guest.root(), "copy");
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::New);
    assert_eq!(guest.root(), "copy");
}

/// A snapshot while the disk is read, one after, and the way back: at no time is a bitmap believed
/// that did not see what the guest wrote.
fn overlays_come_and_go(format: &'static str, sync: bool) {
    let log = Log::default();
    let provider = provider(&log);
    let (mut guest, finished) = while_frozen(
        Guest::new(true, format),
        &provider,
        &log,
        move |guest| {
            let root = guest.root();
            if sync {
                let file = guest.folder.path().join("overlay");
                let options = json!({"node-name": root, "snapshot-file": file, "snapshot-node-name": "overlay"});
                guest.execute("blockdev-snapshot-sync", &options);
            } else {
                assert!(snapshot(guest, &root, "overlay"));
            }
        },
    );
    assert!(finished.left.is_none(), "{}", log.text());
    assert_eq!(
        (guest.root().as_str(), under(&mut guest, "overlay").as_str()),
        ("overlay", "d0")
    );
    // QEMU wrote our filter's driver there, without which the overlay could not be opened again.
    let nodes = guest.execute("query-named-block-nodes", &json!({}));
    let overlay = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["node-name"] == "overlay");
    let overlay = &overlay.unwrap()["image"];
    assert_eq!(overlay["backing-filename-format"], format, "{overlay}");
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::New);
    guest.write(5 * MIB, MIB, 0x36);
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::Reuse);
    guest.write(6 * MIB, MIB, 0x37);
    guest.execute(
        "block-commit",
        &json!({"job-id": "mirror", "device": "overlay", "base-node": "d0"}),
    );
    wait_for_job(&mut guest, Some("ready"));
    guest.execute("block-job-complete", &json!({"device": "mirror"}));
    wait_for_job(&mut guest, None);
    assert_eq!(guest.root(), "d0");
    then_back_up(&mut guest, &provider, &log);
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::Reuse);
}

#[test]
fn an_overlay_of_a_snapshot_gets_the_disk_itself_back() {
    let test = "an_overlay_of_a_snapshot_gets_the_disk_itself_back";
    if tools(test, true) {
        overlays_come_and_go("raw", true);
        overlays_come_and_go("qcow2", false);
    }
}

#[test]
fn an_overlay_that_cannot_be_led_past_is_named_until_it_can() {
    let test = "an_overlay_that_cannot_be_led_past_is_named_until_it_can";
    if !tools(test, true) {
        return;
    }
    let log = Log::default();
    let provider = provider(&log);
    let (mut guest, finished) = while_frozen(Guest::new(true, "raw"), &provider, &log, |guest| {
        let root = guest.root();
        assert!(snapshot(guest, &root, "overlay"));
        let job = json!({"job-id": "mirror", "device": "overlay", "base-node": root});
        guest.execute("block-commit", &job);
    });
    let left = finished.left.expect("something is left").chain();
    assert!(left.contains("job mirror"), "{left}");
    let request = request(guest.folder.path());
    let again = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap_err();
    assert!(again.chain().contains("job mirror"), "{}", again.chain());
    guest.execute(
        "block-job-cancel",
        &json!({"device": "mirror", "force": true}),
    );
    wait_for_job(&mut guest, None);
    assert_eq!(then_back_up(&mut guest, &provider, &log), BitmapMode::New);
    assert_eq!(under(&mut guest, "overlay"), "d0");
}
