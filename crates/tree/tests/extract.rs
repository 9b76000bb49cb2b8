//! Trees extracted into folders, and compared with folders that the usual tools made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use snapkeep_api::tree::{DeviceNumber, EntryKind, TreeReader, Xattr};
use snapkeep_api::{Cancel, ErrorKind, Result};
use snapkeep_tree::tar::write_tar;
use snapkeep_tree::{
    Existing, ExtractOptions, ExtractReport, Owners, ProblemKind, Progress, Selection, extract,
};
use support::facts::{assert_same, facts, flags};
use support::memory::{MemoryTree, attributes, name, path};
use support::plant::{Disk, TOOLS, flag, plant};
use support::scan::scan;
use support::tools::{are_here, has_rights, sh};

fn run(tree: &dyn TreeReader, target: &Path, options: &ExtractOptions) -> Result<ExtractReport> {
    let options = ExtractOptions {
        durable: false,
        workers: 3,
        ..options.clone()
    };
    extract(tree, target, &options, &Progress::default(), &Cancel::new())
}

fn existing(existing: Existing) -> ExtractOptions {
    ExtractOptions {
        existing,
        ..ExtractOptions::default()
    }
}

#[test]
fn what_is_extracted_is_what_was_there() {
    let test = "what_is_extracted_is_what_was_there";
    if !has_rights(test) || !are_here(test, TOOLS) {
        return;
    }
    let temp = Disk::new();
    let (made, got) = (temp.path().join("made"), temp.path().join("got"));
    fs::create_dir(&made).unwrap();
    plant(&made);
    sh(
        &made,
        "setfattr -h -n trusted.link -v 1 etc/symlink; setfattr -n trusted.null -v 1 bin/null",
    );
    UnixListener::bind(made.join("etc/socket")).unwrap();
    sh(&made, "touch -d '2001-01-01 00:00:00.25' etc");
    flag(&made);
    let tree = scan(&made);
    let options = ExtractOptions {
        workers: 2,
        ..ExtractOptions::default()
    };
    // One that is made for it would stay closed.
    fs::create_dir(&got).unwrap();
    let progress = Progress::default();
    let report = extract(&tree, &got, &options, &progress, &Cancel::new()).unwrap();
    assert_eq!(report.named, []);
    assert!(!report.closed_target);
    assert_eq!(report.entries, tree.totals().entries);
    assert_eq!(progress.bytes(), report.bytes);
    assert_same(&facts(&made), &facts(&got));
    assert_same(&flags(&made), &flags(&got));
    // Once more over itself.
    let report = run(&tree, &got, &existing(Existing::Replace)).unwrap();
    let immutable = [
        path("etc/append"),
        path("etc/immutable"),
        path("etc/immutable2"),
    ];
    let kept: Vec<_> = report
        .named
        .iter()
        .map(|problem| problem.path.clone())
        .collect();
    assert_eq!(kept, immutable, "{report:?}");
    sh(&got, "chattr -i etc/immutable; chattr -a etc/append");
    let report = run(&tree, &got, &existing(Existing::Replace)).unwrap();
    assert_eq!(report.named, []);
    assert_same(&facts(&made), &facts(&got));
    assert_same(&flags(&made), &flags(&got));
}

