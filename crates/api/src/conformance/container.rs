//! Properties of whole backups of containers, and of what is restored from them.

use super::drive::{GUEST, START, name, text};
use super::trees::{back_up, children, expect_tree, kept, noise, run, sample, start, with_tree};
use super::{Check, Factory};
use crate::memory::tree::{MemoryTree, Mishap};
use crate::tree::{EntryKind, Name, Timestamp, TreePath, find};
use crate::{ContainerSource, ErrorKind, GuestKind, Outcome, Provider};

const MIB: u64 = 1 << 20;

pub(super) fn every_kind_of_entry_restores_exactly(factory: Factory<'_>) -> Check {
    let provider = factory();
    kept(&*provider, GUEST, &sample())?;
    kept(&*provider, GUEST, &MemoryTree::new())?;
    Ok(())
}

pub(super) fn attributes_restore_exactly(factory: Factory<'_>) -> Check {
    let mut tree = sample();
    let file = tree.file("times", b"x");
    file.entry.attributes.mtime = Timestamp {
        seconds: -1,
        nanos: 999_999_999,
    };
    let folder = tree.directory("old");
    folder.entry.attributes.mtime.seconds = i64::MIN;
    let link = tree.symlink("link", b"x");
    link.entry.attributes.mtime.seconds = i64::MAX;
    link.entry.attributes.permissions = 0o7777;
    let root = tree.node("");
    root.entry.attributes.uid = u32::MAX;
    root.xattr("security.selinux", b"system_u:object_r:root_t:s0\0");
    let many = tree.file("many", b"");
    for number in 0..15 {
        many.xattr(&format!("user.{number}"), &noise(65_536, number));
    }
    let device = tree.char_device("device", 4095, 1_048_575);
    device.xattr("trusted.overlay.opaque", b"y");
    kept(&*factory(), GUEST, &tree)?;
    Ok(())
}

pub(super) fn odd_names_restore(factory: Factory<'_>) -> Check {
    let mut tree = MemoryTree::new();
    for odd in [
        &b"\xff\xfe\x01"[..],
        b" ",
        b"...",
        b"a\nb",
        b"\\x2f",
        "ä\u{2028}".as_bytes(),
    ] {
        tree.file(odd, odd);
    }
    tree.file([b'x'; 255], b"long");
    // In the order of bytes the last comes between the first and what is in it.
    tree.file("a/b", b"1");
    tree.file("a-b", b"2");
    tree.file("a.b/c", b"3");
    tree.file(vec!["d"; 600].join("/"), b"deep");
    for number in 0..1000 {
        tree.file(format!("many/{number}"), number.to_string().as_bytes());
    }
    kept(&*factory(), GUEST, &tree)?;
    Ok(())
}

pub(super) fn hard_links_restore(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = sample();
    tree.file("a", &noise(100_000, 3)).xattr("user.x", b"y");
    tree.hard_link("b/c", "a");
    tree.hard_link("d", "a");
    tree.put("e", EntryKind::Fifo);
    tree.hard_link("f", "e");
    kept(&*provider, GUEST, &tree)?;
    // The file is known by its first name, and its other names are told again.
    kept(&*provider, GUEST, &tree)?;
    tree.remove("d");
    kept(&*provider, GUEST, &tree)?;
    Ok(())
}

pub(super) fn holes_read_as_zeroes(factory: Factory<'_>) -> Check {
    let mut tree = MemoryTree::new();
    let data = noise(70_000, 4);
    tree.sparse("all", 5 * MIB + 1, &[]);
    tree.sparse("terabytes", 1 << 42, &[(0, &data), (1 << 41, &data)]);
    let zeroes = vec![0; 300_000];
    tree.sparse("zeroes", 4 * MIB, &[(MIB, &zeroes), (3 * MIB, &data)]);
    tree.sparse("start", MIB, &[(MIB - 70_000, &data)]);
    tree.sparse("odd", MIB, &[(4097, &data), (4097 + 70_001, b"x")]);
    kept(&*factory(), GUEST, &tree)?;
    Ok(())
}

pub(super) fn contents_of_any_length_restore(factory: Factory<'_>) -> Check {
    let mut tree = MemoryTree::new();
    for shift in [12, 16, 18, 20, 22] {
        for length in [(1 << shift) - 1, 1 << shift, (1 << shift) + 1] {
            let content = noise(length, length as u64);
            tree.file(format!("{length}"), &content);
            tree.file(format!("copy of {length}"), &content);
        }
    }
    kept(&*factory(), GUEST, &tree)?;
    Ok(())
}

