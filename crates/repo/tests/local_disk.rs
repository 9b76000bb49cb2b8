//! What a local disk may do to a repository: docs/TESTING.md has the table. Real file systems, ext4
//! in a file, where a machine allows it; what cannot be brought about is made by code in the way of
//! the calls. Each test runs itself again where it can make the fault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use snapkeep_repo::{
    Error, ErrorKind, Files, LocalStorage, PruneOptions, Repository, SystemFiles, prune, verify,
};

use support::history::Process;
use support::hooked::{Call, Hooked};
use support::{backup, disk, name, restore};

/// Set for the process in which the fault is: the folder that is there for it.
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";

const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ESTALE: i32 = 116;
const EDQUOT: i32 = 122;

fn inside() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn open(folder: &Path, number: u64) -> Arc<Repository> {
    let process = Process::start(Arc::new(SystemFiles), folder, number).unwrap();
    process.open().unwrap()
}

/// The same through a hook.
fn hooked(
    folder: &Path,
    number: u64,
    hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static,
) -> Arc<Repository> {
    let process = Process::start(Arc::new(Hooked::new(hook)), folder, number).unwrap();
    process.open().unwrap()
}

/// Makes a repository in a new folder with an archive `1` of disk 1.
fn one_archive(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let process = Process::start(Arc::new(SystemFiles), folder, 1).unwrap();
    backup(&process.init().unwrap(), &name("1"), None, &disk(1, 7)).unwrap();
}

/// The earlier archive restores, and the next backup is right.
fn all_is_well(root: &Path, text: &str) {
    let repository = open(root, 50);
    assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
    backup(&repository, &name(text), None, &disk(9, 7)).unwrap();
    let repository = open(root, 51);
    assert!(restore(&repository, &name(text)).unwrap() == disk(9, 7));
    assert!(verify(&repository).unwrap().damage.is_empty());
}

fn tool(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Runs a test with an ext4 of so many MiB in its folder, which nobody else sees and which is gone
/// with the process.
fn on_an_ext4(test: &str, mebibytes: u64) {
    let make = format!("truncate -s {mebibytes}M image && mkfs.ext4 -q -m 0 image");
    where_this_is_mounted(test, &format!("{make} && mount -o loop image place"));
}

/// The same on a disk that says to be larger than what it has room for, the room being a tmpfs beside
/// it. Without a journal the ext4 goes on when the disk fails.
fn on_a_thin_disk(test: &str) {
    let make = "mount -t tmpfs -o size=24m none thin && truncate -s 64M thin/image && \
                mkfs.ext4 -q -m 0 -b 4096 -O ^has_journal thin/image && mount -o loop thin/image place";
    where_this_is_mounted(test, make);
}

/// Runs a test where these commands have mounted something at `place`.
fn where_this_is_mounted(test: &str, commands: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place");
    fs::create_dir(&place).unwrap();
    fs::create_dir(folder.path().join("thin")).unwrap();
    let own = folder.path().display();
    let mount = format!("cd '{own}' && mount --make-rprivate / && {commands} && cd /");
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(test);
    }
    let program = std::env::current_exe().unwrap();
    let run = format!(
        "{mount} && exec '{}' --exact {test} --nocapture",
        program.display()
    );
    let output = (Command::new("unshare").args(["-m", "sh", "-c", &run]))
        .env(FOLDER, place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(passed, "{}\n{text}\n{errors}", output.status);
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(test: &str) {
    // docs/TESTING.md lists this suite: a container may not let it mount.
    eprintln!("SKIP: local_disk::{test}: needs name spaces in which it may mount loop devices");
}

/// Takes all room of a thin disk, but for what its file system has in use.
fn use_up(ballast: &Path) {
    let place = inside().unwrap();
    tool(&["fstrim", place.to_str().unwrap()]);
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Takes all room but so many bytes.
fn fill(ballast: &Path, leave: u64) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file.sync_all());
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(leave)).unwrap();
    file.sync_all().unwrap();
}

fn told(error: &Error, folder: &Path, cause: &str) {
    let chain = error.chain();
    assert!(chain.contains(folder.to_str().unwrap()), "{chain}");
    assert!(chain.contains(cause), "{chain}");
}

