//! Why a disk is read whole reaches the task log. How the provider judges, for every history, is in
//! `provider/tests/lineage.rs`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::support::{are_here, sh, wait_until};
use crate::{Caller, created_open};

const SIZE: u64 = 1 << 20;

/// A server of the guest's disk, gone with the test.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Self {
        fs::write(folder.join("disk"), vec![7; usize::try_from(SIZE).unwrap()]).unwrap();
        let socket = folder.join("nbd");
        let mut server = Command::new("qemu-nbd");
        server.args(["-f", "raw", "-t", "-x", "drive-scsi0", "-k"]);
        let server = Self(
            server
                .arg(&socket)
                .arg(folder.join("disk"))
                .spawn()
                .unwrap(),
        );
        wait_until("a server", || UnixStream::connect(&socket).is_ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One backup, and what was said of its bitmap; its archive.
#[track_caller]
fn back_up(caller: &mut Caller, socket: &Path, said: &[&str]) -> String {
    let now = jiff::Timestamp::now().as_second();
    caller.call("job_init", json!({"start_time": now})).unwrap();
    let guest = json!({"vmid": 100, "vmtype": "qemu", "start_time": now});
    let named = caller.call("backup_init", guest).unwrap();
    let volumes = json!({"drive-scsi0": {"size": SIZE}});
    caller.logged.clear();
    let asked = json!({"vmid": 100, "volumes": volumes});
    let answer = caller.call("backup_vm_query_incremental", asked).unwrap();
    assert_eq!(answer, json!({"drive-scsi0": "new"}));
    let lines = caller.logged.join("\n");
    assert_eq!(caller.logged.len(), said.len(), "{lines}");
    for (line, word) in caller.logged.iter().zip(said) {
        let (level, word) = word.split_once(' ').unwrap();
        assert!(line.starts_with(level) && line.contains(word), "{lines}");
    }
    let volume =
        json!({"size": SIZE, "bitmap_mode": "new", "nbd_path": socket, "bitmap_name": null});
    let vm = json!({"vmid": 100, "guest_config": "", "volumes": {"drive-scsi0": volume}});
    caller.call("backup_vm", vm).unwrap();
    let cleanup = json!({"vmid": 100, "vmtype": "qemu", "success": 1});
    caller.call("backup_cleanup", cleanup).unwrap();
    caller.call("job_cleanup", json!({})).unwrap();
    named["archive-name"].as_str().unwrap().to_owned()
}

#[test]
fn why_a_disk_is_read_whole_is_told_to_the_task() {
    if !are_here(
        "why_a_disk_is_read_whole_is_told_to_the_task",
        &["qemu-nbd"],
    ) {
        return;
    }
    let (folder, mut settings) = created_open();
    settings["vm_mechanism"] = json!("nbd");
    let _server = Server::start(folder.path());
    let socket = folder.path().join("nbd");
    let run = |settings: &Value, said: &[&str]| {
        let mut caller = Caller::new(&folder, settings.clone());
        let archive = back_up(&mut caller, &socket, said);
        caller.end();
        archive
    };
    run(
        &settings,
        &["info no earlier backup is known of this storage"],
    );
    sh(folder.path(), "cp -a repo yesterday");
    // No QEMU of this machine has this guest.
    let started_again = &["info before the guest's QEMU was started again"];
    let archive = run(&settings, started_again);
    let mut caller = Caller::new(&folder, settings.clone());
    caller
        .call("storage_free", json!({"archive": archive}))
        .unwrap();
    caller.end();
    run(&settings, &["info forgotten"]);
    // The storage was removed, and added again.
    let mut again = settings.clone();
    again["identity"] = json!("fedcba9876543210");
    run(&again, &["info no earlier backup is known of this storage"]);
    sh(folder.path(), "rm -r repo; mv yesterday repo");
    let put_back = [
        "warn the repository was put back from another time",
        "info its head is not the one that is remembered",
    ];
    run(&settings, &put_back);
    run(&settings, started_again);
}
