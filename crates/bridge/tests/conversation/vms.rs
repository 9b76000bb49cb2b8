//! Virtual machines.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use serde_json::{Value, json};
use snapkeep_api::{Provider, VmMechanism};

use crate::peer::{Memory, Peer};

const MIB: u64 = 1 << 20;

fn disk(size: u64, data: &[(u64, &[u8])]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in data {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file
}

fn vm(size: u64, fd: Value) -> Value {
    let volume = json!({"size": size, "bitmap_mode": "new", "fd": fd});
    json!({
        "vmid": 100, "guest_config": "bmFtZTogw6kK", "firewall_config": "", "bandwidth_limit": "1048576",
        "volumes": {"drive-scsi0": volume},
    })
}

fn begun(memory: Memory) -> (Peer, String) {
    let mut peer = Peer::greeted(memory);
    assert_eq!(
        peer.good("job_init", json!({"start_time": 1000})),
        Value::Null
    );
    let init = json!({"vmid": 100, "vmtype": "qemu", "start_time": "1000"});
    let name = peer.good("backup_init", init)["archive-name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(name, "memory:vm:100:1000-1");
    (peer, name)
}

#[test]
fn a_vm_is_backed_up_by_the_descriptor_of_the_caller() {
    let memory = Memory::new(VmMechanism::FileHandle);
    let provider = memory.provider.clone();
    let (mut peer, name) = begun(memory);
    let of = json!({"vmid": 100, "vmtype": "qemu"});
    let mechanism = peer.good("backup_get_mechanism", of);
    assert_eq!(
        mechanism,
        json!({"mechanism": "file-handle", "bitmap": null})
    );
    let file = disk(4 * MIB, &[(0, b"first"), (3 * MIB + 1, b"last")]);
    let region = |regions: Value, last: u8| json!({"vmid": 100, "device": "drive-scsi0", "regions": regions, "last": last});
    peer.good("backup_vm_regions", region(json!([["0", "1048576"]]), 0));
    peer.good("backup_vm_regions", region(json!([[MIB, 3 * MIB]]), 1));
    let stats = peer.good("backup_vm", vm(4 * MIB, json!(file.as_raw_fd())));
    assert_eq!(stats, json!({"archive-size": 4 * MIB}));
    // It is there before the cleanup.
    let volname = json!({"volname": format!("backup/{name}")});
    assert_eq!(
        peer.good("archive_get_guest_config", volname.clone()),
        "bmFtZTogw6kK"
    );
    assert_eq!(
        peer.good("archive_get_firewall_config", volname.clone()),
        Value::Null
    );
    assert_eq!(
        peer.good("restore_get_mechanism", volname),
        json!(["qemu-img", "qemu"])
    );
    let end = json!({"vmid": 100, "vmtype": "qemu", "success": 1});
    assert_eq!(
        peer.good("backup_cleanup", end),
        json!({"archive-size": 4 * MIB})
    );
    peer.good(
        "backup_handle_log_file",
        json!({"vmid": 100, "path": "/var/log/vzdump/qemu-100.log"}),
    );
    peer.good("job_cleanup", json!({}));
    let events = peer.end();
    assert_eq!(
        events,
        [
            "provider",
            "job",
            "start 100",
            "run name: é\n Some(1048576)",
            "end Success",
            "log 100 memory/vm/100/1000-1",
            "job end Success"
        ]
    );
    let archive = provider
        .open_archive(&name.replace(':', "/").parse().unwrap())
        .unwrap();
    let mut restore = archive.restore_vm().unwrap();
    let volume = restore
        .open_volume(&"drive-scsi0".parse().unwrap())
        .unwrap();
    let mut last = [0; 4];
    volume.read_at(3 * MIB + 1, &mut last).unwrap();
    assert_eq!(&last, b"last");
}

#[test]
fn a_list_of_regions_that_is_not_whole_fails_the_backup() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::FileHandle));
    let file = disk(MIB, &[]);
    let args = vm(MIB, json!(file.as_raw_fd()));
    let (kind, message) = peer.call("backup_vm", args.clone()).unwrap_err();
    assert_eq!(kind, "protocol");
    assert!(message.contains("drive-scsi0"), "{message}");
    let part = json!({"vmid": 100, "device": "drive-scsi0", "regions": [[0, MIB]], "last": 0});
    peer.good("backup_vm_regions", part);
    assert!(
        peer.call("backup_vm", args)
            .unwrap_err()
            .1
            .contains("did not come to its end")
    );
    let end = json!({"vmid": 100, "vmtype": "qemu", "success": 1});
    let (_, message) = peer.call("backup_cleanup", end).unwrap_err();
    assert!(
        message.contains("no backup of guest 100 was committed: "),
        "{message}"
    );
    assert!(message.contains("did not come to its end"), "{message}");
}

