//! A container in a user namespace of its own: what its root user sees is what is restored.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::json;
use snapkeep_api::VmMechanism;
use snapkeep_bridge::ContainerMechanism;

use crate::peer::{Memory, Peer};
use crate::tools::{can_mount, has_all_users, sh};
use crate::walker::{FIRST, Namespace};

const TOOLS: &[&str] = &[
    "unshare", "nsenter", "tar", "setfattr", "getfattr", "setfacl", "getfacl",
];

/// What the container's root user makes.
const OWN: &[&str] = &[
    "mkdir -p etc/deep bin empty 'with space'; printf hello > etc/hello; : > etc/nothing",
    "head -c 3000000 /dev/urandom > bin/large; chmod 4755 bin/large; chown 0:42 bin/large; ln bin/large etc/second",
    "truncate -s 10M etc/hole; printf data | dd of=etc/hole bs=1M seek=5 conv=notrunc status=none",
    "for id in 1 7 1000 65534 65535; do touch etc/of-$id; chown $id:$((65535 - id)) etc/of-$id; chmod 600 etc/of-$id; done",
    "ln -s /nowhere bin/link; chown -h 5:6 bin/link; mkfifo -m 640 etc/fifo; chmod 1777 empty",
    "touch $'with space/new\\nline' $'bad\\xff\\xfename'",
    "setfattr -n user.note -v hello etc/hello; setfacl -m u:1234:rwx,g:65535:r-x,m::r-x etc/hello; setfacl -d -m u:77:rwx etc/deep",
    "touch -h -d '1971-01-01 00:00:00.5' bin/link; touch -d '1955-11-05 06:15:00.123456789' etc/hello",
];
/// What only the host's root user can make in it: owners that the container does not have. Of what
/// it may read it sees `nobody`; what it may not read is not there.
const OF_HOST: &[&str] = &[
    "printf foreign > etc/foreign; chown 7:8 etc/foreign; chmod 644 etc/foreign",
    "printf half > etc/half; chown 101000:8 etc/half; chmod 604 etc/half",
    "printf closed > etc/closed; chown 7:8 etc/closed; chmod 600 etc/closed",
];
const TIMES: &str = "touch -d '2001-01-01 00:00:00.25' etc bin empty etc/deep 'with space' .";
/// As Proxmox VE calls it.
const EXTRACT: &str = "tar -xpf - --sparse --numeric-owner --acls --xattrs --xattrs-include='user.*' \
                       --xattrs-include=security.capability --skip-old-files";

/// What the usual tools say of the folder that they are run in.
const FACTS: &str =
    "find . -mindepth 1 -type d -printf '%P|%m|%U|%G|%T@\\0' | sort -z | tr '\\0' '\\n'
find . ! -type d -printf '%P|%y|%m|%U|%G|%s|%T@|%l\\0' | sort -z | tr '\\0' '\\n'
find . -type f -printf '%P|%n\\0' | sort -z | tr '\\0' '\\n'
find . -type f -print0 | sort -z | xargs -0 sha256sum
find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex
find . -mindepth 1 ! -type l -print0 | sort -z | xargs -0 getfacl -n";

/// A folder on a disk, which the container's root user comes to: a file system in memory may not take
/// all attributes.
fn on_disk() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn folder_of_container(at: &Path, name: &str) -> PathBuf {
    let folder = at.join(name);
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(FIRST), Some(FIRST)).unwrap();
    folder
}

/// Backs the folder up; the archive's name as a volume.
fn back_up(peer: &mut Peer, namespace: &Namespace, folder: &Path) -> String {
    peer.good("job_init", json!({"start_time": 1000}));
    let init = json!({"vmid": 200, "vmtype": "lxc", "start_time": 1000});
    let name = peer.good("backup_init", init)["archive-name"].clone();
    let (ours, walkers) = UnixStream::pair().unwrap();
    let prepare = json!({
        "vmid": 200, "walker_fd": ours.as_raw_fd(), "directory": folder, "sources": ["./"],
        "backup_user_id": FIRST, "firewall_config": "", "bandwidth_limit": null,
    });
    peer.good("backup_container_prepare", prepare);
    drop(ours);
    let mut walker = namespace.walk(walkers);
    let backup = json!({"vmid": 200, "pid": namespace.id(), "guest_config": "YQ==", "exclude": []});
    peer.good("backup_container", backup);
    assert!(walker.0.wait().unwrap().success());
    let end = json!({"vmid": 200, "vmtype": "lxc", "success": 1});
    peer.good("backup_cleanup", end);
    peer.good("job_cleanup", json!({}));
    format!("backup/{}", name.as_str().unwrap())
}

#[test]
fn a_container_restores_as_its_root_user_sees_it() {
    let test = "a_container_restores_as_its_root_user_sees_it";
    if !can_mount(test, TOOLS) || !has_all_users(test) {
        return;
    }
    let temp = on_disk();
    let namespace = Namespace::new();
    let made = folder_of_container(temp.path(), "made");
    for line in OWN {
        namespace.sh(&made, line);
    }
    for line in OF_HOST.iter().chain([&TIMES]) {
        sh(&made, line);
    }
    let owner = |at: PathBuf| {
        let found = fs::symlink_metadata(at).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner(made.join("etc/of-1000")), (101_000, 164_535));
    let memory = Memory::new(VmMechanism::Nbd);
    let provider = memory.provider.clone();
    let mut peer = Peer::greeted(memory);
    let volname = json!({"volname": back_up(&mut peer, &namespace, &made)});
    let events = peer.end();
    assert_eq!(events[3], format!("walk 0:{FIRST}:65536"));
    // What it may not read is not in the archive, and all else is.
    sh(&made, &format!("rm etc/closed; {TIMES}"));
    let expected = namespace.sh(&made, FACTS);
    for mechanism in [ContainerMechanism::Directory, ContainerMechanism::Tar] {
        let mut memory = Memory::new(VmMechanism::Nbd);
        memory.provider = provider.clone();
        memory.mechanism = mechanism;
        memory.run_folder = temp.path().join("run");
        let mut peer = Peer::greeted(memory);
        let init = peer.good("restore_container_init", volname.clone());
        match mechanism {
            ContainerMechanism::Directory => {
                let got = Path::new(init["archive-directory"].as_str().unwrap());
                assert_eq!(owner(got.join("etc/of-1000")), (1000, 64_535));
                assert_eq!(owner(got.join("etc/foreign")), (65_534, 65_534));
                assert_eq!(owner(got.join("etc/half")), (1000, 65_534));
                assert_same(&expected, &sh(got, FACTS));
            }
            ContainerMechanism::Tar => {
                // As Proxmox VE restores a container: root opens it, and tar in the namespace reads.
                let got = folder_of_container(temp.path(), "got");
                let tar = File::open(init["tar-path"].as_str().unwrap()).unwrap();
                namespace.sh_with(&got, EXTRACT, tar);
                assert_eq!(owner(got.join("etc/of-1000")), (101_000, 164_535));
                assert_same(&expected, &namespace.sh(&got, FACTS));
            }
        }
        peer.good("restore_container_cleanup", volname.clone());
        peer.end();
    }
}

/// Fails with the first lines that differ.
#[track_caller]
fn assert_same(expected: &str, got: &str) {
    for (expected, got) in expected.lines().zip(got.lines()) {
        assert_eq!(expected, got);
    }
    assert_eq!(expected.lines().count(), got.lines().count());
}
