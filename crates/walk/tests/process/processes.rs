//! The walker's process: what it has, and how it ends.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::{env, fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use snapkeep_api::ErrorKind;
use snapkeep_walk::Pull;
use snapkeep_walk::userns::Walker;

use crate::Test;
use crate::tools::{Tree, command, is_root, patient, request};

pub(crate) const ALL: &[Test] = &[
    ("the_walker_has_nothing_of_its_parents_rights", rights),
    ("a_killed_walker_is_named_with_its_signal", killed),
    ("what_is_no_walker_is_named", no_walker),
    ("a_walker_ends_with_whoever_started_it", orphaned),
    (
        "a_walker_goes_on_without_the_thread_that_started_it",
        other_thread,
    ),
    ("what_a_walker_started_ends_with_it", leaves_nothing),
    ("a_walker_that_was_stopped_ends_when_it_is_dropped", stopped),
    ("an_unreachable_directory_is_named", unreachable),
];

fn pid(walker: &Walker) -> Pid {
    Pid::from_raw(i32::try_from(walker.id()).unwrap()).unwrap()
}

/// Readable once the process has ended.
fn end(walker: &Walker) -> OwnedFd {
    pidfd_open(pid(walker), PidfdFlags::empty()).unwrap()
}

fn has_ended(end: &OwnedFd) -> bool {
    let deadline = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&deadline)).unwrap() == 1
}

fn rights() {
    if !is_root("the_walker_has_nothing_of_its_parents_rights") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Descriptors that a careless parent leaves open.
    let open: Vec<_> = (0..20)
        .map(|_| fs::File::open(folder.path()).unwrap())
        .collect();
    for file in &open {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
    }
    let walker = command(folder.path()).spawn().unwrap();
    let proc = Path::new("/proc").join(walker.id().to_string());
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let words = line.split_ascii_whitespace().skip(1).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["100000"; 4]);
    assert_eq!(field("Gid:"), ["100000"; 4]);
    assert!(field("Groups:").is_empty());
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    assert_ne!(
        fs::read_link(proc.join("ns/user")).unwrap(),
        fs::read_link("/proc/self/ns/user").unwrap()
    );
    let map = fs::read_to_string(proc.join("gid_map")).unwrap();
    let map: Vec<_> = map.split_ascii_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"");
    // Only the first three, the socket, and /proc/self/fd.
    let count = fs::read_dir(proc.join("fd")).unwrap().count();
    assert!(count <= 5, "{count} descriptors");
    drop(Pull::of(walker, &request(), patient()).unwrap());
}

fn killed() {
    if !is_root("a_killed_walker_is_named_with_its_signal") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let walker = command(folder.path()).spawn().unwrap();
    kill_process(pid(&walker), Signal::KILL).unwrap();
    let mut pull = Pull::of(walker, &request(), patient()).unwrap();
    let error = Tree::pull(&mut pull).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.chain().contains("signal: 9"), "{}", error.chain());
}

fn no_walker() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path());
    for (program, argument, why) in [
        ("/nonexistent", "", "cannot be started"),
        ("/bin/false", "", "exit status: 1"),
        ("/bin/ls", "/nonexistent-folder", "and said: "),
    ] {
        command.program = program.into();
        command.arguments = vec![argument.into()];
        command.arguments.retain(|argument| !argument.is_empty());
        let error = command.spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains(why), "{program}: {}", error.chain());
    }
}

fn orphaned() {
    if !is_root("a_walker_ends_with_whoever_started_it") {
        return;
    }
    // Another process starts it and is killed.
    let mut parent = process::Command::new(env::current_exe().unwrap())
        .arg("parent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    BufReader::new(parent.stdout.as_mut().unwrap())
        .read_line(&mut id)
        .unwrap();
    let id = Pid::from_raw(id.trim().parse().unwrap()).unwrap();
    let end = pidfd_open(id, PidfdFlags::empty()).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(has_ended(&end));
}

/// What the other process does.
pub(crate) fn parent() {
    let folder = tempfile::tempdir().unwrap();
    let walker = command(folder.path()).spawn().unwrap();
    // It will not come to that itself.
    drop(folder);
    println!("{}", walker.id());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn other_thread() {
    if !is_root("a_walker_goes_on_without_the_thread_that_started_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().to_owned();
    let walker = thread::spawn(move || command(&path).spawn().unwrap());
    let walker = walker.join().unwrap();
    let mut pull = Pull::of(walker, &request(), patient()).unwrap();
    let tree = Tree::pull(&mut pull).unwrap();
    assert!(tree.entries.contains_key("/"));
}

fn leaves_nothing() {
    if !is_root("what_a_walker_started_ends_with_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let fifo = open(&path, flags, Mode::empty()).unwrap();
    let mut command = command(folder.path());
    command.id_map = None;
    command.program = "/bin/sh".into();
    // Says that it is ready, hears the answer, and leaves a child that has its standard error
    // and the pipe.
    let script = "exec 9>fifo; printf r >&0; echo words >&2; head -c 1 >/dev/null; \
                  sleep 600 <&- >&- & exit 0";
    command.arguments = vec!["-c".into(), script.into()];
    let walker = command.spawn().unwrap();
    let mut pull = Pull::of(walker, &request(), patient()).unwrap();
    let error = Tree::pull(&mut pull).unwrap_err();
    assert!(error.chain().contains("said: words"), "{}", error.chain());
    // Nobody has the pipe's other end.
    assert!(has_ended(&fifo));
}

fn stopped() {
    if !is_root("a_walker_that_was_stopped_ends_when_it_is_dropped") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let walker = command(folder.path()).spawn().unwrap();
    kill_process(pid(&walker), Signal::STOP).unwrap();
    let end = end(&walker);
    let mut options = patient();
    options.hang_limit = std::time::Duration::from_millis(100);
    let mut pull = Pull::of(walker, &request(), options).unwrap();
    // What it said before it was stopped is heard; then it is silent.
    let error = Tree::pull(&mut pull).unwrap_err();
    assert!(error.chain().contains("hangs"), "{}", error.chain());
    drop(pull);
    assert!(has_ended(&end));
}

fn unreachable() {
    if !is_root("an_unreachable_directory_is_named") {
        return;
    }
    // Only the host's root may go there.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let inside = folder.path().join("rootfs");
    fs::create_dir(&inside).unwrap();
    let walker = command(Path::new("/")).spawn().unwrap();
    let mut request = request();
    request.directory.clone_from(&inside);
    let mut pull = Pull::of(walker, &request, patient()).unwrap();
    let error = Tree::pull(&mut pull).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(
        error.chain().contains(&*inside.to_string_lossy()),
        "{}",
        error.chain()
    );
}
