//! The program is killed while it works for a call that lasts, or while what it mounted is read.
//! Nothing is left then that the next one does not clear away; what was not committed is not listed,
//! and what was is whole.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::namespace::{FIRST, Namespace};
use crate::support::{are_here, has_rights, sh, skip, wait_until};
use crate::{Caller, SIZE, back_up, created_open};

const TOOLS: &[&str] = &["qemu-nbd", "tar", "unshare", "nsenter"];
const DEVICE: &str = "drive-scsi0";
/// A guest's data: its backup takes eight seconds, and a pack is begun long before.
const DATA: u64 = 64 << 20;
const LIMIT: u64 = 8 << 20;

/// What the program does when it is killed.
#[derive(Clone, Copy, Debug)]
enum Work {
    ReadFileHandle,
    ReadNbd,
    ReadContainer,
    /// Mounts something for a restore.
    Mount(Kind),
    /// Serves what it mounted.
    Serve(Kind),
}

/// What is restored.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Volume,
    Folder,
    Tar,
}

const ALL: [Work; 9] = [
    Work::ReadFileHandle,
    Work::ReadNbd,
    Work::ReadContainer,
    Work::Mount(Kind::Volume),
    Work::Mount(Kind::Folder),
    Work::Mount(Kind::Tar),
    Work::Serve(Kind::Volume),
    Work::Serve(Kind::Folder),
    Work::Serve(Kind::Tar),
];

/// A process that is gone with the test.
struct Process(Child);

