//! The program as Proxmox VE's plugin starts it, over a real repository.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "arguments are made where they are passed, and a test fails by panicking"
)]

mod doctored;
mod killed;
mod lineage;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything takes; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// The plugin's end.
struct Caller {
    child: Child,
    socket: BufReader<UnixStream>,
    number: u32,
    logged: Vec<String>,
}

impl Caller {
    fn new(folder: &TempDir, settings: Value) -> Self {
        let mut caller = Self::silent(folder);
        let hello = json!({"version": 1, "pid": std::process::id(), "storage": "store",
                           "settings": settings});
        let answer = caller.call("hello", hello).unwrap();
        assert_eq!(answer["version"], 1);
        caller
    }

    fn silent(folder: &TempDir) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
            .arg("provider")
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            socket: BufReader::new(ours),
            number: 0,
            logged: Vec::new(),
        }
    }

    /// What the call returns, or the kind and the message of its error.
    fn call(&mut self, call: &str, args: Value) -> Result<Value, (String, String)> {
        let id = self.send(call, args);
        loop {
            let mut line = String::new();
            self.socket.read_line(&mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["id"], id.as_str(), "{answer}");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            if let Some(level) = answer["log"].as_str() {
                let line = format!("{level} {}", text(&answer["message"]));
                self.logged.push(line);
                continue;
            }
            if let Some(error) = answer.get("error") {
                return Err((text(&error["kind"]), text(&error["message"])));
            }
            return Ok(answer["result"].clone());
        }
    }

    /// Writes the call, and waits for nothing; its id.
    fn send(&mut self, call: &str, args: Value) -> String {
        self.number += 1;
        let id = format!("{}-{}", std::process::id(), self.number);
        let line = format!("{}\n", json!({"id": id, "call": call, "args": args}));
        self.socket.get_mut().write_all(line.as_bytes()).unwrap();
        id
    }

    /// Ends the conversation; the program ends too, well.
    fn end(mut self) {
        drop(self.socket);
        assert!(self.child.wait().unwrap().success());
    }
}

fn settings(folder: &TempDir) -> Value {
    let path = |name: &str| folder.path().join(name);
    fs::write(path("passphrase"), "correct horse\n").unwrap();
    json!({"repository": path("repository"), "passphrase_file": path("passphrase"),
           "recovery_kit": path("kit"), "run_folder": path("run"), "identity": "0123456789abcdef",
           "memory_folder": path("memory"),
           "vm_mechanism": "file-handle", "workers": "2"})
}

/// The same with a repository that is not encrypted: to derive a key from a passphrase takes a
/// program that is not optimised seconds each time.
fn created_open() -> (TempDir, Value) {
    let folder = TempDir::new().unwrap();
    let mut settings = settings(&folder);
    support::init(folder.path());
    settings["repository"] = json!(folder.path().join("repo"));
    settings.as_object_mut().unwrap().remove("passphrase_file");
    (folder, settings)
}

/// A folder with a new repository, and the settings of its storage.
fn created() -> (TempDir, Value) {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let mut caller = Caller::new(&folder, settings.clone());
    let made = caller.call("storage_create", json!({})).unwrap();
    assert_eq!(made["encrypted"], 1);
    caller.end();
    (folder, settings)
}

const SIZE: u64 = (5 << 20) + 512;

/// Backs up guest 100, whose one disk holds this byte in its second MiB; the archive.
fn back_up(caller: &mut Caller, folder: &TempDir, byte: u8) -> String {
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    bytes[1 << 20..2 << 20].fill(byte);
    let path = folder.path().join("disk");
    fs::write(&path, &bytes).unwrap();
    let disk = File::open(&path).unwrap();
    let now = jiff::Timestamp::now().as_second();
    caller.call("job_init", json!({"start_time": now})).unwrap();
    let guest = json!({"vmid": "100", "vmtype": "qemu", "start_time": now});
    let named = caller.call("backup_init", guest).unwrap();
    let guest = json!({"vmid": 100, "vmtype": "qemu"});
    let mechanism = caller.call("backup_get_mechanism", guest).unwrap();
    assert_eq!(mechanism["mechanism"], "file-handle");
    let volumes = json!({"drive-scsi0": {"size": SIZE}});
    let asked = json!({"vmid": 100, "volumes": volumes});
    let asked = caller.call("backup_vm_query_incremental", asked).unwrap();
    assert_eq!(asked, json!({"drive-scsi0": "new"}));
    let regions = json!({"vmid": 100, "device": "drive-scsi0", "regions": [["0", SIZE.to_string()]],
                         "last": 1});
    caller.call("backup_vm_regions", regions).unwrap();
    let volumes =
        json!({"drive-scsi0": {"size": SIZE, "bitmap_mode": "new", "fd": disk.as_raw_fd()}});
    // "name: a\n"
    let vm = json!({"vmid": 100, "guest_config": "bmFtZTogYQo=", "firewall_config": null,
                    "bandwidth_limit": null, "volumes": volumes});
    caller.call("backup_vm", vm).unwrap();
    let cleanup = json!({"vmid": 100, "vmtype": "qemu", "success": 1});
    caller.call("backup_cleanup", cleanup).unwrap();
    caller.call("job_cleanup", json!({})).unwrap();
    named["archive-name"].as_str().unwrap().to_owned()
}

