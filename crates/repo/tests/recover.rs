//! docs/FORMAT.md is enough: a reader in Python that was written from it restores the golden
//! repositories, and what its last chapter has for a shell proves what it says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a skipped test says so, and what Python counted is to be seen"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use snapkeep_repo::{
    DiskReader, KeyFile, LocalStorage, Protect, PruneOptions, Repository, SystemRandom, Unlock,
    prune,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> PathBuf {
    root().join("crates/repo/tests/golden")
}

/// Debian's modules belong to Debian's interpreter.
fn python() -> &'static str {
    let debian = "/usr/bin/python3";
    if Path::new(debian).exists() {
        debian
    } else {
        "python3"
    }
}

/// Whether a command works; if not, the test is skipped, or fails where all tools must be there.
fn works(test: &str, tool: &str, command: &mut Command) -> bool {
    let there = command.output().is_ok_and(|output| output.status.success());
    if !there {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{test}: needs {tool}"
        );
        eprintln!("SKIP: {test}: needs {tool}");
    }
    there
}

fn shown(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn the_reader_in_python_restores_what_this_program_restores() {
    let mut modules = Command::new(python());
    modules.args(["-c", "import cryptography, zstandard"]);
    let test = "recover::the_reader_in_python_restores_what_this_program_restores";
    let tool = "python3 with the modules cryptography and zstandard";
    if !works(test, tool, &mut modules) {
        return;
    }
    let mut command = Command::new(python());
    let script = root().join("docs/recovery/test_recover.py");
    let output = command.arg(script).arg(golden()).output().unwrap();
    println!("{}", shown(&output));
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn the_reader_in_python_says_that_a_hosts_key_may_only_write() {
    let mut modules = Command::new(python());
    modules.args(["-c", "import cryptography, zstandard"]);
    let test = "recover::the_reader_in_python_says_that_a_hosts_key_may_only_write";
    let tool = "python3 with the modules cryptography and zstandard";
    if !works(test, tool, &mut modules) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("encrypted");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(golden().join("encrypted")).arg(&folder);
    assert!(copy.status().unwrap().success());
    let owners = golden().join("key-file");
    let unlock = Unlock::KeyFile(std::fs::read_to_string(&owners).unwrap().parse().unwrap());
    let storage = Arc::new(LocalStorage::open(&folder).unwrap());
    let repository = Repository::open(storage, Arc::new(SystemRandom), &unlock).unwrap();
    let key = KeyFile::generate(&SystemRandom).unwrap();
    let file = scratch.path().join("host.key");
    std::fs::write(&file, &*key.to_text()).unwrap();
    let protect = Protect::Writer(key);
    repository.add_key(&protect, Some("node-a")).unwrap();
    let list = |key: &Path| {
        let mut command = Command::new(python());
        let script = root().join("docs/recovery/snapkeep_recover.py");
        command.arg(script).arg("--repository").arg(&folder);
        command.arg("--key-file").arg(key).arg("list");
        command.output().unwrap()
    };
    let refused = list(&file);
    assert!(!refused.status.success());
    let said = shown(&refused);
    assert!(
        said.contains("may only write (it is that of node-a)"),
        "{said}"
    );
    assert!(refused.stdout.is_empty(), "{said}");
    let owned = list(&owners);
    assert!(owned.status.success(), "{}", shown(&owned));
}

#[test]
fn the_reader_in_python_restores_a_repository_that_was_pruned() {
    let mut modules = Command::new(python());
    modules.args(["-c", "import cryptography, zstandard"]);
    let test = "recover::the_reader_in_python_restores_a_repository_that_was_pruned";
    let tool = "python3 with the modules cryptography and zstandard";
    if !works(test, tool, &mut modules) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("open");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(golden().join("open")).arg(&folder);
    assert!(copy.status().unwrap().success());
    let open = || {
        let storage = Arc::new(LocalStorage::open(&folder).unwrap());
        Arc::new(Repository::open(storage, Arc::new(SystemRandom), &Unlock::Open).unwrap())
    };
    let names = open().snapshots().unwrap();
    let [container, disk] = &names[..] else {
        panic!("{names:?}");
    };
    open().forget(container).unwrap();
    let options = PruneOptions {
        grace: 0,
        max_unused: 0,
        confirmed: true,
        settle: 0,
        ..PruneOptions::default()
    };
    let marked = prune(&open(), &options).unwrap().marked.unwrap();
    assert!(marked.condemned.number > 0, "{marked:?}");
    assert_eq!(prune(&open(), &options).unwrap().swept.unwrap().archives, 1);
    let recover = |args: &[&str]| {
        let mut command = Command::new(python());
        command.arg(root().join("docs/recovery/snapkeep_recover.py"));
        let output = command.arg("--repository").arg(&folder).args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        shown(&output)
    };
    let list = recover(&["list"]);
    assert!(
        list.contains(disk.as_str()) && !list.contains(container.as_str()),
        "{list}"
    );
    recover(&["verify", "--packs"]);
    recover(&["--no-index", "verify"]);
    let target = scratch.path().join("disk");
    let device = &open().snapshot(disk).unwrap().disks[0];
    recover(&[
        "restore",
        disk.as_str(),
        &device.device,
        target.to_str().unwrap(),
    ]);
    let reader = DiskReader::new(open(), device.clone());
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    assert!(std::fs::read(target).unwrap() == bytes);
}

/// The blocks of the document that are marked `sh by-hand`.
fn blocks() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/FORMAT.md")).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```sh by-hand") {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(block.join("\n"));
    }
    blocks
}

fn run(block: &str, folder: &Path) -> Output {
    let mut command = Command::new("sh");
    let command = command.args(["-euc", block]).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn what_the_document_does_by_hand_proves_a_repository_and_finds_damage() {
    let test = "recover::what_the_document_does_by_hand_proves_a_repository_and_finds_damage";
    if !works(test, "b3sum", Command::new("b3sum").arg("--version")) {
        return;
    }
    let blocks = blocks();
    let damaged = ["packs", "keys", "config", "config"];
    assert_eq!(
        blocks.len(),
        damaged.len(),
        "one kind of file for each block"
    );
    let scratch = tempfile::tempdir().unwrap();
    for (number, (block, kind)) in blocks.iter().zip(damaged).enumerate() {
        let folder = scratch.path().join(number.to_string());
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(golden().join("open")).arg(&folder);
        assert!(copy.status().unwrap().success());
        let output = run(block, &folder);
        assert!(output.status.success(), "{block}\n{}", shown(&output));
        let file = first_file(&folder.join(kind));
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 2;
        // The last line of `config` is its MAC; a letter of its other lines is in the checksum.
        let at = if kind == "config" && number == 2 {
            5
        } else {
            last
        };
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(!run(block, &folder).status.success(), "{block}");
    }
}

/// The first file in or below a place.
fn first_file(place: &Path) -> PathBuf {
    let mut place = place.to_owned();
    while place.is_dir() {
        place = std::fs::read_dir(&place)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
    }
    place
}
