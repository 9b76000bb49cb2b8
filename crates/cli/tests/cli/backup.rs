//! `backup vm` of a real QEMU.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json as object};
use tempfile::TempDir;

use crate::shape::Shape;
use crate::{fails, json, snapkeep, terminated, tool};

const SIZE: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine with one disk, `disk.raw` in a folder with the open repository `repo`, and with the
/// guest's configuration in `c.toml`.
struct Guest {
    folder: TempDir,
    qemu: Child,
    monitor: BufReader<UnixStream>,
}

impl Guest {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let init = [
            "-r",
            "repo",
            "init",
            "--no-encryption",
            "--write-recovery-kit",
            "kit",
        ];
        json(&folder, &init);
        fs::write(path("web.conf"), b"memory: 32\n\xff").unwrap();
        let text = "repository = 'repo'\nfleecing = '.'\n[guests.web]\nqmp = 'backup.qmp'\n\
                    guest-config = 'web.conf'\n";
        fs::write(path("c.toml"), text).unwrap();
        let mut disk = vec![0; SIZE];
        disk[1 << 20..3 << 20].fill(7);
        fs::write(path("disk.raw"), &disk).unwrap();
        let qemu = Command::new("qemu-system-x86_64")
            .current_dir(folder.path())
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-machine", "pc", "-accel", "tcg", "-m", "32"])
            .args(["-qmp", "unix:backup.qmp,server=on,wait=off"])
            .args(["-qmp", "unix:test.qmp,server=on,wait=off"])
            .args([
                "-blockdev",
                "driver=raw,node-name=d0,file.driver=file,file.filename=disk.raw",
            ])
            .args(["-device", "virtio-blk-pci,id=disk0,drive=d0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path("test.qmp")) {
                Ok(stream) => break stream,
                Err(e) => assert!(start.elapsed() < PATIENCE, "{e}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let monitor = BufReader::new(stream);
        let mut guest = Self {
            folder,
            qemu,
            monitor,
        };
        guest.execute("qmp_capabilities", &object!({}));
        guest
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let line = object!({"execute": command, "arguments": arguments});
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

    fn back_up(&self, more: &[&str]) -> Value {
        let verb = ["--config", "c.toml", "backup", "vm", "--guest", "web"];
        json(&self.folder, &[&verb, more].concat())
    }

    /// Whether the archive is what the disk has now.
    fn is_now(&self, archive: &Value) -> bool {
        let archive = archive["archive"].as_str().unwrap();
        let restore = ["restore", "vm", archive, "--to", "copy", "--overwrite"];
        json(&self.folder, &[&["-r", "repo"], &restore[..]].concat());
        let read = |name: &str| fs::read(self.folder.path().join(name)).unwrap();
        read("copy") == read("disk.raw")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.qemu.kill().and_then(|()| self.qemu.wait()));
    }
}

/// What bitmaps are relative to may be what was put back.
#[test]
fn a_disk_is_read_whole_until_somebody_accepts_that_the_repository_was_rolled_back() {
    let test = "a_disk_is_read_whole_until_somebody_accepts_that_the_repository_was_rolled_back";
    if !tool(test, "qemu-system-x86_64") {
        return;
    }
    let guest = Guest::start();
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let status = command.args(args).current_dir(guest.folder.path()).status();
        assert!(status.unwrap().success(), "{program} {args:?}");
    };
    let incremental = || guest.back_up(&[])["disks"][0]["incremental"].clone();
    assert_eq!(incremental(), false);
    run("cp", &["-a", "repo", "yesterday"]);
    assert_eq!(incremental(), true);
    run("rm", &["-r", "repo"]);
    run("mv", &["yesterday", "repo"]);
    for _ in 0..2 {
        assert_eq!(incremental(), false);
    }
    let doctor = [
        "--config",
        "c.toml",
        "doctor",
        "--mounts",
        ".",
        "--run-folder",
        "run",
    ];
    fails(&guest.folder, &doctor, 9, &[]);
    let accepted = snapkeep(
        &guest.folder,
        &[&doctor[..], &["--accept-rollback"]].concat(),
    );
    let said = String::from_utf8_lossy(&accepted.stderr);
    assert!(said.contains("accepted: the repository in "), "{said}");
    assert_eq!(incremental(), true);
}

#[test]
fn a_running_guest_is_backed_up_and_then_what_changed() {
    if !tool(
        "a_running_guest_is_backed_up_and_then_what_changed",
        "qemu-system-x86_64",
    ) {
        return;
    }
    let mut guest = Guest::start();
    let full = guest.back_up(&[]);
    Shape::of("`backup vm`")[0].check(&full);
    assert_eq!(full["disks"][0]["device"], "disk0");
    assert_eq!(full["disks"][0]["incremental"], false);
    assert_eq!(full["left_in_qemu"], Value::Null);
    assert!(guest.is_now(&full));
    let config = snapkeep(
        &guest.folder,
        &["-r", "repo", "show", "web", "--guest-config"],
    );
    assert_eq!(config.stdout, b"memory: 32\n\xff");
    let line = "qemu-io -d /machine/peripheral/disk0/virtio-backend \"write -P 9 5M 64k\"";
    guest.execute("human-monitor-command", &object!({"command-line": line}));
    let second = guest.back_up(&["--disk", "disk0"]);
    assert_eq!(second["disks"][0]["incremental"], true);
    assert!(
        second["read_bytes"].as_u64().unwrap() <= 1 << 20,
        "{second}"
    );
    assert!(guest.is_now(&second) && !guest.is_now(&full));
    let third = guest.back_up(&["--full"]);
    assert_eq!(third["disks"][0]["incremental"], false);
    assert!(guest.is_now(&third));
}

#[test]
fn a_qemu_that_has_an_nbd_server_keeps_it() {
    if !tool(
        "a_qemu_that_has_an_nbd_server_keeps_it",
        "qemu-system-x86_64",
    ) {
        return;
    }
    let mut guest = Guest::start();
    let address = object!({"type": "unix", "data": {"path": "own.nbd"}});
    guest.execute("nbd-server-start", &object!({"addr": address}));
    let serves = |guest: &Guest| {
        let mut magic = [0; 8];
        let mut stream = UnixStream::connect(guest.folder.path().join("own.nbd")).unwrap();
        stream.read_exact(&mut magic).unwrap();
        magic == *b"NBDMAGIC"
    };
    let verb = ["--config", "c.toml", "backup", "vm", "--guest", "web"];
    fails(&guest.folder, &verb, 1, &["already", "name its socket"]);
    let wrong = [&verb[..], &["--nbd-server", "gone.nbd"]].concat();
    fails(&guest.folder, &wrong, 1, &["disk0", "gone.nbd"]);
    assert!(serves(&guest));

    let full = guest.back_up(&["--nbd-server", "own.nbd"]);
    assert!(guest.is_now(&full) && serves(&guest));
    let config = guest.folder.path().join("c.toml");
    let text = fs::read_to_string(&config).unwrap() + "nbd-server = 'own.nbd'\n";
    fs::write(config, text).unwrap();
    let second = guest.back_up(&[]);
    assert_eq!(second["disks"][0]["incremental"], true);
    assert!(guest.is_now(&second) && serves(&guest));
    assert_eq!(second["left_in_qemu"], Value::Null);
    let exports = guest.execute("query-block-exports", &object!({}));
    assert_eq!(exports, object!([]));
}

/// A backup during which somebody else begins to use one of its nodes, so that it stays.
fn with_a_node_that_stays(guest: &mut Guest, more: &[&str]) -> Output {
    let verb = ["--config", "c.toml", "backup", "vm", "--guest", "web"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args([&verb[..], &["--full", "--bandwidth-limit", "3M"], more].concat())
        .current_dir(guest.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let exports = |guest: &mut Guest| guest.execute("query-block-exports", &object!({}));
    while exports(guest) == object!([]) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::sleep(Duration::from_millis(10));
    }
    let node = object!({
        "driver": "raw", "node-name": "other", "read-only": true, "file": "snapkeep-fleece-0",
    });
    guest.execute("blockdev-add", &node);
    child.wait_with_output().unwrap()
}

#[test]
fn what_stays_in_qemu_is_told_and_taken_back_later() {
    if !tool(
        "what_stays_in_qemu_is_told_and_taken_back_later",
        "qemu-system-x86_64",
    ) {
        return;
    }
    let mut guest = Guest::start();
    for more in [&["--json"][..], &["--quiet"]] {
        let output = with_a_node_that_stays(&mut guest, more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let (said, told) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        for words in ["error: ", "disk0", "the next backup", "snapkeep-fleece-0"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        if more == ["--json"] {
            let done: Value = serde_json::from_str(&said).unwrap();
            Shape::of("`backup vm`")[0].check(&done);
            let left = done["left_in_qemu"].as_str().unwrap();
            assert!(left.contains("snapkeep-fleece-0"), "{left}");
            assert!(guest.is_now(&done));
        } else {
            let lines: Vec<&str> = said.lines().collect();
            assert!(lines[0].starts_with("backed up web"), "{said}");
            assert!(lines[1].contains("still in QEMU"), "{said}");
            assert!(lines[1].contains("snapkeep-fleece-0"), "{said}");
        }
        guest.execute("blockdev-del", &object!({"node-name": "other"}));
    }
    let verb = ["--config", "c.toml", "backup", "vm", "--guest", "web"];
    let output = snapkeep(&guest.folder, &verb);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && told.contains("it is taken back"),
        "{told}"
    );
    let nodes = guest
        .execute("query-named-block-nodes", &object!({}))
        .to_string();
    assert!(
        !nodes.contains("snapkeep-fleece") && !nodes.contains("snapkeep-cbw"),
        "{nodes}"
    );
}

#[test]
fn a_signal_cancels_a_backup_and_leaves_nothing() {
    if !tool(
        "a_signal_cancels_a_backup_and_leaves_nothing",
        "qemu-system-x86_64",
    ) {
        return;
    }
    let mut guest = Guest::start();
    let args = [
        "--config",
        "c.toml",
        "backup",
        "vm",
        "--guest",
        "web",
        "--bandwidth-limit",
        "1K",
    ];
    // It is told why the whole disk is read, which is after the guest's disks were found.
    let code = terminated(
        &guest.folder,
        &args,
        "snapkeep: disk0: the whole disk",
        |_| {},
    );
    assert_eq!(code, Some(4));
    let list = json(&guest.folder, &["-r", "repo", "list"]);
    assert_eq!(list["archives"], object!([]));
    let nodes = guest.execute("query-named-block-nodes", &object!({}));
    let exports = guest.execute("query-block-exports", &object!({}));
    assert!(!nodes.to_string().contains("snapkeep-"), "{nodes}");
    assert_eq!(exports, object!([]));
    let left = fs::read_dir(guest.folder.path()).unwrap();
    let mut names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.all(|name| !name.starts_with("snapkeep-run-")));
    let archive = guest.back_up(&[]);
    assert!(guest.is_now(&archive));
}

#[test]
fn a_guest_a_monitor_and_a_disk_that_are_not_there_are_named() {
    let folder = TempDir::new().unwrap();
    let init = [
        "-r",
        "repo",
        "init",
        "--no-encryption",
        "--write-recovery-kit",
        "kit",
    ];
    json(&folder, &init);
    let verb = ["-r", "repo", "backup", "vm", "--guest", "web"];
    fails(&folder, &verb, 2, &["web", "--qmp", "[guests.web]"]);
    let with = |more: &[&'static str]| [&verb[..], more].concat();
    fails(&folder, &with(&["--qmp", "gone"]), 1, &["gone"]);
    let config = with(&["--qmp", "gone", "--guest-config", "none"]);
    fails(&folder, &config, 2, &["guest configuration", "none"]);
    fs::write(folder.path().join("long"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let config = with(&["--qmp", "gone", "--firewall-config", "long"]);
    fails(&folder, &config, 2, &["firewall configuration", "long"]);
    if !tool(
        "a_guest_a_monitor_and_a_disk_that_are_not_there_are_named",
        "qemu-system-x86_64",
    ) {
        return;
    }
    let guest = Guest::start();
    let disk = with(&["--qmp", "backup.qmp", "--disk", "vdb", "--fleecing", "."]);
    fails(&guest.folder, &disk, 5, &["vdb", "disk0"]);
}
