//! Restores, mounted and read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use snapkeep_api::memory::tree::MemoryTree;
use snapkeep_api::{
    BitmapMode, ContainerSource, Provider, Region, SnapshotAccess, UnixTime, VmMechanism, VmSource,
    Volume,
};
use snapkeep_bridge::ContainerMechanism;
use tempfile::TempDir;

use crate::peer::{Memory, Peer};
use crate::tools::can_mount;

/// Not a multiple of a cluster.
const SIZE: u64 = (1 << 20) + 512;

fn memory(folder: &TempDir) -> Memory {
    let mut memory = Memory::new(VmMechanism::FileHandle);
    memory.run_folder = folder.path().join("run");
    memory
}

/// An archive of this disk; its name as Proxmox VE sees it.
fn vm(memory: &Memory, disk: &File) -> String {
    let mut job = memory.provider.start_job(UnixTime(1)).unwrap();
    let mut backup = job.start_vm(&"100".parse().unwrap(), UnixTime(1)).unwrap();
    let access = SnapshotAccess::FileHandle {
        file: disk.try_clone().unwrap(),
        dirty: Box::new([Region::new(0, SIZE)].into_iter()),
    };
    let volume = Volume {
        size: SIZE,
        bitmap: BitmapMode::None,
        access,
    };
    let source = VmSource {
        guest_config: b"name: a\n".to_vec(),
        firewall_config: Some(b"[OPTIONS]\n".to_vec()),
        bandwidth_limit: None,
        volumes: BTreeMap::from([("drive-scsi0".parse().unwrap(), volume)]),
    };
    backup.run(source).unwrap();
    format!(
        "backup/{}",
        backup.archive_name().as_str().replace('/', ":")
    )
}

fn disk(folder: &TempDir) -> (PathBuf, File) {
    let path = folder.path().join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    file.write_all_at(b"last", SIZE - 4).unwrap();
    (path, file)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {said}{told}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_volume_is_a_file_that_qemu_img_takes() {
    if !can_mount("a_volume_is_a_file_that_qemu_img_takes", &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(&folder);
    let (path, file) = disk(&folder);
    // What a backup has read it discards.
    let kept = folder.path().join("kept.raw");
    fs::copy(&path, &kept).unwrap();
    let volname = json!({"volname": vm(&memory, &file)});
    let of_disk = json!({"volname": volname["volname"], "device": "drive-scsi0"});
    let mut peer = Peer::greeted(memory);
    assert_eq!(
        peer.good("archive_get_firewall_config", volname.clone()),
        "W09QVElPTlNdCg=="
    );
    assert_eq!(
        peer.call("restore_vm_volume_init", of_disk.clone())
            .unwrap_err()
            .0,
        "protocol"
    );
    let volumes = peer.good("restore_vm_init", volname.clone());
    assert_eq!(volumes, json!({"drive-scsi0": {"size": SIZE}}));
    let none = json!({"volname": volname["volname"], "device": "drive-scsi1"});
    assert_eq!(
        peer.call("restore_vm_volume_init", none).unwrap_err().0,
        "not-found"
    );
    let opened = peer.good("restore_vm_volume_init", of_disk.clone());
    let shown = opened["qemu-img-path"].as_str().unwrap();
    assert_eq!(fs::metadata(shown).unwrap().len(), SIZE);
    let info: Value = serde_json::from_str(&run(
        "qemu-img",
        &["info", "--output=json", "-f", "raw", shown],
    ))
    .unwrap();
    assert_eq!(info["virtual-size"], SIZE);
    let kept = kept.to_str().unwrap();
    run(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", kept, shown],
    );
    peer.good("restore_vm_volume_cleanup", of_disk.clone());
    assert!(!Path::new(shown).exists());
    peer.good("restore_vm_volume_cleanup", of_disk.clone());
    // Twice, and forgotten.
    peer.good("restore_vm_volume_init", of_disk.clone());
    peer.good("restore_vm_cleanup", volname.clone());
    peer.good("restore_vm_cleanup", volname);
    let run_folder = folder.path().join("run");
    assert_eq!(fs::read_dir(&run_folder).unwrap().count(), 0);
    peer.end();
}

#[test]
fn what_is_mounted_goes_with_the_conversation() {
    if !can_mount("what_is_mounted_goes_with_the_conversation", &["qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let memory = memory(&folder);
    let (_, file) = disk(&folder);
    let volname = vm(&memory, &file);
    let mut peer = Peer::greeted(memory);
    peer.good("restore_vm_init", json!({"volname": volname}));
    let of_disk = json!({"volname": volname, "device": "drive-scsi0"});
    let opened = peer.good("restore_vm_volume_init", of_disk);
    let shown = opened["qemu-img-path"].as_str().unwrap();
    assert!(Path::new(shown).exists());
    peer.end();
    assert!(!Path::new(shown).exists());
    assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
}

/// An archive of a container.
fn container(memory: &Memory) -> String {
    let mut job = memory.provider.start_job(UnixTime(1)).unwrap();
    let mut backup = job
        .start_container(&"200".parse().unwrap(), UnixTime(1))
        .unwrap();
    let mut tree = MemoryTree::new();
    tree.directory("etc");
    tree.file("etc/hostname", b"web\n");
    let mut source = tree.source();
    let source = ContainerSource {
        guest_config: b"arch: amd64\n",
        firewall_config: Some(b""),
        bandwidth_limit: None,
        id_map: None,
        tree: &mut source,
    };
    backup.run(source).unwrap();
    format!(
        "backup/{}",
        backup.archive_name().as_str().replace('/', ":")
    )
}

#[test]
fn a_container_is_a_folder_or_a_tar_archive() {
    if !can_mount("a_container_is_a_folder_or_a_tar_archive", &["tar"]) {
        return;
    }
    for mechanism in [ContainerMechanism::Directory, ContainerMechanism::Tar] {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = memory(&folder);
        memory.mechanism = mechanism;
        let volname = json!({"volname": container(&memory)});
        let mut peer = Peer::greeted(memory);
        let told = peer.good("restore_get_mechanism", volname.clone());
        assert_eq!(told, json!([mechanism.as_str(), "lxc"]));
        assert_eq!(
            peer.call("restore_vm_init", volname.clone()).unwrap_err().0,
            "unsupported"
        );
        peer.good("restore_container_cleanup", volname.clone());
        let answer = peer.good("restore_container_init", volname.clone());
        let path = match mechanism {
            ContainerMechanism::Directory => {
                let path = answer["archive-directory"].as_str().unwrap();
                assert_eq!(fs::read(format!("{path}/etc/hostname")).unwrap(), b"web\n");
                path
            }
            ContainerMechanism::Tar => {
                let path = answer["tar-path"].as_str().unwrap();
                assert!(Path::new(path).extension().is_some_and(|end| end == "tar"));
                let members = run("tar", &["tf", path]);
                assert_eq!(
                    members.lines().collect::<Vec<_>>(),
                    ["./", "./etc/", "./etc/hostname"]
                );
                path
            }
        };
        peer.good("restore_container_cleanup", volname);
        assert!(!Path::new(path).exists());
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
        peer.end();
    }
}
