//! An emulated machine with one disk, and backups of it that are killed or stand still.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Disk, Running, are_here, init, json as done, program, wait_until};

const SIZE: usize = 8 << 20;
/// So slow that the backup is there for longer than a test looks away.
const SLOW: &[&str] = &["--bandwidth-limit", "400K"];

/// A machine with the disk `disk.raw`, in a folder with the repository `repo`.
pub(crate) struct Guest {
    disk: Disk,
    qemu: Child,
    monitor: BufReader<UnixStream>,
}

impl Guest {
    /// `None`: there is no QEMU here, which was told.
    pub(crate) fn start(test: &str) -> Option<Self> {
        if !are_here(test, &["qemu-system-x86_64"]) {
            return None;
        }
        let disk = Disk::new();
        let folder = disk.path();
        init(folder);
        fs::create_dir(folder.join("fleecing")).unwrap();
        let mut bytes = vec![0; SIZE];
        bytes[1 << 20..3 << 20].fill(7);
        fs::write(folder.join("disk.raw"), &bytes).unwrap();
        let qmp = |name| format!("unix:{name}.qmp,server=on,wait=off");
        let mut qemu = Command::new("qemu-system-x86_64")
            .current_dir(folder)
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc", "-accel", "tcg", "-m", "32"])
            .args(["-qmp", &qmp("backup"), "-qmp", &qmp("doctor")])
            .args(["-qmp", &qmp("test")])
            .args([
                "-blockdev",
                "driver=raw,node-name=d0,file.driver=file,file.filename=disk.raw",
            ])
            .args(["-device", "virtio-blk-pci,id=disk0,drive=d0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stream = None;
        wait_until("QEMU", || {
            assert!(qemu.try_wait().unwrap().is_none(), "it ended at once");
            stream = UnixStream::connect(folder.join("test.qmp")).ok();
            stream.is_some()
        });
        let monitor = BufReader::new(stream.unwrap());
        let mut guest = Self {
            disk,
            qemu,
            monitor,
        };
        guest.execute("qmp_capabilities", &json!({}));
        Some(guest)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.disk.path()
    }

    #[track_caller]
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let line = json!({"execute": command, "arguments": arguments});
        writeln!(self.monitor.get_mut(), "{line}").unwrap();
        loop {
            let mut line = String::new();
            self.monitor.read_line(&mut line).unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            assert!(message.get("error").is_none(), "{command}: {message}");
            if let Some(value) = message.get("return") {
                return value.clone();
            }
        }
    }

    /// The guest fills 64 KiB of its disk.
    pub(crate) fn write(&mut self, offset: &str, byte: u8) {
        let path = "/machine/peripheral/disk0/virtio-backend";
        let line = format!("qemu-io -d {path} \"write -P {byte} {offset} 64k\"");
        let said = self.execute("human-monitor-command", &json!({"command-line": line}));
        assert_eq!(said, "");
    }

    fn backup(&self, more: &[&str]) -> Command {
        let backup = ["backup", "vm", "--guest", "web", "--qmp", "backup.qmp"];
        let fleecing = ["--fleecing", "fleecing"];
        program(self.folder(), &[&backup[..], &fleecing, more].concat())
    }

    /// A backup from its beginning to its good end.
    #[track_caller]
    pub(crate) fn backed_up(&self, more: &[&str]) -> Value {
        let mut command = self.backup(more);
        let output = command.arg("--json").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Whether the archive is what the disk has now.
    pub(crate) fn is_now(&self, archive: &Value) -> bool {
        let archive = archive["archive"].as_str().unwrap();
        let restore = ["restore", "vm", archive, "--to", "copy", "--overwrite"];
        done(self.folder(), &restore);
        let read = |name: &str| fs::read(self.folder().join(name)).unwrap();
        read("copy") == read("disk.raw")
    }

    /// A backup that reads, and its process.
    #[track_caller]
    pub(crate) fn reading(&mut self, more: &[&str]) -> (Running, Pid) {
        let before = self.execute("query-block-exports", &json!({}));
        let mut command = self.backup(&[SLOW, more].concat());
        let mut running = Running::of(command.stdout(Stdio::null()).stderr(Stdio::null()));
        wait_until("its exports", || {
            assert!(running.runs(), "the backup ended");
            self.execute("query-block-exports", &json!({})) != before
        });
        let pid = running.pid();
        (running, pid)
    }

    /// A backup that is killed while it reads.
    #[track_caller]
    pub(crate) fn killed(&mut self, more: &[&str]) {
        let (running, _) = self.reading(more);
        running.signal(Signal::KILL);
        assert_eq!(running.ended(), None);
        assert!(self.ours().contains(&"snapkeep-fleece-0".to_owned()));
    }

    /// Names of nodes and exports of ours.
    pub(crate) fn ours(&mut self) -> Vec<String> {
        let nodes = self.execute("query-named-block-nodes", &json!({}));
        let exports = self.execute("query-block-exports", &json!({}));
        let names = |list: &Value, field: &str| -> Vec<String> {
            let list = list.as_array().unwrap().iter();
            let names = list.map(|one| one[field].as_str().unwrap().to_owned());
            names.filter(|name| name.starts_with("snapkeep-")).collect()
        };
        let mut found = names(&nodes, "node-name");
        found.extend(names(&exports, "id"));
        found
    }

    /// Names of the dirty bitmaps of the disk.
    pub(crate) fn bitmaps(&mut self) -> Vec<String> {
        let nodes = self.execute("query-named-block-nodes", &json!({}));
        let disk = (nodes.as_array().unwrap().iter()).find(|node| node["node-name"] == "d0");
        let bitmaps = disk.unwrap()["dirty-bitmaps"].as_array();
        let names = bitmaps.into_iter().flatten().map(|bitmap| &bitmap["name"]);
        let mut names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// All that QEMU tells of disks, nodes and exports. Whether its disk may cache writes is the
    /// guest's to say, whose firmware says so at some time.
    pub(crate) fn everything(&mut self) -> String {
        let commands = [
            "query-block",
            "query-named-block-nodes",
            "query-block-exports",
        ];
        let told = commands.map(|command| self.execute(command, &json!({})).to_string());
        told.join("\n")
            .replace("\"writeback\":false", "\"writeback\":true")
    }

    /// Names in the fleecing folder.
    pub(crate) fn fleecing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder().join("fleecing")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.qemu), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}
