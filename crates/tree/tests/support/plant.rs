//! A folder with every kind of entry, made by the usual tools.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::tools::sh;

/// What `plant` needs.
pub(crate) const TOOLS: &[&str] = &[
    "setfattr", "getfattr", "setfacl", "getfacl", "setcap", "getcap", "chattr", "lsattr",
];

/// Fills a folder. The file system must take ACLs, extended attributes and inode flags.
pub(crate) fn plant(folder: &Path) {
    for line in [
        "mkdir -p etc/deep/er bin empty 'with space'",
        "printf hello > etc/hello; printf '' > etc/nothing; chmod 4755 etc/hello",
        "head -c 3000000 /dev/urandom > bin/large; chown 1000:2000 bin/large; chmod 2711 bin/large",
        "ln bin/large etc/second; ln bin/large etc/deep/third",
        "ln -s ../bin/large etc/symlink; ln -s /nowhere/$(printf '%0200d' 7) bin/long; ln bin/long etc/long2",
        "chown -h 5:6 etc/symlink; touch -h -d '1971-01-01 00:00:00.5' etc/symlink",
        "mkfifo -m 640 etc/fifo; mknod bin/null c 1 3; mknod bin/disk b 259 70000; chmod 606 bin/null",
        "truncate -s 10M etc/hole; printf data | dd of=etc/hole bs=1 seek=4194304 conv=notrunc status=none",
        "truncate -s 1T etc/vast; truncate -s 3 etc/tiny-hole",
        "head -c 100000 /dev/zero > etc/zeroes",
        "touch -d '1955-11-05 06:15:00.123456789' etc/deep/old",
        "touch -d '1969-12-31 23:59:59.5' etc/deep/just-before; touch -d '2300-01-01 00:00:00.000000001' etc/deep/far",
        "chown 3000000000:4000000000 etc/deep/old",
        "setfattr -n user.note -v hello etc/hello; setfattr -n user.a=b%c -v 0x00ff0a etc/hello; setfattr -n user.dir -v x empty",
        "setfattr -n trusted.t -v 1 etc/deep; setfattr -n trusted.fifo -v 1 etc/fifo",
        "setfacl -m u:1234:rwx,g:4000000001:r-x,m::r-x etc/hello; setfacl -d -m u:77:rwx,o::- etc/deep/er; setfacl -m u:9:x etc/deep/er",
        "cp /bin/true bin/ping; setcap cap_net_raw,cap_sys_admin+ep bin/ping",
        "chmod 1777 empty; chmod 0 etc/nothing",
        "touch \"$(printf '%0255d' 1)\" $'with space/new\\nline' $'bad\\xff\\xfename' 'etc/a!' 'etc/deep.txt'",
        "long=$(printf '%0120d' 3); truncate -s 1M etc/sparse$long; touch \"etc/\u{fc}$long\" $'etc/\\xff'\"$long\"; ln -s \"\u{fc}$long\" $'etc/\\xfe'\"$long\"",
        "p=x; for i in $(seq 20); do p=$p/$(printf '%0100d' $i); done; mkdir -p $p; touch $p/end",
        "touch etc/immutable etc/append; ln etc/immutable etc/immutable2",
        "touch -d '2001-01-01 00:00:00.25' etc bin empty etc/deep x 'with space' .; chmod 751 .",
    ] {
        sh(folder, line);
    }
}

/// Sets inode flags on what was planted.
pub(crate) fn flag(folder: &Path) {
    sh(
        folder,
        "chattr +d etc/zeroes; chattr +A empty; chattr +a etc/append; chattr +i etc/immutable; chattr +i with*",
    );
}

/// A folder on a disk: a file system in memory may not take all that is planted. It is gone with
/// the test, whatever was made in it.
pub(crate) struct Disk(TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        const TMPFS: i64 = 0x0102_1994;
        let usual = std::env::temp_dir();
        let kind = rustix::fs::statfs(&usual).unwrap().f_type;
        let folder = if kind == TMPFS {
            Path::new("/var/tmp")
        } else {
            &usual
        };
        Self(tempfile::tempdir_in(folder).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut back = Command::new("chattr");
        back.args(["-R", "-f", "-i", "-a"])
            .arg(self.path())
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}