fn small() -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(0o755));
    tree.directory("etc");
    tree.file("etc/passwd", b"root");
    tree.directory("etc/sub");
    tree.file("etc/sub/file", b"sub");
    tree.put("fifo", attributes(0o600), EntryKind::Fifo);
    tree.file("file", b"content");
    tree
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("mine"), "mine").unwrap();
    let error = run(&small(), temp.path(), &ExtractOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

/// A target in which every name is a trap, and a folder outside that must stay empty.
fn traps(temp: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (target, outside) = (temp.join("target"), temp.join("outside"));
    fs::create_dir_all(target.join("etc")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    symlink(outside.join("precious"), target.join("etc/passwd")).unwrap();
    symlink(&outside, target.join("etc/sub")).unwrap();
    sh(&target, "mkfifo file");
    symlink("../outside/new", target.join("fifo")).unwrap();
    (target, outside)
}

fn assert_untouched(outside: &Path) {
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    assert_eq!(fs::metadata(outside.join("precious")).unwrap().nlink(), 1);
}

#[test]
fn links_in_the_target_never_lead_out() {
    let temp = tempfile::tempdir().unwrap();
    let (target, outside) = traps(temp.path());
    let report = run(&small(), &target, &existing(Existing::Replace)).unwrap();
    assert_eq!(report.named, []);
    assert_untouched(&outside);
    assert_eq!(fs::read(target.join("etc/passwd")).unwrap(), b"root");
    assert_eq!(fs::read(target.join("etc/sub/file")).unwrap(), b"sub");
    assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
}

#[test]
fn a_folder_is_never_removed_for_an_entry() {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    fs::create_dir_all(target.join("file/inner")).unwrap();
    let report = run(&small(), &target, &existing(Existing::Replace)).unwrap();
    assert_eq!(report.named[0].kind, ProblemKind::Kept);
    assert_eq!(report.named[0].path, path("file"));
    assert!(target.join("file/inner").is_dir());
}

/// Of the IDs of a container, those that are mapped become those from 100,000 on.
fn shifted() -> Owners {
    Owners::mapped("u:0:100000:5000,g:0:100000:6000".parse().unwrap())
}

#[test]
fn owners_are_mapped_everywhere() {
    let test = "owners_are_mapped_everywhere";
    if !has_rights(test) || !are_here(test, TOOLS) {
        return;
    }
    let temp = Disk::new();
    let (made, got) = (temp.path().join("made"), temp.path().join("got"));
    fs::create_dir(&made).unwrap();
    sh(
        &made,
        "touch file; chown 1000:2000 file; chmod 6755 file; setfacl -m u:7:rwx,g:8:x file",
    );
    sh(
        &made,
        "cp /bin/true ping; setcap cap_net_raw+ep ping; ln -s x link; chown -h 3:4 link; mkfifo fifo",
    );
    sh(
        &made,
        "mkdir sub; setfacl -d -m u:9:rwx sub; chown 11:12 sub .",
    );
    let tree = scan(&made);
    let options = ExtractOptions {
        owners: shifted(),
        ..ExtractOptions::default()
    };
    assert_eq!(run(&tree, &got, &options).unwrap().named, []);
    let owners = sh(
        &got,
        "find . -printf '%p %m %U:%G\\n' | sort | tr '\\n' ' '",
    );
    assert_eq!(
        owners.trim_end(),
        ". 755 100011:100012 ./fifo 644 100000:100000 ./file 6775 101000:102000 \
         ./link 777 100003:100004 ./ping 755 100000:100000 ./sub 755 100011:100012"
    );
    assert_eq!(
        sh(&got, "getfacl -nc file | tr '\\n' ' '").trim_end(),
        "user::rwx user:100007:rwx group::r-x group:100008:--x mask::rwx other::r-x"
    );
    assert!(sh(&got, "getfacl -nc sub").contains("default:user:100009:rwx"));
    // The capability holds for the container's root alone.
    let capability = sh(&got, "getcap -n ping");
    assert_eq!(capability.trim_end(), "ping cap_net_raw=ep [rootid=100000]");
}

#[test]
fn a_new_target_without_an_id_map_stays_closed() {
    let test = "a_new_target_without_an_id_map_stays_closed";
    if !has_rights(test) || !are_here(test, TOOLS) {
        return;
    }
    let temp = Disk::new();
    let made = temp.path().join("made");
    fs::create_dir(&made).unwrap();
    sh(
        &made,
        "touch file; setfattr -n user.a -v b .; setfacl -m u:7:rwx .; chown 1000:1000 .; chmod 2777 .",
    );
    sh(&made, "touch -d 2001-01-01 .");
    let tree = scan(&made);
    let told = |target: &Path| {
        let line = "stat -c '%a %u:%g %Y' .; getfattr --only-values -n user.a .; getfacl -nc . | grep -c user:.*7:";
        sh(target, &format!("({line} || true) | tr '\n' ' '"))
    };
    let closed = temp.path().join("closed");
    let report = run(&tree, &closed, &ExtractOptions::default()).unwrap();
    assert_eq!((report.named, report.closed_target), (Vec::new(), true));
    assert_eq!(told(&closed), "700 0:0 978307200 b0 ");
    let options = ExtractOptions {
        owners: shifted(),
        ..ExtractOptions::default()
    };
    let mapped = temp.path().join("mapped");
    let report = run(&tree, &mapped, &options).unwrap();
    assert!(!report.closed_target);
    assert_eq!(told(&mapped), "2777 101000:101000 978307200 b1 ");
    // A part has the archive's folders, but not its root.
    let options = ExtractOptions {
        selection: Selection::of(vec![path("file")]).unwrap(),
        ..ExtractOptions::default()
    };
    let part = temp.path().join("part");
    assert!(run(&tree, &part, &options).unwrap().closed_target);
    assert_eq!(fs::metadata(&part).unwrap().mode() & 0o7777, 0o700);
}

/// Devices, one with a second name, a whiteout, and an attribute that only the host's root gives.
fn dangerous() -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(0o755));
    let number = |major, minor| DeviceNumber { major, minor };
    let (character, block) = (EntryKind::CharDevice, EntryKind::BlockDevice);
    tree.put("disk", attributes(0o600), block(number(7, 0)));
    tree.put("kmsg", attributes(0o666), character(number(1, 11)));
    tree.link("linked", "disk");
    tree.put("none", attributes(0o600), block(number(0, 0)));
    tree.put("removed", attributes(0o600), character(number(0, 0)));
    let file = tree.file("trusted", b"");
    tree.entry(file).attributes.xattrs = vec![Xattr {
        name: b"trusted.overlay.redirect".to_vec(),
        value: b"/".to_vec(),
    }];
    tree
}

