//! The real program: its verbs, its exit codes, its document.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod attributes;
mod backup;
mod copy;
mod durable;
mod init;
mod keys;
mod late;
mod names;
mod prune;
mod repair;
mod retention;
mod settings;
#[path = "../support/shape.rs"]
mod shape;
mod shapes;
mod stats;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use snapkeep_api::{
    BitmapMode, DeviceName, Incarnation, Level, Outcome, Provider, Region, SnapshotAccess,
    SystemClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{LocalStorage, Repository, SystemRandom, Unlock};
use tempfile::TempDir;

fn snapkeep(folder: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(args)
        .current_dir(folder.path())
        .env_clear()
        .env("SNAPKEEP_STATE", "state")
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .output()
        .unwrap()
}

/// Whether a tool is there; says aloud that the test is skipped if it is not.
fn tool(test: &str, name: &str) -> bool {
    let there = Command::new(name).arg("--version").output().is_ok();
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(there || !ci, "{test} needs {name}");
    if !there {
        eprintln!("SKIP: {test}: needs {name}");
    }
    there
}

/// Fails with this code, and with a message that names all of these.
fn fails(folder: &TempDir, args: &[&str], code: i32, names: &[&str]) {
    let output = snapkeep(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for name in names {
        assert!(said.contains(name), "{args:?}: {name:?} is not in {said}");
    }
}

fn json(folder: &TempDir, args: &[&str]) -> Value {
    let output = snapkeep(folder, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

/// A folder with the open repository `repo` and an archive of the guest `web` in it, and the
/// bytes of its disk.
fn with_archive() -> (TempDir, Vec<u8>) {
    with_configuration(b"name: web\n")
}

fn with_configuration(guest_config: &[u8]) -> (TempDir, Vec<u8>) {
    let folder = with_repository();
    let bytes = back_up(&folder, "web", UnixTime(0), guest_config);
    (folder, bytes)
}

/// A folder with the open repository `repo`.
fn with_repository() -> TempDir {
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
    folder
}

/// The open repository of a folder.
fn repository(folder: &TempDir) -> Repository {
    let storage = Arc::new(LocalStorage::open(&folder.path().join("repo")).unwrap());
    Repository::open(storage, Arc::new(SystemRandom), &Unlock::Open).unwrap()
}

/// Backs up a guest at a time that is later than its others; the bytes of its disk.
fn back_up(folder: &TempDir, guest: &str, time: UnixTime, guest_config: &[u8]) -> Vec<u8> {
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let clock = Arc::new(SystemClock::new());
    let provider = RepositoryProvider::new(
        Arc::new(repository(folder)),
        Arc::new(SystemRandom),
        clock,
        Arc::new(Quiet),
        options,
    );
    let mut job = provider.start_job(time).unwrap();
    let mut vm = job.start_vm(&guest.parse().unwrap(), time).unwrap();
    let mut bytes = vec![0; 2 << 20];
    bytes[1 << 20..].fill(7);
    let size = bytes.len() as u64;
    let device: DeviceName = "drive-scsi0".parse().unwrap();
    let info = VolumeInfo {
        size,
        bitmaps: Vec::new(),
    };
    vm.choose_bitmaps(
        &Incarnation::default(),
        &BTreeMap::from([(device.clone(), info)]),
    )
    .unwrap();
    let source = folder.path().join("source");
    fs::write(&source, &bytes).unwrap();
    let access = SnapshotAccess::FileHandle {
        file: fs::File::open(&source).unwrap(),
        dirty: Box::new([Region::new(0, size)].into_iter()),
    };
    let volume = Volume {
        size,
        bitmap: BitmapMode::New,
        access,
    };
    vm.run(VmSource {
        guest_config: guest_config.to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device, volume)]),
    })
    .unwrap();
    vm.finish(&Outcome::Success).unwrap();
    bytes
}

/// A log that is closed or full while a backup runs must not end it: what it made in QEMU would stay.
#[test]
fn a_standard_error_that_takes_nothing_changes_nothing() {
    let (folder, _) = with_archive();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(closed), Stdio::from(full)] {
        let verify = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
            .args(["-r", "repo", "verify"])
            .current_dir(folder.path())
            .env_clear()
            .env("SNAPKEEP_STATE", "state")
            .env("SNAPKEEP_STATE", "state")
            .stderr(stderr)
            .output()
            .unwrap();
        assert_eq!(verify.status.code(), Some(0), "{verify:?}");
        let said = String::from_utf8_lossy(&verify.stdout);
        assert!(said.contains("nothing is damaged"), "{said}");
    }
}

