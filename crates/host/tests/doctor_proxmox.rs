//! A backup access that a job of Proxmox VE left is told, and taken back if it is for a storage of
//! ours and the job is dead. QEMU's nodes, bitmaps and exports are real; the commands that only
//! Proxmox VE's QEMU has are answered by a stand-in before its monitor.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use qemu::{DEVICE, Guest, Log, MIB, SIZE, tool};
use serde_json::{Value, json};
use snapkeep_api::{Cancel, Clock, SystemClock};
use snapkeep_host::doctor::{Finding, Monitor, Proxmox, State, qemu as look};

const TARGET: &str = "snapshot-access:store";
const BACKGROUND: &str = "backup-access-background-bitmap";
const GRANULARITY: u64 = 4 * MIB;

/// What the stand-in was asked to take back.
type Asked = Arc<Mutex<Vec<Value>>>;

/// A guest of Proxmox VE, and the process of a job, which may be dead.
struct Lab {
    guest: Guest,
    worker: Child,
    proxmox: Proxmox,
    asked: Asked,
}

impl Lab {
    fn new() -> Self {
        let mut guest = Guest::new(true, "raw");
        let folder = guest.folder.path().to_owned();
        let proxmox = Proxmox {
            run: folder.join("run"),
            config: folder.join("pve"),
            lock: folder.join("vzdump.lock"),
        };
        fs::create_dir(&proxmox.run).unwrap();
        fs::create_dir(&proxmox.config).unwrap();
        let asked = Asked::default();
        stand_in(proxmox.run.join("100.qmp"), guest.socket(), &asked);
        let worker = Command::new("sleep").arg("10000").spawn().unwrap();
        let job = proxmox
            .run
            .join(format!("100.backup-access.{}", worker.id()));
        fs::create_dir(&job).unwrap();
        set_up(&mut guest, &job.join("100-nbd.backup-access"));
        Self {
            guest,
            worker,
            proxmox,
            asked,
        }
    }

    fn storage(&self, section: &str) {
        let text = format!("dir: local\n\tpath /var\n\n{section}\n\tcontent backup\n");
        fs::write(self.proxmox.config.join("storage.cfg"), text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.proxmox.run.join("100.qmp")
    }

    fn found(&self, socket: PathBuf) -> Finding {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let monitor = Monitor {
            socket,
            named: true,
        };
        let mut found = look(&monitor, &clock, &[], &self.proxmox).findings;
        found.retain(|finding| finding.kind != "export");
        assert_eq!(found.len(), 1, "{found:?}");
        found.pop().unwrap()
    }

    fn everything(&mut self) -> String {
        let commands = [
            "query-block",
            "query-named-block-nodes",
            "query-block-exports",
        ];
        let told = commands.map(|command| self.guest.execute(command, &json!({})).to_string());
        // The guest's firmware says at some time whether its disk may cache writes.
        told.join("\n")
            .replace("\"writeback\":false", "\"writeback\":true")
    }

    fn bitmap(&mut self, name: &str) -> Option<Value> {
        let nodes = self.guest.execute("query-named-block-nodes", &json!({}));
        let disk = (nodes.as_array().unwrap().iter()).find(|node| node["node-name"] == "d0");
        let bitmaps = disk.unwrap()["dirty-bitmaps"].as_array().unwrap().clone();
        bitmaps.into_iter().find(|bitmap| bitmap["name"] == name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.worker.kill().ok();
        self.worker.wait().ok();
    }
}

/// What Proxmox VE's QEMU makes for `backup-access-setup`, and Proxmox VE itself for a provider.
fn set_up(guest: &mut Guest, socket: &Path) {
    let image = guest.folder.path().join("vm-100-fleece-0.raw");
    fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
    let device = format!("/machine/peripheral/{DEVICE}/virtio-backend");
    let bitmap = |name| json!({"node": "d0", "name": name, "granularity": GRANULARITY});
    let disable = json!({"node": "d0", "name": TARGET});
    let actions = [
        json!({"type": "block-dirty-bitmap-add", "data": bitmap(BACKGROUND)}),
        json!({"type": "block-dirty-bitmap-disable", "data": disable}),
    ];
    let fleecing = json!({"driver": "raw", "node-name": "drive-disk0-fleecing",
                          "file": {"driver": "file", "filename": image}});
    guest.execute("block-dirty-bitmap-add", &bitmap(TARGET));
    guest.write(0, MIB, 4);
    guest.execute("blockdev-add", &fleecing);
    guest.execute("transaction", &json!({"actions": actions}));
    let filter = json!({"driver": "copy-before-write", "node-name": "pve-cbw", "file": "d0",
                        "target": "drive-disk0-fleecing", "on-cbw-error": "break-snapshot",
                        "bitmap": {"node": "d0", "name": TARGET}});
    guest.execute("blockdev-add", &filter);
    let drive = json!({"path": device, "property": "drive", "value": "pve-cbw"});
    guest.execute("qom-set", &drive);
    let snapshot = json!({"driver": "snapshot-access", "node-name": "pve-snap", "file": "pve-cbw"});
    guest.execute("blockdev-add", &snapshot);
    let address = json!({"type": "unix", "data": {"path": socket}});
    guest.execute("nbd-server-start", &json!({"addr": address}));
    let export = json!({"type": "nbd", "id": "drive-disk0", "node-name": "pve-snap", "writable": true,
                        "name": "drive-disk0", "bitmaps": [{"node": "d0", "name": TARGET}]});
    guest.execute("block-export-add", &export);
    // Somebody's export that has nothing to do with the NBD server.
    let node = json!({"driver": "null-co", "node-name": "other"});
    guest.execute("blockdev-add", &node);
    let path = guest.folder.path().join("other.socket");
    let export = json!({"type": "vhost-user-blk", "id": "other", "node-name": "other",
                        "addr": {"type": "unix", "path": path}});
    guest.execute("block-export-add", &export);
}

/// Stands before a monitor.
fn stand_in(socket: PathBuf, monitor: PathBuf, asked: &Asked) {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            // It ends when either end does.
            serve(&client, &UnixStream::connect(&monitor).unwrap(), &asked);
        }
    });
}