#[test]
fn a_container_with_an_id_map_gets_no_device_and_nothing_trusted() {
    let test = "a_container_with_an_id_map_gets_no_device_and_nothing_trusted";
    if !has_rights(test) || !are_here(test, TOOLS) {
        return;
    }
    let temp = Disk::new();
    let target = temp.path().join("target");
    let options = ExtractOptions {
        owners: shifted(),
        ..ExtractOptions::default()
    };
    let report = run(&dangerous(), &target, &options).unwrap();
    let mut named: Vec<_> = report
        .named
        .iter()
        .map(|p| (p.path.to_string(), p.kind))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let missed = |at: &str| (at.to_owned(), ProblemKind::NotMade);
    let trusted = ("/trusted".to_owned(), ProblemKind::Xattr);
    let [disk, kmsg, linked, none] = ["/disk", "/kmsg", "/linked", "/none"].map(missed);
    assert_eq!(named, [disk, kmsg, linked, none, trusted], "{report:?}");
    assert!(
        report
            .named
            .iter()
            .any(|problem| problem.why
                == "a device in a container with an ID map could open the host's"),
        "{report:?}"
    );
    let found = sh(&target, "find . | sort | tr '\n' ' '");
    assert_eq!(found, ". ./removed ./trusted ");
    assert_eq!(sh(&target, "getfattr -d -m - trusted"), "");
}

#[test]
fn devices_are_made_with_an_id_map_if_that_is_allowed() {
    let test = "devices_are_made_with_an_id_map_if_that_is_allowed";
    if !has_rights(test) {
        return;
    }
    let temp = Disk::new();
    let target = temp.path().join("target");
    let options = ExtractOptions {
        owners: shifted(),
        allow_devices: true,
        ..ExtractOptions::default()
    };
    let report = run(&dangerous(), &target, &options).unwrap();
    assert_eq!(report.named.len(), 1, "{report:?}");
    assert_eq!(report.named[0].kind, ProblemKind::Xattr);
    let line = "stat -c '%n %F %t:%T %u' * | sed 's/special //' | tr '\n' ','";
    assert_eq!(
        sh(&target, line),
        "disk block file 7:0 100000,kmsg character file 1:b 100000,linked block file 7:0 100000,\
         none block file 0:0 100000,removed character file 0:0 100000,\
         trusted regular empty file 0:0 100000,"
    );
}