/// Backs these configurations up and compares what the archive says.
fn expect_configs(provider: &dyn Provider, config: &[u8], firewall: Option<&[u8]>) -> Check {
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, GUEST)?;
    let source = ContainerSource {
        guest_config: config,
        firewall_config: firewall,
        bandwidth_limit: None,
        id_map: None,
        tree: &mut MemoryTree::new().source(),
    };
    backup.run(source).map_err(|e| text(&e))?;
    let archive = backup.archive_name().clone();
    backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
    let opened = provider.open_archive(&archive).map_err(|e| text(&e))?;
    let found = opened.guest_config().map_err(|e| text(&e))?;
    if found != config {
        return Err(format!(
            "guest configuration {config:?} came back as {found:?}"
        ));
    }
    let found = opened.firewall_config().map_err(|e| text(&e))?;
    if found.as_deref() != firewall.filter(|config| !config.is_empty()) {
        return Err(format!(
            "firewall configuration {firewall:?} came back as {found:?}"
        ));
    }
    Ok(())
}

pub(super) fn a_containers_configurations_are_kept_byte_for_byte(factory: Factory<'_>) -> Check {
    let provider = factory();
    let config = b"hostname: caf\xC3\xA9\r\n\xFF\0\n\n no newline";
    expect_configs(&*provider, config, Some(b"[OPTIONS]\n\xFE\renable: 1"))?;
    expect_configs(&*provider, b"", None)
}

pub(super) fn a_containers_empty_firewall_configuration_is_none(factory: Factory<'_>) -> Check {
    let provider = factory();
    expect_configs(&*provider, b"arch: amd64\n", Some(b""))?;
    expect_configs(&*provider, b"arch: amd64\n", Some(b"\n"))
}

pub(super) fn names_of_containers_archives_are_valid_and_unique(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(kept(&*provider, GUEST, &sample())?.0);
    }
    let mut failing = sample();
    failing.node("etc").mishap = Some(Mishap::Fails(ErrorKind::Source));
    names.push(back_up(&*provider, GUEST, &mut failing.source())?.name);
    names.push(kept(&*provider, "web-1.example_org", &sample())?.0);
    let count = names.len();
    names.sort();
    names.dedup();
    if names.len() == count {
        return Ok(());
    }
    Err("two backups that began in the same second have one name".to_owned())
}

/// What ends a walk: at an entry, or within a file's content.
const FAILURES: [(&str, Option<u64>, ErrorKind); 4] = [
    ("etc/shadow", None, ErrorKind::Source),
    ("usr/bin", None, ErrorKind::Protocol),
    ("usr/bin/sudo", Some(600_000), ErrorKind::Source),
    ("etc/hostname", Some(0), ErrorKind::Protocol),
];

/// Backs the sample up with each failure in turn.
fn expect_failures(provider: &dyn Provider) -> Check {
    for (path, at, kind) in FAILURES {
        let mut tree = sample();
        let mishap = at.map_or(Mishap::Fails(kind), |at| Mishap::FailsAt(at, kind));
        let node = tree.node(path);
        node.mishap = Some(mishap);
        // It has to be read, whatever is known.
        node.witness = None;
        let failed = back_up(provider, GUEST, &mut tree.source())?;
        match failed.ran {
            Err(error) if error.kind() == kind => {}
            Err(e) => return Err(format!("not of kind {kind:?}: {}", text(&e))),
            Ok(_) => return Err(format!("the backup succeeded in spite of {path}")),
        }
        match provider.open_archive(&failed.name) {
            Ok(_) => return Err(format!("archive {} was left behind", failed.name)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(format!("its archive is not missing, but: {}", text(&e))),
        }
    }
    Ok(())
}

pub(super) fn a_failed_walk_leaves_no_archive(factory: Factory<'_>) -> Check {
    expect_failures(&*factory())
}

pub(super) fn a_failed_walk_harms_no_earlier_archive(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = sample();
    let (first, _) = kept(&*provider, GUEST, &tree)?;
    let before = tree.clone();
    expect_failures(&*provider)?;
    tree.write("etc/hostname", b"mail\n");
    kept(&*provider, GUEST, &tree)?;
    expect_tree(&*provider, &first, &before)
}

pub(super) fn a_containers_archive_outlives_a_failed_finish(factory: Factory<'_>) -> Check {
    let provider = factory();
    let tree = sample();
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, GUEST)?;
    run(&mut *backup, &mut tree.source()).map_err(|e| text(&e))?;
    let archive = backup.archive_name().clone();
    expect_tree(&*provider, &archive, &tree)?;
    let outcome = Outcome::Failure("setting the notes failed".to_owned());
    backup.finish(&outcome).map_err(|e| text(&e))?;
    job.finish(&outcome).map_err(|e| text(&e))?;
    expect_tree(&*provider, &archive, &tree)
}