#[test]
fn on_a_full_ext4_all_can_be_read_and_what_is_there_can_be_removed() {
    const TEST: &str = "on_a_full_ext4_all_can_be_read_and_what_is_there_can_be_removed";
    let Some(folder) = inside() else {
        return on_an_ext4(TEST, 24);
    };
    let (root, ballast) = (folder.join("repository"), folder.join("ballast"));
    one_archive(&root);
    backup(&open(&root, 2), &name("2"), None, &disk(2, 7)).unwrap();
    fill(&ballast, 0);
    let repository = open(&root, 3);
    let error = backup(&repository, &name("3"), None, &disk(3, 30)).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    told(&error, &root, "No space left");
    assert!(restore(&open(&root, 4), &name("1")).unwrap() == disk(1, 7));
    assert!(restore(&open(&root, 4), &name("2")).unwrap() == disk(2, 7));
    assert!(verify(&repository).unwrap().damage.is_empty());
    let key = Process::start(Arc::new(SystemFiles), &root, 5).unwrap();
    let stray = "index/00000000000000000000000000000000/00000000";
    fs::remove_file(&ballast).unwrap();
    key.storage.put(&stray.parse().unwrap(), &[0; 100]).unwrap();
    fill(&ballast, 0);
    key.storage.remove(&stray.parse().unwrap()).unwrap();
    assert!(!root.join(stray).exists());
    fs::remove_file(&ballast).unwrap();
    all_is_well(&root, "4");
}

#[test]
fn forgetting_on_a_full_ext4_is_told_and_needs_no_more_than_a_few_blocks() {
    const TEST: &str = "forgetting_on_a_full_ext4_is_told_and_needs_no_more_than_a_few_blocks";
    let Some(folder) = inside() else {
        return on_an_ext4(TEST, 24);
    };
    let (root, ballast) = (folder.join("repository"), folder.join("ballast"));
    one_archive(&root);
    backup(&open(&root, 2), &name("2"), None, &disk(2, 7)).unwrap();
    fill(&ballast, 0);
    let repository = open(&root, 3);
    let error = repository.forget(&name("2")).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    told(&error, &root, "No space left");
    let both = [name("1"), name("2")];
    assert_eq!(open(&root, 4).snapshots().unwrap(), both);
    // Folders of their own for the attributes take a block each.
    fs::File::options()
        .write(true)
        .open(&ballast)
        .and_then(|file| file.set_len(file.metadata()?.len() - 64 * 1024))
        .unwrap();
    let error = backup(&repository, &name("3"), None, &disk(3, 30)).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    open(&root, 5).forget(&name("2")).unwrap();
    assert_eq!(open(&root, 6).snapshots().unwrap(), [name("1")]);
    fs::remove_file(&ballast).unwrap();
    all_is_well(&root, "4");
}

#[test]
fn pruning_makes_room_on_an_ext4_that_is_nearly_full_and_is_told_where_there_is_none() {
    const TEST: &str =
        "pruning_makes_room_on_an_ext4_that_is_nearly_full_and_is_told_where_there_is_none";
    let Some(folder) = inside() else {
        return on_an_ext4(TEST, 24);
    };
    let (root, ballast) = (folder.join("repository"), folder.join("ballast"));
    one_archive(&root);
    backup(&open(&root, 2), &name("2"), None, &disk(2, 30)).unwrap();
    open(&root, 3).forget(&name("2")).unwrap();
    let options = PruneOptions {
        grace: 0,
        settle: 0,
        confirmed: true,
        ..PruneOptions::default()
    };
    fill(&ballast, 0);
    let error = prune(&open(&root, 4), &options).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    told(&error, &root, "No space left");
    assert!(restore(&open(&root, 5), &name("1")).unwrap() == disk(1, 7));
    // A mark and a sweep need a few blocks.
    fs::File::options()
        .write(true)
        .open(&ballast)
        .and_then(|file| file.set_len(file.metadata()?.len() - 128 * 1024))
        .unwrap();
    let before = size_of(&root.join("packs"));
    let mut deleted = 0;
    for number in 6..10 {
        let report = prune(&open(&root, number), &options).unwrap();
        deleted += report.swept.map_or(0, |swept| swept.deleted.number);
        if report.waiting.is_none() {
            break;
        }
    }
    assert!(deleted > 0);
    assert!(size_of(&root.join("packs")) < before);
    // With the room that this made, the next backup fits.
    all_is_well(&root, "4");
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.metadata().unwrap() {
        data if data.is_dir() => size_of(&entry.path()),
        data => data.len(),
    });
    sizes.sum()
}

