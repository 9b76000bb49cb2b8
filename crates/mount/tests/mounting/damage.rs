//! Archives that are damaged, or lie.

use std::fs;
use std::io::ErrorKind;

use rustix::io::Errno;
use snapkeep_api::tree::{DeviceNumber, EntryKind};

use crate::memory::{Item, State, name, tree};
use crate::tools::{Mount, are_here, output, sh, sh_fails};

fn mount(root: Vec<(&str, Item)>) -> Mount {
    let children = root.into_iter().map(|(text, item)| (name(text), item));
    Mount::new(tree(Item::folder(children)))
}

fn io_error(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

#[test]
fn what_is_damaged_is_an_error_told_once_and_the_rest_is_readable() {
    if !are_here("what_is_damaged_is_an_error_told_once", &[]) {
        return;
    }
    let content = vec![7; 300_000];
    let folder = Item::folder([(name("inner"), Item::file(b"x"))]);
    let mount = mount(vec![
        ("good", Item::file(&content)),
        ("bad", Item::file(&content).in_state(State::Damaged)),
        ("folder", folder.in_state(State::Damaged)),
        ("last\nline", Item::file(b"end")),
    ]);
    let names = sh(&mount.path(), "ls --quoting-style=escape");
    assert_eq!(names, "bad\nfolder\ngood\nlast\\nline\n");
    for _ in 0..3 {
        assert!(io_error(&fs::read(mount.join("bad")).unwrap_err()));
        let error = fs::read_dir(mount.join("folder")).unwrap().next().unwrap();
        assert!(io_error(&error.unwrap_err()));
        assert!(io_error(&fs::read(mount.join("folder/inner")).unwrap_err()));
    }
    assert_eq!(fs::read(mount.join("good")).unwrap(), content);
    assert_eq!(fs::read(mount.join("last\nline")).unwrap(), b"end");
    // No hole is seen where nobody knows.
    let blocks = sh(&mount.path(), "stat -c %b bad");
    assert_eq!(blocks, "586\n");
    let told = [
        "/bad: a chunk is damaged",
        "/folder/inner: a chunk is damaged",
        "/folder: a chunk is damaged",
    ];
    assert_eq!(mount.problems(), told);
}

#[test]
fn a_panic_is_an_error_and_the_mount_lives_on() {
    if !are_here("a_panic_is_an_error_and_the_mount_lives_on", &[]) {
        return;
    }
    let mount = mount(vec![
        ("good", Item::file(b"good")),
        ("bug", Item::file(b"bug").in_state(State::Panics)),
        ("bugs", Item::folder([]).in_state(State::Panics)),
    ]);
    // More often than there are threads.
    for _ in 0..20 {
        assert!(io_error(&fs::read(mount.join("bug")).unwrap_err()));
        assert!(io_error(&fs::metadata(mount.join("bugs/x")).unwrap_err()));
        assert!(
            fs::read_dir(mount.join("bugs"))
                .unwrap()
                .next()
                .unwrap()
                .is_err()
        );
        assert_eq!(fs::read(mount.join("good")).unwrap(), b"good");
    }
    let problems = mount.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("/bug: ") && problems[0].contains("panic"));
}

#[test]
fn hard_links_that_lead_nowhere_are_listed_and_cannot_be_read() {
    if !are_here("hard_links_that_lead_nowhere_are_listed", &[]) {
        return;
    }
    let device = DeviceNumber {
        major: 5000,
        minor: 1,
    };
    let mount = mount(vec![
        ("file", Item::file(b"content")),
        ("folder", Item::folder([(name("in"), Item::file(b"in"))])),
        ("good", Item::link("folder/in")),
        ("self", Item::link("self")),
        ("to-folder", Item::link("folder")),
        ("to-link", Item::link("good")),
        ("to-nothing", Item::link("folder/out")),
        ("device", Item::new(EntryKind::CharDevice(device))),
        ("through-file", Item::link("file/in")),
    ]);
    let names = sh(&mount.path(), "ls");
    assert_eq!(names.lines().count(), 9, "{names}");
    for bad in [
        "self",
        "to-folder",
        "to-link",
        "to-nothing",
        "device",
        "through-file",
    ] {
        for _ in 0..2 {
            assert!(io_error(
                &fs::symlink_metadata(mount.join(bad)).unwrap_err()
            ));
            assert!(io_error(&fs::read(mount.join(bad)).unwrap_err()), "{bad}");
        }
    }
    assert_eq!(fs::read(mount.join("good")).unwrap(), b"in");
    let absent = fs::metadata(mount.join("absent")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    let said = sh_fails(&mount.path(), "find . -ls");
    assert_eq!(said.matches("Input/output error").count(), 6, "{said}");
    let problems = mount.problems();
    assert_eq!(problems.len(), 6, "{problems:?}");
    assert!(problems[0].contains("5000:1"), "{problems:?}");
    assert_eq!(
        problems[5],
        "/to-nothing: it is a hard link to /folder/out of its tree, which is not there"
    );
}

#[test]
fn a_list_with_much_that_cannot_be_read_is_whole() {
    if !are_here("a_list_with_much_that_cannot_be_read_is_whole", &[]) {
        return;
    }
    let entry = |n| {
        let bad = n % 3 == 1;
        let item = if bad {
            Item::link("absent")
        } else {
            Item::file(b"x")
        };
        (name(format!("{n:04}")), item)
    };
    let mount = Mount::new(tree(Item::folder((0..1000).map(entry))));
    // It looks at each entry on its way, so that the kernel asks for all about them at once.
    let output = output(&mount.path(), "ls -l");
    let listed = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = listed
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert_eq!(names.len(), 1001);
    for (n, name) in names[1..].iter().enumerate() {
        assert_eq!(*name, format!("{n:04}"));
    }
    assert_eq!(listed.matches("-????????? ").count(), 333);
    assert_eq!(mount.problems().len(), 333);
}