#[test]
fn what_was_backed_up_is_listed_shown_and_restored() {
    let (folder, bytes) = with_archive();
    let list = json(&folder, &["-r", "repo", "list"]);
    assert_eq!(list["archives"][0]["guest"], "web");
    let shown = json(&folder, &["-r", "repo", "show", "web"]);
    assert_eq!(shown["devices"][0]["device"], "drive-scsi0");
    let done = json(
        &folder,
        &["-r", "repo", "restore", "vm", "web", "--to", "disk"],
    );
    assert_eq!(done["disks"][0]["data_bytes"], 1 << 20);
    assert!(fs::read(folder.path().join("disk")).unwrap() == bytes);
    json(
        &folder,
        &["-r", "repo", "restore", "vm", "web", "--into", "all"],
    );
    assert!(fs::read(folder.path().join("all/drive-scsi0.raw")).unwrap() == bytes);
    assert_eq!(
        fs::read(folder.path().join("all/guest.conf")).unwrap(),
        b"name: web\n"
    );
    let again = ["-r", "repo", "restore", "vm", "web", "--to", "disk"];
    fails(&folder, &again, 1, &["disk", "exists", "--overwrite"]);
    json(&folder, &[&again[..], &["--overwrite"]].concat());
    let verified = json(&folder, &["-r", "repo", "verify"]);
    assert_eq!(verified["archives"], 1);
}

#[test]
fn a_configuration_that_was_not_given_is_not_restored() {
    let (folder, _) = with_configuration(b"");
    let restore = ["-r", "repo", "restore", "vm", "web", "--into", "all"];
    let done = json(&folder, &restore);
    assert!(done["guest_config"].is_null(), "{done}");
    let names = fs::read_dir(folder.path().join("all")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["drive-scsi0.raw"]);
}

