//! A full disk, a read-only or unmounted file system, a folder of somebody else's, and two
//! processes at once: the error names the object, every earlier archive restores, and once the
//! cause is gone the next backup is right. Each test runs itself again where it can make the fault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use snapkeep_repo::{Error, ErrorKind, Repository, SystemFiles, verify};

use support::history::Process;
use support::{backup, disk, name, restore};

/// Set for the process in which the fault is: the folder that is there for it.
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";
/// Which of several processes this is.
const NUMBER: &str = "SNAPKEEP_TEST_NUMBER";

fn inside() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn process(folder: &Path, number: u64) -> Process {
    Process::start(Arc::new(SystemFiles), folder, number).unwrap()
}

fn open(folder: &Path, number: u64) -> Arc<Repository> {
    process(folder, number).open().unwrap()
}

/// Makes a repository in a new folder with an archive `1` of disk 1.
fn one_archive(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let repository = process(folder, 1).init().unwrap();
    backup(&repository, &name("1"), None, &disk(1, 7)).unwrap();
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(test: &str, why: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    // docs/TESTING.md lists this suite: a container may not let it do what it needs.
    eprintln!("SKIP: environment::{test}: needs {why}");
    assert!(!ci || why.contains("name spaces"), "{test} needs {why}");
}

/// Runs one test of this program with a prefix to its command, in a folder.
fn run(prefix: &[&str], program: &Path, test: &str, folder: &Path) {
    let mut words: Vec<&str> = prefix.to_vec();
    words.extend([program.to_str().unwrap(), "--exact", test, "--nocapture"]);
    let output = (Command::new(words[0]).args(&words[1..]))
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(passed, "{words:?}: {}\n{text}\n{errors}", output.status);
}

/// Runs a test where it may mount file systems that nobody else sees.
fn where_mounts_are_allowed(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mount = ["-rm", "mount", "-t", "tmpfs", "none"];
    let tried = (Command::new("unshare").args(mount).arg(folder.path())).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(test, "name spaces in which it may mount");
    }
    let program = std::env::current_exe().unwrap();
    run(&["unshare", "-rm"], &program, test, folder.path());
}

fn tool(words: &[&str], path: &Path) {
    let status = (Command::new(words[0]).args(&words[1..]).arg(path)).status();
    assert!(status.unwrap().success(), "{words:?} {}", path.display());
}

fn names(error: &Error, folder: &Path, cause: &str) {
    let chain = error.chain();
    assert!(chain.contains(folder.to_str().unwrap()), "{chain}");
    assert!(chain.contains(cause), "{chain}");
}

/// The names of all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Takes all room but so many bytes.
fn fill(ballast: &Path, leave: u64) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(leave)).unwrap();
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    const TEST: &str = "a_full_disk_is_told_and_loses_nothing";
    let Some(folder) = inside() else {
        return where_mounts_are_allowed(TEST);
    };
    tool(&["mount", "-t", "tmpfs", "-o", "size=24m", "none"], &folder);
    let (root, ballast) = (folder.join("repository"), folder.join("ballast"));
    one_archive(&root);
    let (mut full, mut fitted) = (0, Vec::new());
    for (number, pages) in (2u8..).zip(0..32) {
        fill(&ballast, pages * 4096);
        let repository = open(&root, u64::from(number));
        let text = number.to_string();
        match backup(&repository, &name(&text), None, &disk(number, 4)) {
            Ok(_) => fitted.push(number),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
                names(&error, &root, "No space left");
                full += 1;
            }
        }
        let left = files(&root);
        let temporary = left.iter().find(|f| f.to_str().unwrap().contains("/.put-"));
        assert_eq!(temporary, None);
        assert!(restore(&open(&root, 100), &name("1")).unwrap() == disk(1, 7));
        fs::remove_file(&ballast).unwrap();
    }
    assert!(full > 10 && fitted.len() > 3, "{full} of {fitted:?}");
    let repository = open(&root, 101);
    for number in fitted {
        let restored = restore(&repository, &name(&number.to_string())).unwrap();
        assert!(restored == disk(number, 4), "{number}");
    }
    backup(&repository, &name("next"), None, &disk(99, 7)).unwrap();
    assert!(restore(&repository, &name("next")).unwrap() == disk(99, 7));
    assert!(verify(&repository).unwrap().damage.is_empty());
}