#[test]
fn a_repository_is_made_once_with_a_kit_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, settings) = created();
    let kit = fs::metadata(folder.path().join("kit")).unwrap();
    assert_eq!(kit.permissions().mode() & 0o777, 0o600);
    let mut caller = Caller::new(&folder, settings.clone());
    let (_, again) = caller.call("storage_create", json!({})).unwrap_err();
    assert!(
        again.contains("there is a repository in it already"),
        "{again}"
    );
    // It is open then: a check has seconds, which a key's derivation may take here.
    caller.call("storage_list", json!({})).unwrap();
    assert_eq!(
        caller.call("storage_check", json!({})).unwrap()["encrypted"],
        1
    );
    caller.end();
    fs::write(folder.path().join("passphrase"), "wrong\n").unwrap();
    let mut caller = Caller::new(&folder, settings);
    let (kind, message) = caller.call("storage_list", json!({})).unwrap_err();
    assert_eq!(kind, "invalid");
    assert!(
        message.contains("repository") && !message.contains("wrong\n"),
        "{message}"
    );
    caller.end();
}

#[test]
fn an_archive_is_listed_noted_protected_and_freed() {
    let (folder, settings) = created();
    let mut caller = Caller::new(&folder, settings);
    let archive = back_up(&mut caller, &folder, 7);
    assert!(archive.starts_with("vzdump-qemu-100-20"), "{archive}");
    let list = caller.call("storage_list", json!({"vmid": null})).unwrap();
    assert_eq!(list[0]["archive"], archive.as_str());
    assert_eq!(list[0]["vmid"], 100);
    assert_eq!(list[0]["size"], SIZE);
    assert_eq!(list[0]["encrypted"], 1);
    assert_eq!(list[0]["notes"], Value::Null);
    let other = caller.call("storage_list", json!({"vmid": 101})).unwrap();
    assert_eq!(other, json!([]));
    // "é"
    let notes = json!({"archive": archive, "notes": "w6k="});
    caller.call("storage_set_notes", notes).unwrap();
    let protect = |protected| json!({"archive": archive, "protected": protected});
    caller.call("storage_set_protected", protect(1)).unwrap();
    let one = json!({"archive": archive});
    let got = caller.call("storage_get", one.clone()).unwrap();
    assert_eq!(
        (&got["notes"], &got["protected"]),
        (&json!("w6k="), &json!(1))
    );
    let (_, refused) = caller.call("storage_free", one.clone()).unwrap_err();
    assert!(refused.contains("protected"), "{refused}");
    caller.call("storage_set_protected", protect(0)).unwrap();
    caller.call("storage_free", one.clone()).unwrap();
    assert_eq!(caller.call("storage_list", json!({})).unwrap(), json!([]));
    let (kind, _) = caller.call("storage_get", one).unwrap_err();
    assert_eq!(kind, "not-found");
    caller.end();
}

#[test]
fn a_list_has_the_first_line_of_notes_and_not_too_much_of_it() {
    let (folder, settings) = created();
    let mut caller = Caller::new(&folder, settings);
    let archive = back_up(&mut caller, &folder, 7);
    let line = format!("x{}", "é".repeat(300));
    for (notes, listed) in [
        ("one\ntwo".to_owned(), "one"),
        (String::new(), ""),
        (line.clone(), &line[..255]),
    ] {
        let encoded = BASE64_STANDARD.encode(&notes);
        let set = json!({"archive": archive, "notes": encoded});
        caller.call("storage_set_notes", set).unwrap();
        let list = caller.call("storage_list", json!({})).unwrap();
        let seen = list[0]["notes"].as_str().unwrap_or_default();
        assert_eq!(seen, BASE64_STANDARD.encode(listed));
        let got = caller.call("storage_get", json!({"archive": archive}));
        assert_eq!(got.unwrap()["notes"].as_str().unwrap_or_default(), encoded);
    }
    caller.end();
}

#[test]
fn the_guests_configuration_comes_back() {
    let (folder, settings) = created();
    let mut caller = Caller::new(&folder, settings.clone());
    let archive = back_up(&mut caller, &folder, 7);
    caller.end();
    let mut caller = Caller::new(&folder, settings);
    for volname in [archive.clone(), format!("backup/{archive}")] {
        let volname = json!({"volname": volname});
        let config = caller.call("archive_get_guest_config", volname.clone());
        assert_eq!(config.unwrap(), "bmFtZTogYQo=");
        let firewall = caller.call("archive_get_firewall_config", volname);
        assert_eq!(firewall.unwrap(), Value::Null);
    }
    for bad in ["backup/nope", "backup/../../etc/passwd", "", "iso/x.iso"] {
        let asked = json!({"volname": bad});
        let (kind, _) = caller.call("archive_get_guest_config", asked).unwrap_err();
        assert_eq!(kind, "invalid", "{bad}");
    }
    caller.end();
}

#[test]
fn a_storage_that_is_not_there_is_inactive_and_named() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let mut caller = Caller::new(&folder, settings);
    let status = caller.call("storage_status", json!({})).unwrap();
    assert_eq!(status["active"], 0);
    for call in ["storage_check", "storage_list"] {
        let (kind, message) = caller.call(call, json!({})).unwrap_err();
        assert_eq!(kind, "not-found");
        assert!(message.contains("repository"), "{message}");
    }
    let job = caller.call("job_init", json!({"start_time": 1}));
    assert_eq!(job.unwrap_err().0, "not-found");
    caller.end();
}

#[test]
fn a_storage_that_is_there_has_room() {
    let (folder, settings) = created();
    let mut caller = Caller::new(&folder, settings);
    let status = caller.call("storage_status", json!({})).unwrap();
    assert_eq!(status["active"], 1);
    assert!(status["total"].as_u64().unwrap() > 0);
    caller.end();
}

#[test]
fn settings_that_cannot_be_used_are_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let mut caller = Caller::silent(&folder);
    let hello = json!({"version": 1, "pid": std::process::id(), "storage": "store",
                       "settings": {"repository": "relative"}});
    let (kind, message) = caller.call("hello", hello).unwrap_err();
    assert_eq!(kind, "invalid");
    assert!(message.contains("relative"), "{message}");
}