#[test]
fn an_owner_that_is_not_mapped_is_refused_or_becomes_what_is_asked_for() {
    let test = "an_owner_that_is_not_mapped_is_refused_or_becomes_what_is_asked_for";
    if !has_rights(test) {
        return;
    }
    let mut tree = small();
    let file = tree.file("strange", b"");
    tree.entry(file).attributes.uid = 5000;
    let temp = tempfile::tempdir().unwrap();
    let options = ExtractOptions {
        owners: shifted(),
        ..ExtractOptions::default()
    };
    let error = run(&tree, &temp.path().join("one"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .to_string()
            .contains("the owner of /strange is user 5000"),
        "{error}"
    );
    let ways = "add it to the ID map, or give an ID for those that are not in it";
    assert!(error.to_string().contains(ways), "{error}");
    let owners = shifted().with_unmapped(65_534);
    let options = ExtractOptions {
        owners,
        ..ExtractOptions::default()
    };
    let target = temp.path().join("two");
    assert_eq!(run(&tree, &target, &options).unwrap().named, []);
    assert_eq!(fs::metadata(target.join("strange")).unwrap().uid(), 65_534);
}

#[track_caller]
fn assert_refused(tree: &MemoryTree, named: &str) {
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let error = run(tree, &target, &ExtractOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn archives_that_cannot_be_are_refused() {
    let mut twice = small();
    let file = twice.number(&path("file"));
    twice.lie(0, vec![(name("a"), file), (name("a"), file)]);
    assert_refused(&twice, "/ is listed");

    let mut unordered = small();
    unordered.lie(0, vec![(name("b"), file), (name("a"), file)]);
    assert_refused(&unordered, "/ is listed");

    for (to, why) in [
        ("file", "does not come before"),
        ("zzz", "does not come before"),
        ("etc", "is a folder"),
        ("etc/none", "is not there"),
        ("fifo/below", "is not there"),
    ] {
        let mut linked = small();
        let at = if to == "file" { "a" } else { "y" };
        linked.link(at, to);
        assert_refused(&linked, why);
    }

    let mut impossible = small();
    let file = impossible.file("odd", b"");
    impossible.entry(file).attributes.permissions = 0xffff;
    assert_refused(&impossible, "/odd");
}

#[test]
fn a_folder_that_is_in_itself_ends_it() {
    let mut tree = small();
    let etc = tree.number(&path("etc"));
    tree.lie(etc, vec![(name("loop"), etc)]);
    // In memory: a disk takes long to make and remove thousands of folders.
    let memory = Path::new("/dev/shm");
    let temp = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let target = temp.as_ref().unwrap().path().join("target");
    let error = run(&tree, &target, &ExtractOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("deeper than 8192"), "{error}");
}

#[test]
fn a_damaged_file_is_missed_alone() {
    let mut tree = small();
    tree.file("large", &[1; 5000]);
    tree.broken_from = Some(4000);
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let report = run(&tree, &target, &ExtractOptions::default()).unwrap();
    assert_eq!(report.problems, 1);
    assert_eq!(report.named[0].path, path("large"));
    assert!(!target.join("large").exists(), "half a file is not left");
    assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
}

/// A file of 100 MiB: data, a hole, data, and a hole at its end.
fn large() -> (MemoryTree, Vec<u8>) {
    let mut tree = MemoryTree::new(attributes(0o755));
    let data: Vec<u8> = (0..20_000_000_u32)
        .flat_map(|n| n.wrapping_mul(77).to_le_bytes())
        .collect();
    let (first, second) = data.split_at(30_000_001);
    let size = 100 << 20;
    let file = tree.put(
        "large",
        attributes(0o600),
        EntryKind::File { size, links: 1 },
    );
    tree.write(file, 0, first);
    tree.write(file, 40_000_000, second);
    let mut content = vec![0; 100 << 20];
    content[..first.len()].copy_from_slice(first);
    content[40_000_000..][..second.len()].copy_from_slice(second);
    (tree, content)
}

#[test]
fn a_large_file_is_written_by_several_threads_and_keeps_its_holes() {
    let (mut tree, content) = large();
    tree.together = 3;
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let report = run(&tree, &target, &ExtractOptions::default()).unwrap();
    assert_eq!((report.problems, report.bytes), (0, 80_000_000));
    assert!(fs::read(target.join("large")).unwrap() == content);
    let blocks = fs::metadata(target.join("large")).unwrap().blocks();
    assert!((155_000..160_000).contains(&blocks), "{blocks}");
}

#[test]
fn a_large_file_that_is_damaged_is_missed_whole() {
    let (mut tree, _) = large();
    tree.broken_from = Some(50_000_000);
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let report = run(&tree, &target, &ExtractOptions::default()).unwrap();
    assert_eq!(report.named.len(), 1);
    assert!(!target.join("large").exists());
}

#[test]
fn a_damaged_folder_is_missed_alone() {
    let mut tree = small();
    tree.link("link", "etc/passwd");
    tree.broken_folder = Some(tree.number(&path("etc")));
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let report = run(&tree, &target, &ExtractOptions::default()).unwrap();
    let named: Vec<_> = report
        .named
        .iter()
        .map(|p| (p.path.to_string(), p.kind))
        .collect();
    let missed = |at: &str| (at.to_owned(), ProblemKind::NotMade);
    assert_eq!(named, [missed("/etc"), missed("/link")], "{report:?}");
    assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
}

#[test]
fn a_file_whose_size_is_a_lie_is_missed_alone() {
    let mut tree = small();
    let file = tree.file("large", b"0123456789");
    tree.entry(file).kind = EntryKind::File { size: 5, links: 1 };
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let report = run(&tree, &target, &ExtractOptions::default()).unwrap();
    assert_eq!(report.named.len(), 1);
    assert_eq!(report.named[0].kind, ProblemKind::NotMade);
    assert!(report.named[0].why.contains("/large"), "{report:?}");
    assert!(!target.join("large").exists());
}

#[test]
fn a_part_has_its_folders_and_its_links() {
    let mut tree = small();
    let first = tree.file("a", b"linked");
    tree.entry(first).kind = EntryKind::File { size: 6, links: 3 };
    tree.link("etc/sub/one", "a");
    tree.link("etc/sub/two", "a");
    let temp = tempfile::tempdir().unwrap();
    let target = temp.path().join("target");
    let selection = Selection::of(vec![path("etc/sub"), path("fifo")]).unwrap();
    let options = ExtractOptions {
        selection,
        ..ExtractOptions::default()
    };
    let report = run(&tree, &target, &options).unwrap();
    assert_eq!(report.named, []);
    let found = sh(&target, "find . | sort | tr '\\n' ' '");
    assert_eq!(
        found,
        ". ./etc ./etc/sub ./etc/sub/file ./etc/sub/one ./etc/sub/two ./fifo "
    );
    let inode = |at: &str| fs::metadata(target.join(at)).unwrap().ino();
    assert_eq!(inode("etc/sub/one"), inode("etc/sub/two"));
    assert_eq!(fs::read(target.join("etc/sub/two")).unwrap(), b"linked");
}

#[test]
fn a_container_gets_the_same_as_from_tar_in_its_user_namespace() {
    let test = "a_container_gets_the_same_as_from_tar_in_its_user_namespace";
    let tools = ["unshare", "nsenter", "tar"];
    if !has_rights(test) || !are_here(test, TOOLS) || !are_here(test, &tools) {
        return;
    }
    let temp = Disk::new();
    let [made, by_tar, by_us] = ["made", "tar", "us"].map(|name| temp.path().join(name));
    fs::create_dir(&made).unwrap();
    fs::create_dir(&by_tar).unwrap();
    for line in [
        "mkdir sbin sub; printf x > sub/file; chown 1000:2000 sub/file; chmod 6755 sub/file",
        "setfacl -m u:7:rwx,g:8:x sub/file; setfacl -d -m u:9:rwx sub; setfattr -n user.a -v b sub",
        "cp /bin/true sbin/ping; setcap cap_net_raw+ep sbin/ping; ln sbin/ping sub/ping",
        "ln -s nowhere link; chown -h 3:4 link; mkfifo fifo; truncate -s 1G hole; echo end >> hole",
        "chown 65534:65535 hole; touch -d '1960-01-01 00:00:00.5' hole sub/file sbin sub .",
        "chmod 1777 sub; chown 11:12 sub .",
    ] {
        sh(&made, line);
    }
    let tree = scan(&made);
    let mut out = fs::File::create(temp.path().join("tree.tar")).unwrap();
    write_tar(&tree, &Selection::all(), &mut out, &Cancel::new()).unwrap();
    // As Proxmox VE restores a container.
    sh(temp.path(), "chmod 755 .; chown 100000:100000 tar");
    sh(
        &by_tar,
        "coproc held { exec unshare --user cat; }; of=/proc/$held_PID; own=$(readlink /proc/self/ns/user)
         until [ $(readlink $of/ns/user) != $own ]; do sleep 0.05; done
         for map in uid_map gid_map; do echo 0 100000 65536 > $of/$map; done
         nsenter --user=$of/ns/user --setuid 0 --setgid 0 tar -xpf - --sparse --numeric-owner --acls --xattrs \
         --xattrs-include='user.*' --xattrs-include=security.capability --skip-old-files \
         --anchored --exclude './dev/*' < ../tree.tar",
    );
    let owners = Owners::mapped("0:100000:65536".parse().unwrap());
    let options = ExtractOptions {
        owners,
        ..ExtractOptions::default()
    };
    assert_eq!(run(&tree, &by_us, &options).unwrap().named, []);
    // Of what is there already, as the root is, tar with these flags sets nothing.
    sh(
        temp.path(),
        "chown 0:0 tar us; chmod 755 tar us; touch -d 2000-01-01 tar us",
    );
    assert_same(&facts(&by_tar), &facts(&by_us));
    let capability = sh(&by_us, "getcap -n sub/ping");
    assert_eq!(
        capability.trim_end(),
        "sub/ping cap_net_raw=ep [rootid=100000]"
    );
}
