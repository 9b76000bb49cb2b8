//! The other end goes before, during and in the middle of every call: nothing is left of what was
//! begun, what was committed is there and whole, and the next conversation works.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::tree::Name;
use snapkeep_api::{ErrorKind, GuestKind, Provider, VmMechanism};
use tempfile::TempDir;

use crate::peer::{Memory, Peer};
use crate::tools::{Running, can_mount};
use crate::walker::walk;

/// What comes before a call.
const GREETED: &[&str] = &["hello"];
const IN_JOB: &[&str] = &["hello", "job_init"];
const VM: &[&str] = &["hello", "job_init", "backup_init"];
const TOLD: &[&str] = &["hello", "job_init", "backup_init", "backup_vm_regions"];
const DONE: &[&str] = &[
    "hello",
    "job_init",
    "backup_init",
    "backup_vm_regions",
    "backup_vm",
];
const CONTAINER: &[&str] = &["hello", "job_init", "backup_init of a container"];
const PREPARED: &[&str] = &[
    "hello",
    "job_init",
    "backup_init of a container",
    "backup_container_prepare",
];
const RESTORE: &[&str] = &["hello", "restore_vm_init"];
const MOUNTED: &[&str] = &["hello", "restore_vm_init", "restore_vm_volume_init"];
const TREE: &[&str] = &["hello", "restore_container_init"];

/// Every call, and what comes before it.
const CALLS: &[(&str, &[&str])] = &[
    ("hello", &[]),
    ("provider_name", GREETED),
    ("job_init", GREETED),
    ("job_cleanup", DONE),
    ("backup_init", IN_JOB),
    ("backup_cleanup", DONE),
    ("backup_get_mechanism", VM),
    ("backup_vm_query_incremental", VM),
    ("backup_vm_regions", VM),
    ("backup_vm", TOLD),
    ("backup_container_prepare", CONTAINER),
    ("backup_container", PREPARED),
    ("backup_handle_log_file", DONE),
    ("archive_get_guest_config", GREETED),
    ("archive_get_firewall_config", GREETED),
    ("restore_get_mechanism", GREETED),
    ("restore_vm_init", GREETED),
    ("restore_vm_volume_init", RESTORE),
    ("restore_vm_volume_cleanup", MOUNTED),
    ("restore_vm_cleanup", MOUNTED),
    ("restore_container_init", GREETED),
    ("restore_container_cleanup", TREE),
    ("storage_check", GREETED),
    ("storage_create", GREETED),
    ("storage_status", GREETED),
    ("storage_list", GREETED),
    ("storage_get", GREETED),
    ("storage_set_notes", GREETED),
    ("storage_set_protected", GREETED),
    ("storage_free", GREETED),
];

/// Where the other end goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Before the call.
    Before,
    /// When the call is written and no answer was read.
    Written,
    /// When half of its line is written.
    Half,
}

const WAYS: [Way; 3] = [Way::Before, Way::Written, Way::Half];

/// Not a multiple of anything.
const SIZE: usize = (256 << 10) + 512;
const DEVICE: &str = "drive-scsi0";

/// A storage with an archive of a machine and one of a container, and guests to back up.
struct Lab {
    folder: TempDir,
    provider: MemoryProvider,
    disk: Vec<u8>,
    vm: String,
    container: String,
}