impl Process {
    fn ended(&mut self) {
        wait_until("the end of a process", || {
            self.0.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A storage with an archive of each kind, and guests that take long to read.
struct Lab {
    folder: TempDir,
    settings: Value,
    namespace: Namespace,
    vm: String,
    container: String,
}

impl Lab {
    fn new() -> Self {
        let (folder, settings) = created_open();
        // The container's root user comes to its files.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for line in [
            format!(
                "mkdir small large; echo web > small/hostname; head -c {DATA} /dev/urandom > large/data"
            ),
            format!("chown -R {FIRST}:{FIRST} small large; head -c {DATA} /dev/urandom > data"),
        ] {
            sh(folder.path(), &line);
        }
        let mut lab = Self {
            folder,
            settings,
            namespace: Namespace::new(),
            vm: String::new(),
            container: String::new(),
        };
        (lab.vm, lab.container) = lab.both_backed_up();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn caller(&self, setting: &str, value: &str) -> Caller {
        let mut settings = self.settings.clone();
        settings[setting] = json!(value);
        Caller::new(&self.folder, settings)
    }

    /// A small machine and a small container.
    fn both_backed_up(&self) -> (String, String) {
        let mut caller = self.caller("vm_mechanism", "file-handle");
        let vm = back_up(&mut caller, &self.folder, 7);
        let (container, mut walker, backup) = self.container(&mut caller, "small", 0);
        caller.call("backup_container", backup).unwrap();
        walker.ended();
        let end = json!({"vmid": 200, "vmtype": "lxc", "success": 1});
        caller.call("backup_cleanup", end).unwrap();
        caller.call("job_cleanup", json!({})).unwrap();
        caller.end();
        (vm, container)
    }

    /// Begins a container's backup: its archive, its walker, and what `backup_container` is told.
    fn container(&self, caller: &mut Caller, tree: &str, limit: u64) -> (String, Process, Value) {
        let name = begin(caller, 200, "lxc");
        let (ours, walkers) = UnixStream::pair().unwrap();
        let prepare = json!({
            "vmid": 200, "walker_fd": ours.as_raw_fd(), "directory": self.path(tree),
            "sources": ["./"], "backup_user_id": FIRST, "firewall_config": "",
            "bandwidth_limit": limit,
        });
        caller.call("backup_container_prepare", prepare).unwrap();
        let program = env!("CARGO_BIN_EXE_snapkeep");
        let mut walker = self.namespace.program(program, &["walk"]);
        let walker = walker.stdin(OwnedFd::from(walkers)).stdout(Stdio::null());
        let backup = json!({"vmid": 200, "pid": self.namespace.id(), "guest_config": "YQ==",
                            "exclude": []});
        (name, Process(walker.spawn().unwrap()), backup)
    }

    /// Begins a restore, and mounts; what there is to read. `None`: nobody waited for it.
    fn mounted(&self, caller: &mut Caller, kind: Kind, waits: bool) -> Option<PathBuf> {
        let of = |archive: &str| json!({"volname": format!("backup/{archive}")});
        let (call, args) = match kind {
            Kind::Volume => {
                caller.call("restore_vm_init", of(&self.vm)).unwrap();
                let mut args = of(&self.vm);
                args["device"] = json!(DEVICE);
                ("restore_vm_volume_init", args)
            }
            Kind::Folder | Kind::Tar => ("restore_container_init", of(&self.container)),
        };
        if !waits {
            caller.send(call, args);
            return None;
        }
        let answer = caller.call(call, args).unwrap();
        let path = |key: &str| PathBuf::from(answer[key].as_str().unwrap());
        Some(match kind {
            Kind::Volume => path("qemu-img-path"),
            Kind::Folder => path("archive-directory").join("hostname"),
            Kind::Tar => path("tar-path"),
        })
    }

    /// Kills the program at its work.
    fn kill_at(&self, work: Work) {
        let mut caller = match work {
            Work::ReadNbd => self.caller("vm_mechanism", "nbd"),
            Work::Mount(Kind::Tar) | Work::Serve(Kind::Tar) => {
                self.caller("container_restore", "tar")
            }
            Work::ReadFileHandle | Work::ReadContainer | Work::Mount(_) | Work::Serve(_) => {
                self.caller("container_restore", "directory")
            }
        };
        let packs = self.packs();
        let mut others = Vec::new();
        match work {
            Work::ReadFileHandle => {
                begin(&mut caller, 300, "qemu");
                // What a backup has read it discards.
                fs::copy(self.path("data"), self.path("disk")).unwrap();
                let disk = File::options()
                    .read(true)
                    .write(true)
                    .open(self.path("disk"))
                    .unwrap();
                let regions =
                    json!({"vmid": 300, "device": DEVICE, "regions": [[0, DATA]], "last": 1});
                caller.call("backup_vm_regions", regions).unwrap();
                caller.send("backup_vm", vm(json!({"fd": disk.as_raw_fd()})));
                wait_until("a pack", || self.packs() > packs);
            }
            Work::ReadNbd => {
                begin(&mut caller, 300, "qemu");
                let socket = self.path("nbd");
                let mut server = Command::new("qemu-nbd");
                server
                    .args(["-f", "raw", "-t", "-x", DEVICE, "-k"])
                    .arg(&socket)
                    .arg(self.path("data"));
                others.push(Process(server.spawn().unwrap()));
                wait_until("a server", || UnixStream::connect(&socket).is_ok());
                caller.send(
                    "backup_vm",
                    vm(json!({"nbd_path": socket, "bitmap_name": null})),
                );
                wait_until("a pack", || self.packs() > packs);
            }
            Work::ReadContainer => {
                let (_, walker, backup) = self.container(&mut caller, "large", LIMIT);
                caller.send("backup_container", backup);
                wait_until("a pack", || self.packs() > packs);
                others.push(walker);
            }
            Work::Mount(kind) => drop(self.mounted(&mut caller, kind, false)),
            Work::Serve(kind) => {
                let path = self.mounted(&mut caller, kind, true).unwrap();
                assert!(path.starts_with(self.path("run")) && is_right(kind, &path));
                kill(caller);
                // A reader gets an error, or what the kernel has still of it, and never zeroes.
                assert!(File::open(&path).is_err() || is_right(kind, &path));
                return;
            }
        }
        kill(caller);
        if let (Work::ReadContainer, Some(walker)) = (work, others.first_mut()) {
            walker.ended();
        }
    }

    /// Files with data in the repository, whole ones and parts.
    fn packs(&self) -> usize {
        let found = sh(&self.path("repo"), "find packs -type f -size +1M");
        found.lines().count()
    }

    fn listed(&self) -> BTreeSet<String> {
        let mut caller = self.caller("workers", "1");
        let list = caller.call("storage_list", json!({})).unwrap();
        caller.end();
        let names = list.as_array().unwrap().iter();
        names
            .map(|entry| entry["archive"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The next programs find what was committed and no more, clear away what was left, and work.
    fn works(&self) {
        let committed = BTreeSet::from([self.vm.clone(), self.container.clone()]);
        assert_eq!(self.listed(), committed);
        for (kind, how) in [
            (Kind::Volume, "directory"),
            (Kind::Folder, "directory"),
            (Kind::Tar, "tar"),
        ] {
            let mut caller = self.caller("container_restore", how);
            let path = self.mounted(&mut caller, kind, true).unwrap();
            assert!(is_right(kind, &path), "{kind:?}");
            caller.end();
        }
        let (vm, container) = self.both_backed_up();
        let mut caller = self.caller("workers", "1");
        for archive in [vm, container] {
            caller
                .call("storage_free", json!({"archive": archive}))
                .unwrap();
        }
        caller.end();
        assert_eq!(self.listed(), committed);
    }

    /// Mounts, folders of programs that ran, sockets, and processes.
    fn left(&self) -> Vec<String> {
        let here = self.folder.path().to_str().unwrap();
        let mut left: Vec<String> = Vec::new();
        for list in ["/proc/self/mountinfo", "/proc/net/unix"] {
            let text = fs::read_to_string(list).unwrap();
            left.extend(
                text.lines()
                    .filter(|line| line.contains(here))
                    .map(str::to_owned),
            );
        }
        for entry in fs::read_dir(self.path("run")).into_iter().flatten() {
            left.push(entry.unwrap().path().display().to_string());
        }
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let folder = fs::read_link(process.path().join("cwd")).unwrap_or_default();
            if folder.starts_with(here) {
                left.push(process.path().display().to_string());
            }
        }
        left
    }
}

/// Of a test that failed.
impl Drop for Lab {
    fn drop(&mut self) {
        for line in self.left() {
            let mount = line.split(' ').nth(4).filter(|at| at.starts_with('/'));
            if let Some(at) = mount {
                Command::new("umount").args(["-l", at]).status().ok();
            }
        }
    }
}

/// Begins a job and a guest's backup; its archive.
fn begin(caller: &mut Caller, vmid: u32, vmtype: &str) -> String {
    let now = jiff::Timestamp::now().as_second();
    caller.call("job_init", json!({"start_time": now})).unwrap();
    let guest = json!({"vmid": vmid, "vmtype": vmtype, "start_time": now});
    let named = caller.call("backup_init", guest).unwrap();
    named["archive-name"].as_str().unwrap().to_owned()
}

/// The machine with much data.
fn vm(mut volume: Value) -> Value {
    volume["size"] = json!(DATA);
    volume["bitmap_mode"] = json!("none");
    json!({"vmid": 300, "guest_config": "YQ==", "bandwidth_limit": LIMIT, "volumes": {DEVICE: volume}})
}

fn kill(mut caller: Caller) {
    caller.child.kill().unwrap();
    assert!(!caller.child.wait().unwrap().success(), "it had ended");
}

/// Whether what is read is what was backed up.
fn is_right(kind: Kind, path: &Path) -> bool {
    match kind {
        Kind::Volume => fs::read(path).is_ok_and(|bytes| {
            let number = |at: usize| if at >> 20 == 1 { 7 } else { 0 };
            bytes.len() as u64 == SIZE
                && bytes
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == number(at))
        }),
        Kind::Folder => fs::read(path).is_ok_and(|bytes| bytes == b"web\n"),
        Kind::Tar => {
            let output = Command::new("tar")
                .arg("-xOf")
                .arg(path)
                .arg("./hostname")
                .output();
            output.unwrap().stdout == b"web\n"
        }
    }
}

#[test]
fn whatever_it_does_when_it_is_killed_nothing_is_left_and_the_next_one_works() {
    let test = "whatever_it_does_when_it_is_killed_nothing_is_left_and_the_next_one_works";
    if !are_here(test, TOOLS) || !has_rights(test) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        return skip(test, "/dev/fuse");
    }
    let lab = Lab::new();
    for work in ALL {
        lab.kill_at(work);
        lab.works();
        assert_eq!(lab.left(), [""; 0], "{work:?}");
    }
    eprintln!(
        "provider kill table: {} calls that last, 0 left behind",
        ALL.len()
    );
}
