//! A container's files, with every type and every attribute, made by the usual tools.

use std::os::unix::fs::lchown;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::namespace::{FIRST, Namespace};
use crate::support::sh;

/// What `plant` needs, and what compares it.
pub(crate) const TOOLS: &[&str] = &[
    "unshare", "nsenter", "setfattr", "getfattr", "setfacl", "getfacl", "setcap", "chattr",
    "lsattr", "rsync", "tar", "python3",
];

/// What the container's root user makes.
const OWN: &[&str] = &[
    "mkdir -p etc/deep/er bin dev empty many links 'with space'",
    // Content: none, a few bytes, chunks of it, text that compresses, and twice the same.
    "printf hello > etc/hello; : > etc/nothing",
    "head -c 20000000 /dev/urandom > bin/large; seq 3000000 > bin/text; cp bin/large bin/again",
    // Holes at the start, in the middle, at the end; nothing but a hole; a very large one.
    "truncate -s 10M etc/holes; for at in 1 5; do printf data | dd of=etc/holes bs=1M seek=$at conv=notrunc status=none; done",
    "truncate -s 3M etc/hole; truncate -s 3 etc/short-hole; head -c 100000 /dev/zero > etc/zeroes",
    "truncate -s 1T etc/vast; printf middle | dd of=etc/vast bs=1M seek=500000 conv=notrunc status=none",
    // Permissions and owners.
    "cp /bin/true bin/setuid; chmod 4755 bin/setuid; chown 0:42 bin/text; chmod 2711 bin/text",
    "chmod 1777 empty; chmod 0 etc/nothing; chown 65535:1 etc/nothing; chown 1:65535 empty",
    "for id in 1 7 999 1000 30000 65534 65535; do touch etc/of-$id; chown $id:$((65535 - id)) etc/of-$id; chmod 600 etc/of-$id; done",
    // Names.
    "touch \"$(printf '%0255d' 1)\" $'with space/new\\nline' $'bad\\xff\\xfename' 'back\\slash' 'etc/a!' $'\\x01'",
    "touch \"etc/\u{fc}$(printf '%0120d' 3)\" -- 'etc/-rf' 'etc/*' 'etc/ '",
    // Links.
    "ln -s ../bin/large links/relative; ln -s /nowhere/at/all links/dangling; chown -h 5:6 links/dangling",
    "ln -s \"$(head -c 4095 /dev/zero | tr '\\0' x)\" links/longest; ln -s $'bad\\xfftarget' links/bad",
    "ln bin/large etc/second; ln bin/large etc/deep/third; ln links/dangling links/dangling-too",
    "ln etc/nothing links/nothing; mkfifo -m 640 etc/fifo; ln etc/fifo links/fifo",
    // Extended attributes, ACLs and a capability.
    "setfattr -n user.note -v hello etc/hello; setfattr -n user.binary -v 0x00ff0a25 etc/hello; setfattr -n user.empty etc/hello",
    "setfattr -n user.large -v $(head -c 3000 /dev/zero | tr '\\0' v) etc/deep; setfattr -n user.a=b%c -v x empty",
    "setfacl -m u:1234:rwx,g:65535:r-x,m::r-x etc/hello; setfacl -d -m u:77:rwx,o::- etc/deep/er; setfacl -m u:9:x etc/deep/er",
    "cp /bin/true bin/ping; setcap cap_net_raw,cap_sys_admin+ep bin/ping",
    // Many, and deep.
    "(cd many; for i in $(seq 3000); do echo $i > $i; done); p=deep; for i in $(seq 500); do p=$p/$i; done; mkdir -p $p; touch $p/end",
];

/// What only the host's root user can make in it.
const OF_HOST: &[&str] = &[
    "mknod dev/null c 1 3; mknod dev/disk b 259 70000; mknod etc/zero c 1 5; chown 100000:100005 dev/* etc/zero; chmod 606 dev/null",
    "touch etc/immutable etc/append; ln etc/immutable links/immutable; chown 100000:100000 etc/immutable etc/append",
];

/// Times, of which all that was made before might change some.
const TIMES: &[&str] = &[
    "touch -h -d '1971-01-01 00:00:00.5' links/dangling; touch -d '1955-11-05 06:15:00.123456789' etc/hello",
    "touch -d '1969-12-31 23:59:59.5' etc/hole; touch -d '2300-01-01 00:00:00.000000001' etc/holes; touch -d @0 etc/zeroes",
    "touch -d '1969-12-31 23:59:59.999999999' etc/deep; touch -d '2001-01-01 00:00:00.25' etc bin empty 'with space' many; touch -d '1901-12-14 01:02:03.000000004' .",
];

/// Fills a folder and gives it to a user namespace.
pub(crate) fn plant(namespace: &Namespace, folder: &Path) {
    let (root, all) = (Some(FIRST), Some(FIRST + 3));
    lchown(folder, root, root).unwrap();
    for line in OWN {
        namespace.sh(folder, line);
    }
    let socket = folder.join("etc/socket");
    drop(UnixListener::bind(&socket).unwrap());
    lchown(socket, root, all).unwrap();
    for line in OF_HOST {
        sh(folder, line);
    }
    for line in TIMES {
        namespace.sh(folder, line);
    }
    sh(folder, "chmod 751 .; chattr +d etc/zeroes; chattr +A empty");
    sh(
        folder,
        "chattr +a etc/append; chattr +i etc/immutable; chattr +i with*",
    );
}