/// A conversation on its way to a call.
struct Talk<'a> {
    lab: &'a Lab,
    peer: Peer,
    /// What was begun, as the other end sees its name.
    begun: Option<String>,
    /// It has answered that it is committed.
    committed: bool,
    disk: Option<File>,
    /// Our end of the walker's socket, and the walker's, before it has it.
    sockets: Option<(UnixStream, UnixStream)>,
    walker: Option<Running>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("hostname"), "web\n").unwrap();
        let mut lab = Self {
            folder,
            provider: MemoryProvider::new(VmMechanism::FileHandle),
            disk: (0..=250).cycle().take(SIZE).collect(),
            vm: String::new(),
            container: String::new(),
        };
        let vm = lab.backed_up(&[DONE, &["backup_cleanup", "job_cleanup"]].concat());
        let container = lab.backed_up(&[PREPARED, &["backup_container"]].concat());
        (lab.vm, lab.container) = (vm, container);
        lab
    }

    fn backed_up(&self, calls: &[&str]) -> String {
        let mut talk = Talk::new(self);
        talk.good(calls);
        talk.peer.ended_by_us();
        assert!(talk.committed);
        talk.begun.unwrap()
    }

    fn memory(&self) -> Memory {
        let mut memory = Memory::new(VmMechanism::FileHandle);
        memory.provider = self.provider.clone();
        memory.run_folder = self.folder.path().join("run");
        memory
    }

    /// Whether the archive is there; then it is whole.
    fn is_whole(&self, shown: &str) -> bool {
        let name = shown.replace(':', "/").parse().unwrap();
        let archive = match self.provider.open_archive(&name) {
            Ok(archive) => archive,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                return false;
            }
        };
        assert_eq!(archive.guest_config().unwrap(), b"a");
        match archive.guest_kind() {
            GuestKind::Qemu => {
                let mut restore = archive.restore_vm().unwrap();
                let volume = restore.open_volume(&DEVICE.parse().unwrap()).unwrap();
                let mut bytes = vec![0; SIZE];
                volume.read_at(0, &mut bytes).unwrap();
                assert!(bytes == self.disk, "{shown} has other bytes");
            }
            GuestKind::Lxc => {
                let mut restore = archive.restore_container().unwrap();
                let tree = restore.open_tree().unwrap();
                let file = tree
                    .lookup(&tree.root().unwrap(), &Name::new(*b"hostname").unwrap())
                    .unwrap();
                let mut bytes = [0; 4];
                tree.read_at(&file.unwrap(), 0, &mut bytes).unwrap();
                assert_eq!(&bytes, b"web\n");
            }
        }
        true
    }

    /// What is mounted or lies in the folder for that.
    fn left(&self) -> usize {
        let run = fs::read_dir(self.folder.path().join("run"));
        let folders = run.map_or(0, Iterator::count);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.folder.path().to_str().unwrap();
        folders + mounts.lines().filter(|line| line.contains(here)).count()
    }
}

/// Of a test that failed.
impl Drop for Lab {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let fields = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for mount in fields.filter(|at| Path::new(at).starts_with(self.folder.path())) {
            Command::new("umount").args(["-l", mount]).status().ok();
        }
    }
}

