//! A tree with every kind of entry, as the tools of a system see it.

use std::fs;
use std::path::Path;

use rustix::fs::{lgetxattr, lgetxattr_query, llistxattr, llistxattr_query};
use rustix::io::Errno;
use snapkeep_api::tree::Xattr;

use crate::memory::{Item, name, tree};
use crate::scan::scan;
use crate::tools::{Mount, are_here, sh, sh_fails};

const TOOLS: &[&str] = &["rsync", "getfattr", "getfacl", "setcap", "python3"];

/// Makes a folder with every kind of entry.
const EVERY_KIND: &str = r#"
mkdir -p etc usr/bin var/empty
echo hello > etc/motd
chmod 4755 etc/motd
mkdir etc/sticky; chmod 3777 etc/sticky
head -c 3000000 /dev/urandom > usr/bin/large
ln usr/bin/large usr/bin/again
ln usr/bin/large var/third
ln -s ../etc/motd var/link
ln -s "$(python3 -c 'print("x"*4095)')" var/long
ln var/link var/link2
mkfifo var/fifo; chmod 600 var/fifo
ln var/fifo var/fifo2
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("var/socket")'
mknod var/char c 1 3
mknod var/block b 259 70000
: > var/empty-file
truncate -s 100M var/sparse
printf data | dd of=var/sparse bs=1 seek=50M conv=notrunc status=none
truncate -s 70000 var/hole-only
printf 'odd' > $'var/odd \n\t\\ \xff name'
chown -h 1000:1001 etc/motd var/link var/sparse
chown 4294967294:100000 var/empty
setfattr -n user.note -v 'a value' etc/motd
setfattr -n user.empty etc/motd
setfattr -n trusted.t -v 0x00ff etc
setfattr -n user.much -v "$(python3 -c 'print("y"*2000)')" var/empty-file
setfacl -m u:1234:rwx,g:77:r-x,m::rwx etc/sticky
setfacl -d -m u:1234:rwx etc/sticky
setfacl -m u:5:r etc/motd
setcap cap_net_raw+ep usr/bin/large
touch -d '1969-12-31 23:59:58.000000001' var/third
touch -d '1901-12-14 00:00:00.999999999' etc/motd
touch -h -d '2038-01-20 01:02:03.123456789' var/link
touch -d '2001-02-03 04:05:06.7' . etc etc/sticky usr usr/bin var var/empty
"#;

/// The folder, and a mount of a tree that is equal.
fn every_kind() -> (tempfile::TempDir, Mount) {
    let folder = tempfile::tempdir().unwrap();
    sh(folder.path(), EVERY_KIND);
    let mount = Mount::new(tree(scan(folder.path())));
    (folder, mount)
}

#[test]
fn every_kind_of_entry_looks_as_it_was() {
    if !are_here("every_kind_of_entry_looks_as_it_was", TOOLS) {
        return;
    }
    let (folder, mount) = every_kind();
    let list = |at: &Path| {
        let each = |kinds: &str, format: &str| {
            let find = format!(r"find . {kinds} -printf '{format}\0'");
            sh(at, &format!(r"{find} | sort -z | tr '\0' '\n'"))
        };
        let list = each("", "%P|%y|%#m|%U|%G|%l|%T@");
        let sizes = each("! -type d", "%P|%s");
        let files = each("-type f", "%P|%n");
        let numbers = sh(at, "stat -c '%n %t %T' var/char var/block");
        format!("{list}{sizes}{files}{numbers}")
    };
    assert_eq!(list(&mount.path()), list(folder.path()));
    for name in ["usr/bin/large", "var/link", "var/fifo"] {
        // `-samefile` would open the pipe.
        let same = format!("find . -inum $(stat -c %i {name}) | sort");
        let names = sh(folder.path(), &same);
        assert!(names.lines().count() > 1);
        assert_eq!(sh(&mount.path(), &same), names);
    }
    let attributes = |at: &Path| {
        let each = "-print0 | sort -z | xargs -0";
        let xattrs = format!("find . {each} getfattr -h -d -m - -e hex");
        let acls = format!("find . ! -type l {each} getfacl -n");
        sh(at, &xattrs) + &sh(at, &acls)
    };
    assert_eq!(attributes(&mount.path()), attributes(folder.path()));
    let sums = "find . -type f -print0 | sort -z | xargs -0 sha256sum";
    assert_eq!(sh(&mount.path(), sums), sh(folder.path(), sums));
    assert_eq!(mount.problems(), [""; 0]);
}