pub(super) fn what_cannot_be_read_is_counted_and_the_rest_is_there(factory: Factory<'_>) -> Check {
    let mut tree = sample();
    tree.node("etc").mishap = Some(Mishap::LeftOut);
    tree.node("usr/bin/sudo").mishap = Some(Mishap::Lost(500_000));
    tree.node("usr/bin/empty").mishap = Some(Mishap::Lost(0));
    tree.node("usr/bin/vi").mishap = Some(Mishap::LeftOut);
    tree.node("run/pipe").mishap = Some(Mishap::Warning);
    tree.node("run/socket").mishap = Some(Mishap::Vanishes);
    tree.node("dev/sda").mishap = Some(Mishap::VanishesUnseen);
    let provider = factory();
    // Again with an archive that lacks them.
    for _ in 0..2 {
        let ran = back_up(&*provider, GUEST, &mut tree.source())?;
        let (archive, stats) = ran.archive()?;
        if stats.left_out != 4 {
            return Err(format!("4 entries are left out, not {}", stats.left_out));
        }
        expect_tree(&*provider, &archive, &tree.archived())?;
    }
    for node in ["etc", "usr/bin/sudo", "usr/bin/empty", "usr/bin/vi"] {
        tree.node(node).mishap = None;
    }
    let (_, stats) = back_up(&*provider, GUEST, &mut tree.source())?.archive()?;
    if stats.left_out != 0 {
        return Err("entries are counted that lack nothing".to_owned());
    }
    kept(&*provider, GUEST, &sample())?;
    Ok(())
}

pub(super) fn two_containers_at_once_do_not_mix(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut trees = [sample(), sample()];
    for (tree, seed) in trees.iter_mut().zip(7..) {
        tree.write("etc/shadow", &noise(300_000, seed));
        for number in 0..200 {
            tree.file(format!("home/{number}"), &noise(2000, seed * 1000 + number));
        }
    }
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backups = [start(&mut *job, "100")?, start(&mut *job, "101")?];
    let results: Vec<Check> = std::thread::scope(|scope| {
        let pairs = backups.iter_mut().zip(&trees);
        let running: Vec<_> = pairs
            .map(|(backup, tree)| {
                scope.spawn(|| {
                    let ran = run(&mut **backup, &mut tree.source());
                    ran.map(|_| ()).map_err(|e| text(&e))
                })
            })
            .collect();
        let joined = running.into_iter().map(|thread| {
            let panicked = |_| Err("a backup panicked".to_owned());
            thread.join().unwrap_or_else(panicked)
        });
        joined.collect()
    });
    results.into_iter().collect::<Check>()?;
    for (backup, tree) in backups.into_iter().zip(&trees) {
        let archive = backup.archive_name().clone();
        backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
        expect_tree(&*provider, &archive, tree)?;
    }
    job.finish(&Outcome::Success).map_err(|e| text(&e))
}