#[test]
fn a_read_only_file_system_restores_and_is_told() {
    const TEST: &str = "a_read_only_file_system_restores_and_is_told";
    let Some(folder) = inside() else {
        return where_mounts_are_allowed(TEST);
    };
    tool(&["mount", "-t", "tmpfs", "none"], &folder);
    let root = folder.join("repository");
    one_archive(&root);
    tool(&["mount", "-o", "remount,ro"], &folder);
    let repository = open(&root, 2);
    let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("read-only");
    names(&error, &root, "Read-only file system");
    assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
    assert!(verify(&repository).unwrap().damage.is_empty());
    tool(&["mount", "-o", "remount,rw"], &folder);
    backup(&repository, &name("3"), None, &disk(2, 7)).unwrap();
    assert!(restore(&open(&root, 3), &name("3")).unwrap() == disk(2, 7));
}

#[test]
fn an_unmounted_path_is_told_and_nothing_is_made_there() {
    const TEST: &str = "an_unmounted_path_is_told_and_nothing_is_made_there";
    let Some(folder) = inside() else {
        return where_mounts_are_allowed(TEST);
    };
    let (disk_of_it, root) = (folder.join("disk"), folder.join("mounted"));
    fs::create_dir(&disk_of_it).unwrap();
    fs::create_dir(&root).unwrap();
    let bind = ["mount", "--bind", disk_of_it.to_str().unwrap()];
    tool(&bind, &root);
    let repository = process(&root, 1).init().unwrap();
    backup(&repository, &name("1"), None, &disk(1, 7)).unwrap();
    tool(&["umount"], &root);

    let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("unmounted");
    names(&error, &root, "was it unmounted?");
    let error = restore(&repository, &name("1")).expect_err("unmounted");
    assert!(error.to_string().contains("main/vm/100/1"), "{error}");
    let error = process(&root, 2).open().expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("is its storage mounted?"),
        "{error}"
    );
    assert_eq!(files(&root), [] as [PathBuf; 0], "something was made");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);

    tool(&bind, &root);
    let repository = open(&root, 3);
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
    assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
    backup(&repository, &name("2"), None, &disk(2, 7)).unwrap();
    assert!(restore(&repository, &name("2")).unwrap() == disk(2, 7));
}

#[test]
fn a_folder_that_may_only_be_read_restores_and_is_told() {
    const TEST: &str = "a_folder_that_may_only_be_read_restores_and_is_told";
    if let Some(folder) = inside() {
        let root = folder.join("repository");
        let repository = open(&root, 2);
        let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("not allowed");
        names(&error, &root, "Permission denied");
        assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    one_archive(&root);
    // Root may write everywhere, so another user looks; it may have to be let in.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    tool(&["chmod", "-R", "a+rX,a-w"], &root);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    if rustix::process::geteuid().is_root() {
        if Command::new("setpriv").arg("--version").output().is_err() {
            return skip(TEST, "setpriv");
        }
        run(&nobody, &program, TEST, folder.path());
    } else {
        run(&["env"], &program, TEST, folder.path());
    }
    tool(&["chmod", "-R", "u+w"], &root);
    let repository = open(&root, 3);
    backup(&repository, &name("2"), None, &disk(2, 7)).unwrap();
    assert!(restore(&repository, &name("2")).unwrap() == disk(2, 7));
}

/// What process `number` backs up in its `turn`: both back up the same in the last.
fn content(number: u8, turn: u8) -> Vec<u8> {
    let seed = if turn == 4 { 99 } else { 10 * number + turn };
    disk(seed, 7)
}

fn archive(number: u8, turn: u8) -> snapkeep_repo::SnapshotName {
    name(&format!("{number}-{turn}"))
}

#[test]
fn two_processes_that_write_at_once_lose_nothing() {
    const TEST: &str = "two_processes_that_write_at_once_lose_nothing";
    if let Some(root) = inside() {
        let number: u8 = std::env::var(NUMBER).unwrap().parse().unwrap();
        let repository = open(&root, u64::from(number));
        // On standard error: the test program writes to standard output too.
        eprintln!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        for turn in 0..5 {
            let bytes = content(number, turn);
            backup(&repository, &archive(number, turn), None, &bytes).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    one_archive(&root);
    let mut processes = [2u8, 3].map(|number| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(FOLDER, &root)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    for process in &mut processes {
        let mut lines = BufReader::new(process.stderr.as_mut().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
    }
    for process in &mut processes {
        process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let repository = open(&root, 4);
    assert_eq!(repository.snapshots().unwrap().len(), 11);
    assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
    for (number, turn) in [2, 3].iter().flat_map(|n| (0..5).map(move |t| (*n, t))) {
        let restored = restore(&repository, &archive(number, turn)).unwrap();
        assert!(restored == content(number, turn), "{number} {turn}");
    }
    assert!(verify(&repository).unwrap().damage.is_empty());
    backup(&repository, &name("next"), None, &content(2, 4)).unwrap();
}