#[test]
fn rsync_finds_no_difference() {
    if !are_here("rsync_finds_no_difference", TOOLS) {
        return;
    }
    let (folder, mount) = every_kind();
    let compare = format!(
        "rsync -n -i -aHAX --numeric-ids --checksum --delete '{}/' '{}/'",
        mount.path().display(),
        folder.path().display()
    );
    assert_eq!(sh(folder.path(), &compare), "");
    sh(folder.path(), "setfattr -n user.note -v 'another' etc/motd");
    assert_ne!(sh(folder.path(), &compare), "");
}

#[test]
fn tar_of_the_mount_is_the_tree() {
    if !are_here("tar_of_the_mount_is_the_tree", TOOLS) {
        return;
    }
    let (folder, mount) = every_kind();
    let script = format!(
        "mkdir out; tar -c -p -S -f - --xattrs --xattrs-include='*' --acls --directory='{}' . |
         tar -x -p -f - --xattrs --xattrs-include='*' --acls --same-owner -C out",
        mount.path().display()
    );
    sh(mount.own(), &script);
    let compare = format!(
        "rsync -n -i -aHAX --numeric-ids --checksum --delete out/ '{}/'",
        folder.path().display()
    );
    // A tar file has no sockets, and tar knows other names only of what says that it has several.
    let differences = sh(mount.own(), &compare);
    let differences: Vec<_> = differences
        .lines()
        .filter(|l| !l.contains("socket"))
        .collect();
    assert_eq!(differences, [""; 0]);
}

#[test]
fn extended_attributes_need_room_and_have_to_be_there() {
    if !are_here("extended_attributes_need_room", &[]) {
        return;
    }
    // Together more than is kept with an inode.
    let lengths = [("user.a", 0), ("user.b", 65_536), ("user.c", 3)];
    let mut file = Item::file(b"");
    file.entry.attributes.xattrs = lengths
        .map(|(name, length)| Xattr {
            name: name.into(),
            value: vec![b'v'; length],
        })
        .into();
    let mount = Mount::new(tree(Item::folder([(name("file"), file)])));
    let file = mount.join("file");
    let mut names = [0; 21];
    assert_eq!(llistxattr_query(&file), Ok(21));
    assert_eq!(llistxattr(&file, &mut names[..20]), Err(Errno::RANGE));
    assert_eq!(llistxattr(&file, &mut names[..]), Ok(21));
    assert_eq!(&names, b"user.a\0user.b\0user.c\0");
    for (name, length) in lengths {
        let mut value = vec![0; 65_536];
        assert_eq!(lgetxattr_query(&file, name), Ok(length));
        if length > 1 {
            let short = lgetxattr(&file, name, &mut value[..length - 1]);
            assert_eq!(short, Err(Errno::RANGE));
        }
        assert_eq!(lgetxattr(&file, name, &mut value[..]), Ok(length));
        assert_eq!(value[..length], vec![b'v'; length]);
    }
    let absent = lgetxattr(&file, "user.d", &mut [0; 10][..]);
    assert_eq!(absent, Err(Errno::NODATA));
    let root = lgetxattr(mount.path(), "user.a", &mut [0; 10][..]);
    assert_eq!(root, Err(Errno::NODATA));
}

#[test]
fn nothing_can_be_changed() {
    if !are_here("nothing_can_be_changed", TOOLS) {
        return;
    }
    let (_folder, mount) = every_kind();
    for script in [
        "echo x >> etc/motd",
        "rm etc/motd",
        "mkdir new",
        "chmod 600 etc/motd",
        "touch etc/motd",
        "setfattr -n user.x -v y etc/motd",
    ] {
        let said = sh_fails(&mount.path(), script);
        assert!(said.contains("Read-only file system"), "{script}: {said}");
    }
    let options = sh(
        &mount.path(),
        "findmnt -n -o FSTYPE,SOURCE,OPTIONS --target .",
    );
    for word in ["fuse.snapkeep snapkeep", "ro", "nosuid", "nodev"] {
        assert!(options.contains(word), "{options}");
    }
    assert!(!options.contains("allow_other"), "{options}");
    assert!(fs::metadata(mount.join("nothing")).is_err());
}