/// Does something before the n-th file is written.
fn before_file(
    at: u64,
    deed: impl Fn() + Send + Sync + 'static,
) -> impl Fn(Call, &Path) -> io::Result<()> {
    let written = AtomicU64::new(0);
    move |call, _| {
        if call == Call::Write && written.fetch_add(1, Ordering::SeqCst) == at {
            deed();
        }
        Ok(())
    }
}

#[test]
fn an_ext4_that_becomes_read_only_at_any_file_of_a_backup_is_told_and_loses_nothing() {
    const TEST: &str =
        "an_ext4_that_becomes_read_only_at_any_file_of_a_backup_is_told_and_loses_nothing";
    let Some(folder) = inside() else {
        return on_an_ext4(TEST, 24);
    };
    let root = folder.join("repository");
    let place = folder.to_str().unwrap().to_owned();
    one_archive(&root);
    for at in 0..4 {
        let place_of = place.clone();
        let remount = move || tool(&["mount", "-o", "remount,ro", &place_of]);
        // Of its own, so that no turn stores less than the others.
        let content = disk(20 + u8::try_from(at).unwrap(), 7);
        let repository = hooked(&root, 10 + at, before_file(at, remount));
        let text = format!("2-{at}");
        let error = backup(&repository, &name(&text), None, &content).expect_err("read-only");
        told(&error, &root, "Read-only file system");
        assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
        let listed = open(&root, 20 + at).snapshots().unwrap();
        assert!(!listed.contains(&name(&text)), "{listed:?}");
        tool(&["mount", "-o", "remount,rw", &place]);
        all_is_well(&root, &format!("3-{at}"));
    }
}

#[test]
fn an_ext4_that_is_unmounted_at_any_call_of_a_backup_has_no_archive_that_was_told() {
    const TEST: &str =
        "an_ext4_that_is_unmounted_at_any_call_of_a_backup_has_no_archive_that_was_told";
    let Some(folder) = inside() else {
        return on_an_ext4(TEST, 24);
    };
    let (root, mounted) = (folder.join("repository"), folder.join("mounted"));
    one_archive(&root);
    fs::create_dir(&mounted).unwrap();
    let (from, to) = (root.to_str().unwrap(), mounted.to_str().unwrap().to_owned());
    let mut tried = 0;
    for at in 0.. {
        tool(&["mount", "--bind", from, &to]);
        let (calls, gone) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
        let (was, place) = (Arc::clone(&gone), to.clone());
        let armed = Arc::new(AtomicBool::new(false));
        let ready = Arc::clone(&armed);
        let repository = hooked(&mounted, 10 + at, move |_, _| {
            let now = armed.load(Ordering::SeqCst);
            if now && calls.fetch_add(1, Ordering::SeqCst) == at {
                tool(&["umount", "-l", &place]);
                was.store(true, Ordering::SeqCst);
            }
            Ok(())
        });
        ready.store(true, Ordering::SeqCst);
        let text = format!("2-{at}");
        let done = backup(&repository, &name(&text), None, &disk(2, 7));
        if !gone.load(Ordering::SeqCst) {
            done.unwrap();
            tool(&["umount", &to]);
            break;
        }
        tried += 1;
        let listed = open(&root, 9).snapshots().unwrap();
        match done {
            Ok(_) => assert!(listed.contains(&name(&text)), "at call {at}"),
            Err(error) => told(&error, &mounted, ""),
        }
        // What a call put beside it, into the folder that was below the mount.
        fs::remove_dir_all(&mounted).unwrap();
        fs::create_dir(&mounted).unwrap();
    }
    assert!(tried > 20, "{tried}");
    all_is_well(&root, "3");
}

/// A repository with an archive in a folder of its own.
fn plain() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    one_archive(&root);
    (folder, root)
}