fn serve(mut client: &UnixStream, mut server: &UnixStream, asked: &Asked) -> Option<()> {
    let mut commands = BufReader::new(client).lines();
    let mut replies = BufReader::new(server).lines();
    writeln!(client, "{}", replies.next()?.ok()?).ok()?;
    let mut pass = |line: &str| {
        writeln!(server, "{line}").ok()?;
        loop {
            let reply: Value = serde_json::from_str(&replies.next()?.ok()?).unwrap();
            if reply.get("event").is_none() {
                return Some(reply);
            }
        }
    };
    loop {
        let line = commands.next()?.ok()?;
        let command: Value = serde_json::from_str(&line).unwrap();
        let arguments = &command["arguments"];
        let reply = match command["execute"].as_str().unwrap() {
            "query-proxmox-support" => {
                json!({"return": {"backup-access-api": true}, "id": command["id"]})
            }
            "backup-access-teardown" => {
                asked.lock().unwrap().push(arguments.clone());
                if arguments["target-id"] == TARGET {
                    tear_down(&mut pass)?;
                    json!({"return": {}, "id": command["id"]})
                } else {
                    let error = json!({"class": "GenericError", "desc": "got another target"});
                    json!({"error": error, "id": command["id"]})
                }
            }
            _ => pass(&line)?,
        };
        writeln!(client, "{reply}").ok()?;
    }
}

/// What Proxmox VE's QEMU does for a job that failed: the bitmap gets what changed meanwhile.
fn tear_down(pass: &mut impl FnMut(&str) -> Option<Value>) -> Option<()> {
    let device = format!("/machine/peripheral/{DEVICE}/virtio-backend");
    let merge = json!({"node": "d0", "target": TARGET, "bitmaps": [BACKGROUND]});
    for (command, arguments) in [
        ("blockdev-del", json!({"node-name": "pve-snap"})),
        (
            "qom-set",
            json!({"path": device, "property": "drive", "value": "d0"}),
        ),
        ("blockdev-del", json!({"node-name": "pve-cbw"})),
        (
            "block-dirty-bitmap-enable",
            json!({"node": "d0", "name": TARGET}),
        ),
        ("block-dirty-bitmap-merge", merge),
        (
            "block-dirty-bitmap-remove",
            json!({"node": "d0", "name": BACKGROUND}),
        ),
    ] {
        let reply = pass(&json!({"execute": command, "arguments": arguments}).to_string())?;
        assert!(reply.get("error").is_none(), "{command}: {reply}");
    }
    Some(())
}

fn heal(finding: &mut Finding) -> Option<snapkeep_api::Result<String>> {
    finding.heal(&Log::default(), &Cancel::new())
}

fn can_run(test: &str) -> bool {
    tool(test, "qemu-system-x86_64") && tool(test, "qemu-img")
}

