//! Every kind of entry, and what belongs to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FileType, IFlags, Mode, XattrFlags, ioctl_getflags, ioctl_setflags, lsetxattr, mknodat,
};
use snapkeep_api::tree::{DeviceNumber, EntryKind, TreePath};

use crate::testing::{request, skip, walk};

#[test]
fn a_tree_is_told_in_the_order_of_its_names_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["b", "a", "a.b", "a-b", "B", "z"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("x"), name).unwrap();
    }
    let tree = walk(&request(root));
    let told: Vec<_> = tree.order.iter().map(String::as_str).collect();
    let right = [
        "/", "/B", "/B/x", "/a", "/a/x", "/a-b", "/a-b/x", "/a.b", "/a.b/x", "/b", "/b/x", "/z",
        "/z/x",
    ];
    assert_eq!(told, right);
    assert_eq!(tree.node("/a-b/x").content, b"a-b");
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
}

#[test]
fn every_kind_is_told_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    symlink("/etc/shadow", root.join("link")).unwrap();
    symlink("x".repeat(4095), root.join("long")).unwrap();
    let _listener = UnixListener::bind(root.join("socket")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let made = mknodat(
        CWD,
        root.join("null"),
        FileType::CharacterDevice,
        mode,
        device,
    );
    let has_devices = made.is_ok();
    if has_devices {
        let device = rustix::fs::makedev(259, 70_000);
        mknodat(CWD, root.join("disk"), FileType::BlockDevice, mode, device).unwrap();
    } else {
        skip("every_kind_is_told_as_what_it_is::devices", "root");
    }
    let tree = walk(&request(root));
    let target = b"/etc/shadow".to_vec();
    assert_eq!(*tree.kind("/link"), EntryKind::Symlink { target });
    assert!(matches!(tree.kind("/long"), EntryKind::Symlink { target } if target.len() == 4095));
    assert_eq!(*tree.kind("/socket"), EntryKind::Socket);
    assert_eq!(*tree.kind("/fifo"), EntryKind::Fifo);
    if has_devices {
        let number = DeviceNumber { major: 1, minor: 3 };
        assert_eq!(*tree.kind("/null"), EntryKind::CharDevice(number));
        let number = DeviceNumber {
            major: 259,
            minor: 70_000,
        };
        assert_eq!(*tree.kind("/disk"), EntryKind::BlockDevice(number));
    }
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
}

#[test]
fn attributes_are_those_of_stat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    let time = std::time::UNIX_EPOCH - std::time::Duration::new(5, 250_000_000);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let tree = walk(&request(folder.path()));
    let attributes = &tree.node("/file").told.entry.as_ref().unwrap().attributes;
    let stat = fs::metadata(&path).unwrap();
    assert_eq!(attributes.permissions, 0o4751);
    assert_eq!((attributes.uid, attributes.gid), (stat.uid(), stat.gid()));
    let mtime = (attributes.mtime.seconds, attributes.mtime.nanos);
    assert_eq!(mtime, (-6, 750_000_000));
    assert_eq!(*tree.kind("/file"), EntryKind::File { size: 7, links: 1 });
}

#[test]
fn names_may_be_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let long = "l".repeat(255);
    for name in [&b"\xff\xfe"[..], b"new\nline", b" ", long.as_bytes()] {
        fs::write(folder.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let tree = walk(&request(folder.path()));
    assert_eq!(tree.order.len(), 5);
    assert_eq!(tree.node("/\\xff\\xfe").content, b"\xff\xfe");
    assert_eq!(tree.node("/new\\nline").content, b"new\nline");
    assert_eq!(tree.node(&format!("/{long}")).content, long.as_bytes());
}

#[test]
fn holes_are_told_as_holes_and_large_files_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("sparse")).unwrap();
    file.write_all(&[1; 5000]).unwrap();
    file.seek(SeekFrom::Start(10 << 20)).unwrap();
    file.write_all(&vec![2; 3 << 20]).unwrap();
    file.set_len(20 << 20).unwrap();
    File::create(folder.path().join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let tree = walk(&request(folder.path()));
    let node = tree.node("/sparse");
    assert!(node.content == fs::read(folder.path().join("sparse")).unwrap());
    assert!(node.holes > 15 << 20, "{}", node.holes);
    assert_eq!(node.changed, None);
    assert_eq!(tree.node("/hole").holes, 1 << 20);
}