#[test]
fn only_files_and_block_devices_are_volumes() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::FileHandle));
    let null = File::open("/dev/null").unwrap();
    for (fd, word) in [
        (json!(null.as_raw_fd()), "no file"),
        (json!(1_000_000), "cannot be taken over"),
        (json!(u64::MAX), "cannot be taken over"),
        (Value::Null, "either an NBD socket or"),
    ] {
        let (_, message) = peer.call("backup_vm", vm(MIB, fd)).unwrap_err();
        assert!(message.contains(word), "{message}");
    }
    let mut args = vm(MIB, json!(0));
    args["volumes"]["drive-scsi0"]["bitmap_mode"] = json!("old");
    let (kind, message) = peer.call("backup_vm", args).unwrap_err();
    assert_eq!(kind, "protocol");
    assert!(message.contains("\"old\""), "{message}");
}

#[test]
fn each_volume_is_offered_the_bitmap_of_the_storage() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::Nbd));
    let volumes = json!({"drive-a": {"size": 1}, "drive-b": {"size": "2"}, "drive-c": {"size": 3}});
    let args = json!({"vmid": 100, "volumes": volumes});
    let answer = peer.good("backup_vm_query_incremental", args);
    assert_eq!(answer, json!({"drive-a": "use", "drive-b": "new"}));
    let none = json!({"vmid": 100, "volumes": {}});
    assert_eq!(peer.good("backup_vm_query_incremental", none), json!({}));
    let seen = peer.end();
    assert_eq!(seen[3], "drive-a 1 snapshot-access:store");
    assert_eq!(seen[5], "drive-c 3 snapshot-access:store");
}

#[test]
fn an_nbd_socket_is_passed_on() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::Nbd));
    let of = json!({"vmid": 100, "vmtype": "qemu"});
    assert_eq!(peer.good("backup_get_mechanism", of)["mechanism"], "nbd");
    let volume = json!({"size": MIB, "bitmap_mode": "none", "nbd_path": "/nonexistent//nbd", "bitmap_name": null});
    let args = json!({"vmid": 100, "guest_config": "", "volumes": {"drive-scsi0": volume}});
    let (_, message) = peer.call("backup_vm", args).unwrap_err();
    assert!(message.contains("/nonexistent//nbd"), "{message}");
    // A machine without a disk is one, too.
    let args = json!({"vmid": 100, "guest_config": "", "firewall_config": null, "bandwidth_limit": null, "volumes": {}});
    assert_eq!(peer.good("backup_vm", args), json!({"archive-size": 0}));
}

#[test]
fn what_is_logged_comes_in_order_before_the_answer() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::Nbd));
    // "log 1\nlog 2\n"
    let args = json!({"vmid": 100, "guest_config": "bG9nIDEKbG9nIDIK", "volumes": {}});
    peer.good("backup_vm", args);
    assert_eq!(peer.logged, ["info log 1", "info log 2"]);
}

#[test]
fn a_panic_of_the_provider_commits_nothing() {
    let (mut peer, _) = begun(Memory::new(VmMechanism::Nbd));
    let args = json!({"vmid": 100, "guest_config": "cGFuaWM=", "volumes": {}});
    assert_eq!(peer.call("backup_vm", args).unwrap_err().0, "panicked");
    let end = json!({"vmid": 100, "vmtype": "qemu", "success": 1});
    let (_, message) = peer.call("backup_cleanup", end).unwrap_err();
    assert!(message.contains("it ended in a panic"), "{message}");
}