pub(super) fn folders_are_listed_in_pages(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = MemoryTree::new();
    for number in 0..250 {
        tree.file(format!("folder/{number}"), b"");
    }
    tree.directory("empty");
    let (archive, _) = kept(&*provider, GUEST, &tree)?;
    with_tree(&*provider, &archive, &|reader| {
        let folder = |path: &str| {
            let path = TreePath::typed(path.as_bytes()).map_err(|e| text(&e))?;
            let found = find(reader, &path).map_err(|e| text(&e))?;
            found.ok_or_else(|| format!("there is no {path}"))
        };
        let full = folder("folder")?;
        let all = children(reader, &full).map_err(|e| text(&e))?;
        for (after, max) in [(None, 1), (None, 1000), (Some("2"), 3), (Some("1zz"), 250)] {
            let after = after.map(|name| Name::new(name.as_bytes()));
            let after = after.transpose().map_err(|e| text(&e))?;
            let page = reader.list(&full, after.as_ref(), max);
            let page = page.map_err(|e| text(&e))?;
            let rest = all.iter().filter(|(name, _)| after.as_ref() < Some(name));
            let rest: Vec<_> = rest.map(|(name, _)| name).collect();
            let found: Vec<_> = page.iter().map(|(name, _)| name).collect();
            if found.is_empty() || found.len() > max || !rest.starts_with(&found) {
                return Err(format!("after {after:?} come {found:?}"));
            }
        }
        let last = Name::new(*b"zzz").map_err(|e| text(&e))?;
        let empty = folder("empty")?;
        for (folder, after) in [(&full, Some(&last)), (&empty, None)] {
            let page = reader.list(folder, after, 5).map_err(|e| text(&e))?;
            if !page.is_empty() {
                return Err(format!("after {after:?} come {} entries", page.len()));
            }
        }
        Ok(())
    })
}

pub(super) fn an_absent_name_is_not_there(factory: Factory<'_>) -> Check {
    let provider = factory();
    let (archive, _) = kept(&*provider, GUEST, &sample())?;
    with_tree(&*provider, &archive, &|reader| {
        for absent in [
            "absent",
            "etc/hostnam",
            "etc/hostname2",
            "usr/bin/vi/x",
            "a",
            "zz",
        ] {
            let path = TreePath::typed(absent.as_bytes()).map_err(|e| text(&e))?;
            if find(reader, &path).map_err(|e| text(&e))?.is_some() {
                return Err(format!("{absent} is there"));
            }
        }
        Ok(())
    })
}

pub(super) fn reading_past_the_end_of_a_file_fails(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = MemoryTree::new();
    tree.file("file", &noise(1000, 5));
    tree.file("empty", b"");
    let (archive, _) = kept(&*provider, GUEST, &tree)?;
    with_tree(&*provider, &archive, &|reader| {
        for (path, offset) in [
            ("file", 999),
            ("file", 1000),
            ("file", u64::MAX - 1),
            ("empty", 0),
        ] {
            let path = TreePath::typed(path.as_bytes()).map_err(|e| text(&e))?;
            let node = find(reader, &path).map_err(|e| text(&e))?;
            let node = node.ok_or_else(|| format!("there is no {path}"))?;
            match reader.read_at(&node, offset, &mut [0; 2]) {
                Ok(()) => return Err(format!("2 bytes of {path} at offset {offset} are there")),
                Err(e) if e.kind() == ErrorKind::Protocol => {}
                Err(e) => return Err(format!("not of kind Protocol: {}", text(&e))),
            }
            let after = reader.next_data(&node, 1000).map_err(|e| text(&e))?;
            if after.is_some() {
                return Err(format!("there is data after the end of {path}"));
            }
        }
        let root = reader.root().map_err(|e| text(&e))?;
        match reader.read_at(&root, 0, &mut []) {
            Err(e) if e.kind() == ErrorKind::Protocol => Ok(()),
            Err(e) => Err(format!("not of kind Protocol: {}", text(&e))),
            Ok(()) => Err("a folder could be read as a file".to_owned()),
        }
    })
}

pub(super) fn a_container_is_no_virtual_machine(factory: Factory<'_>) -> Check {
    let provider = factory();
    let (archive, _) = kept(&*provider, GUEST, &sample())?;
    let opened = provider.open_archive(&archive).map_err(|e| text(&e))?;
    if opened.guest_kind() != GuestKind::Lxc {
        return Err("a container's archive is not of kind lxc".to_owned());
    }
    match opened.restore_vm() {
        Ok(_) => return Err("a container could be restored as a virtual machine".to_owned()),
        Err(e) if e.kind() == ErrorKind::Unsupported => {}
        Err(e) => return Err(format!("not of kind Unsupported: {}", text(&e))),
    }
    // A virtual machine of the same name is another guest.
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let guest = name(GUEST).map_err(|e| text(&e))?;
    let backup = job.start_vm(&guest, START).map_err(|e| text(&e))?;
    let outcome = Outcome::Failure("not wanted".to_owned());
    backup.finish(&outcome).map_err(|e| text(&e))?;
    kept(&*provider, GUEST, &sample())?;
    Ok(())
}