impl<'a> Talk<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self {
            lab,
            peer: Peer::new(lab.memory()),
            begun: None,
            committed: false,
            disk: None,
            sockets: None,
            walker: None,
        }
    }

    /// Calls that succeed.
    fn good(&mut self, calls: &[&str]) {
        for call in calls {
            let args = self.args(call);
            let answer = self.peer.good(name(call), args);
            match *call {
                "backup_vm" | "backup_container" => self.committed = true,
                "restore_vm_volume_init" => {
                    let path = answer["qemu-img-path"].as_str().unwrap();
                    assert!(fs::read(path).unwrap() == self.lab.disk);
                }
                "restore_container_init" => {
                    let path = Path::new(answer["archive-directory"].as_str().unwrap());
                    assert_eq!(fs::read(path.join("hostname")).unwrap(), b"web\n");
                }
                _ => {
                    if let Some(name) = answer["archive-name"].as_str() {
                        self.begun = Some(name.to_owned());
                    }
                }
            }
        }
    }

    /// The arguments, and what they name.
    fn args(&mut self, call: &str) -> Value {
        let (vm, container) = (&self.lab.vm, &self.lab.container);
        match call {
            "hello" => Peer::hello(),
            "job_init" => json!({"start_time": 1000}),
            "backup_init" => json!({"vmid": 300, "vmtype": "qemu", "start_time": 1000}),
            "backup_init of a container" => {
                json!({"vmid": 300, "vmtype": "lxc", "start_time": 1000})
            }
            "backup_get_mechanism" => json!({"vmid": 300, "vmtype": "qemu"}),
            "backup_vm_query_incremental" => {
                json!({"vmid": 300, "volumes": {DEVICE: {"size": SIZE}}})
            }
            "backup_vm_regions" => {
                json!({"vmid": 300, "device": DEVICE, "regions": [[0, SIZE]], "last": 1})
            }
            "backup_vm" => {
                let disk = tempfile::tempfile().unwrap();
                disk.write_all_at(&self.lab.disk, 0).unwrap();
                let fd = self.disk.insert(disk).as_raw_fd();
                let volume = json!({"size": SIZE, "bitmap_mode": "new", "fd": fd});
                json!({"vmid": 300, "guest_config": "YQ==", "volumes": {DEVICE: volume}})
            }
            "backup_cleanup" => json!({"vmid": 300, "vmtype": "qemu", "success": 1}),
            "backup_container_prepare" => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let fd = ours.as_raw_fd();
                self.sockets = Some((ours, theirs));
                let tree = self.lab.folder.path().join("tree");
                json!({"vmid": 300, "walker_fd": fd, "directory": tree, "sources": ["./"]})
            }
            "backup_container" => {
                let (ours, theirs) = self.sockets.take().unwrap();
                drop(ours);
                self.walker = Some(walk(theirs));
                json!({"vmid": 300, "pid": std::process::id(), "guest_config": "YQ=="})
            }
            "backup_handle_log_file" => json!({"vmid": 300, "path": "/log"}),
            "archive_get_guest_config"
            | "archive_get_firewall_config"
            | "restore_get_mechanism"
            | "restore_vm_init"
            | "restore_vm_cleanup" => {
                json!({"volname": vm})
            }
            "restore_vm_volume_init" | "restore_vm_volume_cleanup" => {
                json!({"volname": vm, "device": DEVICE})
            }
            "restore_container_init" | "restore_container_cleanup" => {
                json!({"volname": container})
            }
            "storage_get" | "storage_free" => json!({"archive": vm}),
            "storage_set_notes" => json!({"archive": vm, "notes": "YQ=="}),
            "storage_set_protected" => json!({"archive": vm, "protected": 1}),
            "provider_name" | "job_cleanup" | "storage_check" | "storage_create"
            | "storage_status" | "storage_list" => json!({}),
            other => panic!("nobody knows the arguments of {other}"),
        }
    }

    /// The other end goes. How much is left then, that nobody but a test would find.
    fn go(mut self, call: &str, way: Way) -> usize {
        match way {
            Way::Before => {}
            Way::Written => {
                let args = self.args(call);
                self.peer.send(name(call), args);
            }
            Way::Half => {
                let args = self.args(call);
                let line = json!({"id": "1-1", "call": name(call), "args": args}).to_string();
                self.peer.say(&line.as_bytes()[..line.len() / 2]);
            }
        }
        self.peer.ended_by_us();
        let mut left = self.lab.left();
        if let Some((ours, theirs)) = self.sockets.take() {
            // Whoever would walk sees that nobody listens.
            drop(ours);
            left += (&theirs).read(&mut [0]).unwrap();
        }
        if let Some(mut walker) = self.walker.take() {
            walker.0.wait().unwrap();
        }
        if let Some(begun) = &self.begun {
            let there = self.lab.is_whole(begun);
            let may =
                self.committed || (matches!(way, Way::Written) && call.starts_with("backup_"));
            assert!(
                there || !self.committed,
                "{begun} was committed and is gone"
            );
            left += usize::from(there && !may);
        }
        left
    }
}

/// A call without what tells it from others of its name.
fn name(call: &str) -> &str {
    call.split(' ').next().unwrap()
}

/// The names of calls in the source.
fn known() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/call.rs");
    let arms = source.lines().filter(|line| line.contains("\" => Self::"));
    arms.map(|line| line.trim().split('"').nth(1).unwrap())
        .collect()
}

#[test]
fn whenever_the_other_end_goes_nothing_is_left_and_the_next_conversation_works() {
    let test = "whenever_the_other_end_goes_nothing_is_left_and_the_next_conversation_works";
    let listed: BTreeSet<_> = CALLS.iter().map(|(call, _)| *call).collect();
    assert_eq!(listed, known(), "the table has every call once");
    assert_eq!(listed.len(), CALLS.len());
    if !can_mount(test, &["bash"]) {
        return;
    }
    let lab = Lab::new();
    let mut left = 0;
    for (call, before) in CALLS {
        for way in WAYS {
            let mut talk = Talk::new(&lab);
            talk.good(before);
            let here = talk.go(call, way);
            assert_eq!(here, 0, "{call}, {way:?}");
            left += here;
            assert!(lab.is_whole(&lab.vm) && lab.is_whole(&lab.container));
            let mut next = Talk::new(&lab);
            next.good(
                &[
                    DONE,
                    &["backup_cleanup", "job_cleanup"],
                    &MOUNTED[1..],
                    &TREE[1..],
                ]
                .concat(),
            );
            next.peer.ended_by_us();
            assert!(lab.is_whole(&next.begun.unwrap()));
            assert_eq!(lab.left(), 0, "after {call}, {way:?}");
        }
    }
    eprintln!(
        "bridge kill table: {} calls x {} ways, {left} left behind",
        CALLS.len(),
        WAYS.len()
    );
}