/// Fails a call once.
fn failing(call: Call, errno: i32) -> impl Fn(Call, &Path) -> io::Result<()> {
    let failed = AtomicBool::new(false);
    move |called, path| {
        let pack = path.to_str().is_some_and(|path| path.contains("/packs/"));
        if called == call && pack && !failed.swap(true, Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(())
    }
}

#[test]
fn a_sync_that_fails_on_a_thin_disk_is_never_asked_again_and_nothing_relies_on_the_file() {
    const TEST: &str =
        "a_sync_that_fails_on_a_thin_disk_is_never_asked_again_and_nothing_relies_on_the_file";
    let Some(folder) = inside() else {
        return on_a_thin_disk(TEST);
    };
    let thin = folder.with_file_name("thin");
    let (root, ballast, image) = (
        folder.join("repository"),
        thin.join("ballast"),
        thin.join("image"),
    );
    one_archive(&root);
    tool(&["sync"]);
    // The kernel tells such an error once, and forgets what it could not write: afterwards syncs
    // succeed, and bytes are right until the cache is dropped.
    let lost = folder.join("lost");
    use_up(&ballast);
    fs::write(&lost, [1; 100]).unwrap();
    let file = fs::File::open(&lost).unwrap();
    file.sync_all().expect_err("no room");
    fs::remove_file(&ballast).unwrap();
    file.sync_all().expect("it was told already");
    drop(file);
    for (number, kind) in (2..).zip(["/packs/", "/index/", "/snapshots/"]) {
        let (full, calls) = (ballast.clone(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&calls);
        let repository = hooked(&root, number, move |call, path| {
            let mut seen = seen.lock().unwrap();
            let text = path.to_str().unwrap();
            if seen.is_empty() && call == Call::Write && text.contains(kind) {
                use_up(&full);
            } else if seen.is_empty() || call == Call::Read || call == Call::Entry {
                return Ok(());
            } else if seen.len() == 1 {
                fs::remove_file(&full).unwrap();
            }
            seen.push((call, path.to_owned()));
            Ok(())
        });
        let text = format!("{number}");
        // Of a few hundred bytes, which go through the cache.
        let content = disk(10 * u8::try_from(number).unwrap(), 1);
        let error = backup(&repository, &name(&text), None, &content).expect_err("a failed sync");
        assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
        told(&error, &root, kind);
        // All that came after the write is that the file went.
        let calls = calls.lock().unwrap().clone();
        let (write, remove) = (&calls[0], &calls[1]);
        assert_eq!(
            (write.0, remove.0, &write.1),
            (Call::Write, Call::Remove, &remove.1)
        );
        assert_eq!(calls.len(), 2, "{calls:?}");
        // The same process does it again, with room, and all of it is on the disk.
        backup(&repository, &name(&format!("{text}-again")), None, &content).unwrap();
        drop(repository);
        let (place, device) = (folder.to_str().unwrap(), image.to_str().unwrap());
        tool(&["umount", place]);
        tool(&["mount", "-o", "loop", device, place]);
        assert_eq!(fs::read(&lost).unwrap(), [0; 100]);
        let listed = open(&root, 20 + number).snapshots().unwrap();
        assert!(!listed.contains(&name(&text)), "{listed:?}");
        let again = restore(&open(&root, 30), &name(&format!("{text}-again"))).unwrap();
        assert!(again == content, "{kind}");
        all_is_well(&root, &format!("3-{number}"));
    }
}

#[test]
fn an_error_that_a_sync_tells_once_fails_the_backup_although_the_next_sync_succeeds() {
    for call in [Call::Write, Call::SyncFolder] {
        let (_folder, root) = plain();
        let repository = hooked(&root, 2, failing(call, EIO));
        let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("EIO");
        assert_eq!(error.kind(), ErrorKind::Io, "{}", error.chain());
        told(&error, &root, "Input/output error");
        assert_eq!(open(&root, 3).snapshots().unwrap(), [name("1")]);
        all_is_well(&root, "3");
    }
}

/// Whether a call is about a name that has a colon.
fn has_colon(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.contains(':'))
}

#[test]
fn a_file_system_without_colons_in_names_is_refused_before_there_is_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repository");
    // As FAT and exFAT do, and as a share on which a colon begins the name of a stream.
    let refuses = |call: Call, path: &Path| {
        if has_colon(path) && (call == Call::Write || call == Call::Rename) {
            return Err(io::Error::from_raw_os_error(EINVAL));
        }
        Ok(())
    };
    let hides = |call: Call, folder: &Path| {
        if call == Call::Names {
            let entries = fs::read_dir(folder)?.map(|entry| entry.unwrap().path());
            entries.filter(|path| has_colon(path)).for_each(|path| {
                let hidden = path.with_file_name(".put-1-stream");
                SystemFiles.rename(&path, &hidden).unwrap();
            });
        }
        Ok(())
    };
    for (files, why) in [
        (Hooked::new(refuses), "Invalid argument"),
        (Hooked::new(hides), "lists another name"),
    ] {
        let error = LocalStorage::create_on(Arc::new(files), &root).expect_err("no colons");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
        told(&error, &root, why);
        assert!(error.to_string().contains("put the repository on another"));
    }
    fs::remove_dir_all(&root).unwrap();
    // Where nothing can be written, colons are not blamed.
    let full = Hooked::new(|call, _| {
        if call == Call::Write {
            return Err(io::Error::from_raw_os_error(EDQUOT));
        }
        Ok(())
    });
    let error = LocalStorage::create_on(Arc::new(full), &root).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    told(&error, &root, "quota");
    LocalStorage::create(&root).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "a trial is left");
}

