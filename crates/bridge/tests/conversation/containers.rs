//! Containers: their process, and the socket of their walker.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use snapkeep_api::VmMechanism;

use crate::peer::{Memory, Peer};
use crate::tools::Running;

fn begun() -> (Peer, snapkeep_api::memory::MemoryProvider, String) {
    let memory = Memory::new(VmMechanism::Nbd);
    let provider = memory.provider.clone();
    let mut peer = Peer::greeted(memory);
    peer.good("job_init", json!({"start_time": 1000}));
    let init = json!({"vmid": 200, "vmtype": "lxc", "start_time": 1000});
    let answer = peer.good("backup_init", init);
    let name = answer["archive-name"].as_str().unwrap().replace(':', "/");
    let of = json!({"vmid": 200, "vmtype": "lxc"});
    assert_eq!(
        peer.good("backup_get_mechanism", of)["mechanism"],
        "directory"
    );
    (peer, provider, name)
}

fn prepare(walker: i32, directory: &Path) -> Value {
    json!({
        "vmid": 200, "walker_fd": walker, "directory": directory, "sources": ["./"],
        "backup_user_id": 100_000, "firewall_config": "", "bandwidth_limit": null,
    })
}

fn backup(pid: u32) -> Value {
    json!({"vmid": 200, "pid": pid, "guest_config": "YQ==", "exclude": ["/tmp/?*"]})
}

#[test]
fn the_end_of_the_containers_process_ends_its_backup_alone() {
    let (mut peer, _, _) = begun();
    let (ours, theirs) = UnixStream::pair().unwrap();
    peer.good(
        "backup_container_prepare",
        prepare(ours.as_raw_fd(), Path::new("/")),
    );
    let mut process = Running(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap());
    let id = peer.send("backup_container", backup(process.0.id()));
    // The walker is told to begin, so it runs.
    let mut word = [0];
    io::Read::read_exact(&mut &theirs, &mut word).unwrap();
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    // Proxmox VE takes it for a success, and goes on at once.
    let end = json!({"vmid": 200, "vmtype": "lxc", "success": 1});
    let cleanup = peer.send("backup_cleanup", end);
    let (kind, message) = peer.answer(&id).unwrap_err();
    assert!(matches!(&*kind, "source" | "cancelled"), "{kind}");
    assert!(
        message.contains("which started the walker, ended") || message.contains("cancelled"),
        "{message}"
    );
    let (_, message) = peer.answer(&cleanup).unwrap_err();
    assert!(
        message.starts_with("no backup of guest 200 was committed"),
        "{message}"
    );
    // Its socket is closed: what the test has of it is a copy of the other end's peer.
    drop(ours);
    assert_eq!(io::Read::read(&mut &theirs, &mut word).unwrap(), 0);
    peer.good(
        "backup_init",
        json!({"vmid": 201, "vmtype": "qemu", "start_time": 1}),
    );
    peer.good(
        "backup_vm",
        json!({"vmid": 201, "guest_config": "", "volumes": {}}),
    );
    assert_eq!(
        peer.end().last().unwrap(),
        "job end Failure(\"the process that made the backup is gone\")"
    );
}

#[test]
fn a_container_is_prepared_first_and_by_a_socket() {
    let (mut peer, _, _) = begun();
    let own = std::process::id();
    assert_eq!(
        peer.call("backup_container", backup(own)).unwrap_err().0,
        "protocol"
    );
    let file = tempfile::tempfile().unwrap();
    let args = prepare(file.as_raw_fd(), Path::new("/"));
    let (_, message) = peer.call("backup_container_prepare", args).unwrap_err();
    assert!(message.contains("no Unix stream socket"), "{message}");
    // Of two the later counts, and the earlier's socket is closed.
    let (ours, theirs) = UnixStream::pair().unwrap();
    peer.good(
        "backup_container_prepare",
        prepare(ours.as_raw_fd(), Path::new("/")),
    );
    drop(ours);
    let (later, its_peer) = UnixStream::pair().unwrap();
    peer.good(
        "backup_container_prepare",
        prepare(later.as_raw_fd(), Path::new("/")),
    );
    assert_eq!(io::Read::read(&mut &theirs, &mut [0]).unwrap(), 0);
    // The end of the socket takes the other with it.
    drop(later);
    peer.end();
    assert_eq!(io::Read::read(&mut &its_peer, &mut [0]).unwrap(), 0);
}