#[test]
fn what_is_not_there_is_named() {
    let (folder, _) = with_archive();
    fails(&folder, &["list"], 2, &["--repository"]);
    fails(&folder, &["-r", "gone", "list"], 5, &["gone", "mounted"]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    fails(&folder, &["-r", "empty", "list"], 5, &["empty", "mounted"]);
    fails(
        &folder,
        &["-r", "repo", "show", "db"],
        5,
        &["db", "snapkeep list"],
    );
    fails(
        &folder,
        &["-r", "repo", "show", "main/vm/web/x"],
        5,
        &["main/vm/web/x"],
    );
    let disk = [
        "-r", "repo", "restore", "vm", "web", "--to", "x", "--disk", "vdb",
    ];
    fails(&folder, &disk, 5, &["vdb", "drive-scsi0"]);
    let place = ["-r", "repo", "restore", "vm", "web", "--to", "none/x"];
    fails(&folder, &place, 1, &["none/x"]);
}

#[test]
fn damage_has_its_own_exit_code() {
    let (folder, _) = with_archive();
    let packs = fs::read_dir(folder.path().join("repo/packs")).unwrap();
    for part in packs {
        for pack in fs::read_dir(part.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[130] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    fails(&folder, &["-r", "repo", "verify"], 3, &[]);
    fails(
        &folder,
        &["-r", "repo", "restore", "vm", "web", "--to", "x"],
        3,
        &[],
    );
    assert!(!folder.path().join("x").exists());
}

#[test]
fn a_key_that_is_wrong_or_missing_is_told_from_one_that_opens() {
    let folder = TempDir::new().unwrap();
    json(
        &folder,
        &[
            "-r",
            "repo",
            "init",
            "--new-key-file",
            "key",
            "--write-recovery-kit",
            "kit",
        ],
    );
    fails(&folder, &["-r", "repo", "list"], 6, &["repo", "encrypted"]);
    fs::write(folder.path().join("wrong"), "nonsense\n").unwrap();
    fails(
        &folder,
        &["-r", "repo", "--key-file", "wrong", "list"],
        6,
        &["wrong"],
    );
    fails(
        &folder,
        &["-r", "repo", "--passphrase-file", "wrong", "list"],
        6,
        &["passphrase"],
    );
    fs::write(folder.path().join("pass"), "words\n").unwrap();
    let add = [
        "-r",
        "repo",
        "--key-file",
        "key",
        "key",
        "add",
        "--new-passphrase-file",
        "pass",
    ];
    let name = json(&folder, &add)["added"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    json(
        &folder,
        &["-r", "repo", "--passphrase-file", "pass", "list"],
    );
    json(
        &folder,
        &["-r", "repo", "--key-file", "key", "key", "remove", &name],
    );
    fails(
        &folder,
        &["-r", "repo", "--passphrase-file", "pass", "list"],
        6,
        &[],
    );
    fails(
        &folder,
        &["-r", "repo", "init", "--write-recovery-kit", "k"],
        1,
        &["repo", "already"],
    );
    assert!(!folder.path().join("k").exists());
}

#[test]
fn a_bad_configuration_is_named_with_its_line() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("c.toml"), "workers = 2\nrepo = \"x\"\n").unwrap();
    fails(
        &folder,
        &["--config", "c.toml", "list"],
        2,
        &["c.toml", "line 2", "repo"],
    );
    fails(
        &folder,
        &["--config", "none.toml", "list"],
        2,
        &["none.toml"],
    );
    fs::write(folder.path().join("c.toml"), "repository = \"of-file\"\n").unwrap();
    fails(&folder, &["--config", "c.toml", "list"], 5, &["of-file"]);
    fails(
        &folder,
        &["--config", "c.toml", "-r", "of-flag", "list"],
        5,
        &["of-flag"],
    );
}

#[test]
fn the_document_names_every_flag_and_no_other() {
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CLI.md")).unwrap();
    let folder = TempDir::new().unwrap();
    let verbs: [&[&str]; 32] = [
        &[],
        &["init"],
        &["backup", "vm"],
        &["backup", "container"],
        &["list"],
        &["show"],
        &["stats"],
        &["note"],
        &["protect"],
        &["unprotect"],
        &["forget"],
        &["restore", "vm"],
        &["restore", "container"],
        &["ls"],
        &["cat"],
        &["find"],
        &["diff"],
        &["extract"],
        &["mount"],
        &["verify"],
        &["repair"],
        &["copy"],
        &["prune"],
        &["doctor"],
        &["conformance"],
        &["key", "list"],
        &["key", "add"],
        &["key", "add-host"],
        &["key", "change"],
        &["key", "recovery-kit"],
        &["key", "remove"],
        &["nbd", "serve"],
    ];
    let mut flags = BTreeSet::new();
    for verb in verbs {
        assert!(
            document.contains(&format!("`{}", verb.join(" "))),
            "{verb:?}"
        );
        let help = snapkeep(&folder, &[verb, &["--help"]].concat());
        assert!(help.status.success(), "{verb:?}");
        flags.extend(long_flags(&String::from_utf8(help.stdout).unwrap()));
    }
    assert_eq!(long_flags(&document), flags);
}

fn long_flags(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let found = text
        .match_indices("--")
        .map(|(at, _)| word(&text[at + 2..]));
    found
        .filter(|flag| flag.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

/// Starts the program, waits for a line that begins so on one of its outputs, does something with
/// that line, sends SIGTERM; the program's exit code.
fn terminated(
    folder: &TempDir,
    args: &[&str],
    line: &str,
    meanwhile: impl FnOnce(&str),
) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(args)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out: Box<dyn Read> = if line.starts_with("snapkeep:") {
        Box::new(child.stderr.take().unwrap())
    } else {
        Box::new(child.stdout.take().unwrap())
    };
    let mut lines = BufReader::new(out).lines();
    let found = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|read| read.starts_with(line));
    meanwhile(&found.unwrap_or_else(|| panic!("{args:?}: no {line}")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // Read to the end, so that it never blocks on a full pipe.
    assert!(lines.all(|read| read.is_ok()));
    child.wait().unwrap().code()
}

#[test]
fn qemu_img_is_not_told_the_passphrase() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _) = with_archive();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("pass"), "words\n").unwrap();
    let add = ["-r", "repo", "key", "add", "--new-passphrase-file", "pass"];
    json(&folder, &add);
    fs::create_dir(at("bin")).unwrap();
    let script = "#!/bin/sh\nenv > told\nexit 1\n";
    fs::write(at("bin/qemu-img"), script).unwrap();
    fs::set_permissions(at("bin/qemu-img"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(["-r", "repo", "restore", "vm", "web"])
        .args(["--to", "x", "--format", "qcow2"])
        .current_dir(folder.path())
        .env_clear()
        .env("SNAPKEEP_STATE", "state")
        .env("PATH", path)
        .env("SNAPKEEP_PASSPHRASE", "words")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = fs::read_to_string(at("told")).unwrap();
    assert!(told.contains("PATH="), "{told}");
    assert!(!told.contains("words"), "{told}");
}

#[test]
fn a_signal_cancels_a_restore_and_leaves_nothing() {
    let (folder, _) = with_archive();
    let args = [
        "-r",
        "repo",
        "restore",
        "vm",
        "web",
        "--to",
        "out",
        "--bandwidth-limit",
        "1K",
    ];
    let code = terminated(
        &folder,
        &args,
        "snapkeep: restoring drive-scsi0 to out",
        |_| {},
    );
    assert_eq!(code, Some(4));
    assert!(!folder.path().join("out").exists());
    assert!(!folder.path().join(".out.snapkeep-partial").exists());
}

#[test]
fn serving_ends_well_with_a_signal() {
    let (folder, _) = with_archive();
    let args = ["-r", "repo", "nbd", "serve", "web", "--socket", "socket"];
    assert_eq!(
        terminated(&folder, &args, "drive-scsi0  nbd+unix:///", |_| {}),
        Some(0)
    );
    assert!(!folder.path().join("socket").exists());
}