#[test]
fn a_read_that_fails_is_told_as_that_and_not_as_damage() {
    for (errno, text) in [(EIO, "Input/output error"), (ESTALE, "Stale file handle")] {
        let (_folder, root) = plain();
        let repository = hooked(&root, 2, move |call, path| {
            let pack = path.to_str().is_some_and(|path| path.contains("/packs/"));
            if call == Call::Read && pack {
                return Err(io::Error::from_raw_os_error(errno));
            }
            Ok(())
        });
        let error = restore(&repository, &name("1")).expect_err("it cannot be read");
        assert_eq!(error.kind(), ErrorKind::Io, "{}", error.chain());
        told(&error, &root, text);
        all_is_well(&root, "3");
    }
}

#[test]
fn a_handle_that_is_stale_at_any_call_of_a_backup_is_told_and_loses_nothing() {
    let calls = [
        Call::Identity,
        Call::MakeFolder,
        Call::SyncFolder,
        Call::Write,
        Call::Rename,
    ];
    for call in calls {
        let (_folder, root) = plain();
        let armed = Arc::new(AtomicBool::new(false));
        let ready = Arc::clone(&armed);
        let repository = hooked(&root, 2, move |called, _| {
            if called == call && armed.load(Ordering::SeqCst) {
                return Err(io::Error::from_raw_os_error(ESTALE));
            }
            Ok(())
        });
        ready.store(true, Ordering::SeqCst);
        let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("stale");
        assert_eq!(error.kind(), ErrorKind::Io, "{call:?}: {}", error.chain());
        told(&error, &root, "Stale file handle");
        all_is_well(&root, "3");
    }
}

#[test]
fn a_quota_that_is_used_up_is_a_full_disk() {
    let (_folder, root) = plain();
    let repository = hooked(&root, 2, |call, _| {
        if call == Call::Write {
            return Err(io::Error::from_raw_os_error(EDQUOT));
        }
        Ok(())
    });
    let error = backup(&repository, &name("2"), None, &disk(2, 7)).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    told(&error, &root, "quota");
    let error = repository.forget(&name("1")).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Full, "{}", error.chain());
    assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
    all_is_well(&root, "3");
}

#[test]
fn a_disk_that_stands_still_while_it_writes_keeps_nobody_from_reading() {
    let (_folder, root) = plain();
    let (stands, told_so) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let repository = hooked(&root, 2, move |call, _| {
        if call == Call::Write && stands.send(()).is_ok() {
            // The other end hangs up when it has seen enough.
            wait.lock().unwrap().recv().unwrap_err();
        }
        Ok(())
    });
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| backup(&repository, &name("2"), None, &disk(2, 7)).map(drop));
        told_so.recv().unwrap();
        // By another process, and by the one that waits.
        assert!(restore(&open(&root, 3), &name("1")).unwrap() == disk(1, 7));
        assert!(restore(&repository, &name("1")).unwrap() == disk(1, 7));
        assert_eq!(open(&root, 4).snapshots().unwrap(), [name("1")]);
        drop((go_on, told_so));
        writing.join().unwrap().unwrap();
    });
    assert!(restore(&open(&root, 5), &name("2")).unwrap() == disk(2, 7));
    all_is_well(&root, "3");
}