#[test]
fn the_access_of_a_dead_job_to_a_storage_of_ours_is_taken_back_and_its_bitmap_stays() {
    let test = "the_access_of_a_dead_job_to_a_storage_of_ours_is_taken_back_and_its_bitmap_stays";
    if !can_run(test) {
        return;
    }
    let mut lab = Lab::new();
    lab.storage("snapkeep: store");
    let before = lab.everything();
    // As long as the job lives it is let alone.
    let mut found = lab.found(lab.socket());
    assert_eq!(found.state, State::InUse, "{found:?}");
    assert_eq!(found.owner.process, Some(lab.worker.id()));
    assert!(heal(&mut found).is_none());
    assert_eq!(lab.everything(), before);

    lab.worker.kill().unwrap();
    lab.worker.wait().unwrap();
    // Somebody must be able to tell which guest it is.
    let other = lab.proxmox.run.join("other");
    std::os::unix::fs::symlink(lab.socket(), &other).unwrap();
    assert_eq!(lab.found(other).state, State::Unseen);
    let mut found = lab.found(lab.socket());
    assert_eq!(found.state, State::Stale, "{found:?}");
    assert_eq!(found.owner.product, "snapkeep");
    lab.guest.write(12 * MIB, MIB, 5);
    let done = heal(&mut found).unwrap().unwrap();
    assert!(done.contains("qm unlock 100"), "{done}");
    let asked = lab.asked.lock().unwrap().clone();
    assert_eq!(asked, [json!({"target-id": TARGET, "success": false})]);
    let exports = lab.guest.execute("query-block-exports", &json!({}));
    assert_eq!(exports.as_array().unwrap().len(), 1, "{exports}");
    assert_eq!(exports[0]["id"], "other");
    assert!(lab.bitmap(BACKGROUND).is_none());
    // What was written before and meanwhile is dirty for the next backup.
    let bitmap = lab.bitmap(TARGET).unwrap();
    assert_eq!(
        (&bitmap["count"], &bitmap["recording"]),
        (&json!(2 * GRANULARITY), &json!(true))
    );
    // Its fleecing image is Proxmox VE's.
    let nodes = lab.guest.execute("query-named-block-nodes", &json!({}));
    assert!(nodes.to_string().contains("drive-disk0-fleecing"));
    assert!(lab.guest.folder.path().join("vm-100-fleece-0.raw").exists());
    // The NBD server is gone: Proxmox VE can start the next one.
    let job = format!("100.backup-access.{}", lab.worker.id());
    let socket = lab.proxmox.run.join(job).join("100-nbd.backup-access");
    assert!(UnixStream::connect(socket).is_err());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let monitor = Monitor {
        socket: lab.socket(),
        named: true,
    };
    let found = look(&monitor, &clock, &[], &lab.proxmox).findings;
    assert!(
        found.iter().all(|finding| finding.kind == "export"),
        "{found:?}"
    );
}

#[test]
fn the_access_for_a_storage_of_another_product_is_told_and_untouched() {
    let test = "the_access_for_a_storage_of_another_product_is_told_and_untouched";
    if !can_run(test) {
        return;
    }
    let mut lab = Lab::new();
    lab.worker.kill().unwrap();
    lab.worker.wait().unwrap();
    let before = lab.everything();
    for (section, product) in [
        ("other: store", "the storage store of Proxmox VE, of other"),
        (
            "snapkeep: store2",
            "the storage store of Proxmox VE, of no known type",
        ),
    ] {
        lab.storage(section);
        let mut found = lab.found(lab.socket());
        assert_eq!(
            (found.state, &*found.owner.product),
            (State::Foreign, product)
        );
        assert!(heal(&mut found).is_none());
    }
    // Without the bitmap that stands still nobody knows for whom it is.
    lab.storage("snapkeep: store");
    lab.guest.execute(
        "block-dirty-bitmap-remove",
        &json!({"node": "d0", "name": BACKGROUND}),
    );
    let mut found = lab.found(lab.socket());
    assert_eq!(
        (found.state, &*found.owner.product),
        (State::Foreign, "unknown")
    );
    assert!(heal(&mut found).is_none());
    let bitmap = json!({"node": "d0", "name": BACKGROUND, "granularity": GRANULARITY});
    lab.guest.execute("block-dirty-bitmap-add", &bitmap);
    assert_eq!(lab.everything(), before);
    assert!(lab.asked.lock().unwrap().is_empty());
}