#[test]
fn extended_attributes_of_any_size_are_told() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    symlink("nowhere", folder.path().join("link")).unwrap();
    let large = vec![7; 65_536];
    let set =
        |path: &Path, name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty());
    let made = set(&path, "user.large", &large)
        .and_then(|()| set(&path, "user.a", b""))
        .and_then(|()| set(&folder.path().join("link"), "trusted.link", b"x"));
    if made.is_err() {
        skip(
            "extended_attributes_of_any_size_are_told",
            "root and such a /dev/shm",
        );
        return;
    }
    let tree = walk(&request(folder.path()));
    let xattrs = |path: &str| {
        tree.node(path)
            .told
            .entry
            .clone()
            .unwrap()
            .attributes
            .xattrs
    };
    let file = xattrs("/file");
    assert_eq!(file.len(), 2);
    assert_eq!(
        (&file[0].name[..], &file[0].value[..]),
        (&b"user.a"[..], &b""[..])
    );
    assert!(file[1].name == b"user.large" && file[1].value == large);
    assert_eq!(xattrs("/link")[0].name, b"trusted.link");
}

#[test]
fn other_names_are_links_to_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/first"), "content").unwrap();
    fs::hard_link(root.join("d/first"), root.join("z")).unwrap();
    fs::hard_link(root.join("d/first"), root.join("e")).unwrap();
    symlink("target", root.join("link")).unwrap();
    fs::hard_link(root.join("link"), root.join("link2")).unwrap();
    let tree = walk(&request(root));
    let link = |to: &str| EntryKind::HardLink {
        to: TreePath::new(to).unwrap(),
    };
    assert_eq!(
        *tree.kind("/d/first"),
        EntryKind::File { size: 7, links: 3 }
    );
    assert_eq!(*tree.kind("/e"), link("d/first"));
    assert_eq!(*tree.kind("/z"), link("d/first"));
    assert_eq!(*tree.kind("/link2"), link("link"));
}

#[test]
fn excluded_entries_are_not_told_but_the_files_that_exclude_them_are() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["tmp/a", "home/cache/x", "home/keep/x"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::write(root.join("home/.pxarexclude"), "cache\n[\n").unwrap();
    let mut request = request(root);
    request.exclude = vec![b"/tmp/?*".to_vec()];
    let tree = walk(&request);
    let told: Vec<_> = tree.order.iter().map(String::as_str).collect();
    let right = [
        "/",
        "/home",
        "/home/.pxarexclude",
        "/home/keep",
        "/home/keep/x",
        "/tmp",
    ];
    assert_eq!(told, right);
    assert_eq!(tree.problems.len(), 1);
    assert_eq!(tree.problems[0].0, "/home/.pxarexclude");
}

#[test]
fn only_the_way_to_the_sources_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["mnt/a/in", "mnt/b", "other", "mnt/c/in"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let mut request = request(root);
    request.sources = vec![
        b"./mnt/c".to_vec(),
        b"./mnt/a/".to_vec(),
        b"missing".to_vec(),
    ];
    let tree = walk(&request);
    let told: Vec<_> = tree.order.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        ["/", "/mnt", "/mnt/a", "/mnt/a/in", "/mnt/c", "/mnt/c/in"]
    );
    assert!(
        tree.problems
            .iter()
            .any(|(at, _, why)| at == "/" && why.contains("source /missing"))
    );
}

#[test]
fn inode_flags_that_people_set_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let flags = IFlags::NODUMP | IFlags::NOATIME;
    for name in ["file", "folder"] {
        let path = folder.path().join(name);
        if name == "file" {
            fs::write(&path, "").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        let set = File::open(&path).map(|file| {
            let old = ioctl_getflags(&file)?;
            ioctl_setflags(&file, old | flags)
        });
        if !matches!(set, Ok(Ok(()))) {
            skip(
                "inode_flags_that_people_set_are_told",
                "a file system with flags",
            );
            return;
        }
    }
    let tree = walk(&request(folder.path()));
    for path in ["/file", "/folder"] {
        let entry = tree.node(path).told.entry.as_ref().unwrap();
        // Not what the file system notes for itself, such as extents.
        assert_eq!(entry.attributes.flags, flags.bits(), "{path}");
    }
}

#[test]
fn a_file_whose_read_fails_is_lost_and_the_walk_goes_on() {
    // The loopback interface has a file for its speed, but no speed.
    let folder = Path::new("/sys/class/net/lo/");
    let fails = |path: PathBuf| File::open(path).is_ok_and(|mut file| file.read(&mut [0]).is_err());
    if !fails(folder.join("speed")) {
        skip(
            "a_file_whose_read_fails_is_lost_and_the_walk_goes_on",
            "such a file in /sys",
        );
        return;
    }
    let tree = walk(&request(folder));
    let node = tree.node("/speed");
    assert!(
        node.lost.as_ref().unwrap().contains("cannot be read"),
        "{:?}",
        node.lost
    );
    // What comes after it; such files are shorter than they seem.
    let node = tree.node("/type");
    assert_eq!(node.content, b"772\n");
    assert!(node.changed.as_ref().unwrap().contains("shorter"));
}
