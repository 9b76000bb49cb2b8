//! Snapshots of a container's root file system: by Btrfs, and by hooks that do what they should or not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use container::{Lab, Log, back_up, be_guard_if_asked, can_run, fine, wait_until};
use snapkeep_api::{ErrorKind, Result};
use snapkeep_host::container::{Container, ContainerRequest, FinishedContainer, Mode, Way};

#[test]
fn the_guard() {
    be_guard_if_asked();
}

#[test]
fn a_snapshot_by_btrfs_is_of_one_instant_and_is_gone_before_the_commit() {
    let name = "a_snapshot_by_btrfs_is_of_one_instant_and_is_gone_before_the_commit";
    if !can_run(name, &["btrfs", "mkfs.btrfs"]) {
        return;
    }
    for is_subvolume in [true, false] {
        let lab = Lab::on_btrfs(is_subvolume);
        lab.start();
        lab.wait_until_it_works();
        let before = lab.btrfs().unwrap().subvolumes();
        let process = lab.process();
        for mode in [Mode::Auto, Mode::Snapshot] {
            let (inside, committing) = (lab.again(), lab.again());
            let done = back_up(
                &lab.request(mode),
                &Log::default(),
                move |root| {
                    inside.assert_is_snapshot(root);
                    assert_eq!(inside.journals(), 1);
                    Ok(())
                },
                move || {
                    assert_eq!(committing.journals(), 0);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(done.way, Way::Snapshot);
            assert!(done.left.is_none() && done.paused.is_zero());
            assert_eq!(lab.btrfs().unwrap().subvolumes(), before);
        }
        assert_eq!(lab.process(), process);
    }
}

#[test]
fn subvolumes_that_are_not_in_the_snapshot_are_named() {
    if !can_run(
        "subvolumes_that_are_not_in_the_snapshot_are_named",
        &["btrfs", "mkfs.btrfs"],
    ) {
        return;
    }
    let lab = Lab::on_btrfs(true);
    lab.btrfs().unwrap().subvolume("web/rootfs/srv/data");
    lab.start();
    let log = Log::default();
    back_up(&lab.request(Mode::Snapshot), &log, |_| Ok(()), fine).unwrap();
    let words = "1 subvolumes in subvolume";
    assert!(
        log.text().contains(words) && log.text().contains("srv/data"),
        "{}",
        log.text()
    );
}

#[test]
fn no_snapshot_is_kept_where_the_container_could_move_it() {
    let name = "no_snapshot_is_kept_where_the_container_could_move_it";
    if !can_run(name, &["btrfs", "mkfs.btrfs"]) {
        return;
    }
    // The mount's root is the container's root.
    let lab = Lab::on_btrfs(true);
    let mut request = lab.request(Mode::Snapshot);
    request.container = Container::Directory {
        rootfs: lab.folder().join("lxc"),
        idmap: None,
    };
    let log = Log::default();
    let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.chain().contains("root of a mount"),
        "{}",
        error.chain()
    );
    request.mode = Mode::Auto;
    let done = back_up(&request, &log, |_| Ok(()), fine).unwrap();
    assert_eq!(done.way, Way::AsIs);
    // Somebody else's folder.
    std::os::unix::fs::chown(lab.lxc().folder(), Some(100_000), None).unwrap();
    let mut request = lab.request(Mode::Snapshot);
    request.container = Container::Directory {
        rootfs: lab.rootfs(),
        idmap: None,
    };
    let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
    assert!(
        error.chain().contains("others than root"),
        "{}",
        error.chain()
    );
}

/// A folder that is backed up with a hook.
struct Hooked(Lab);

impl Hooked {
    /// The hook copies for a snapshot; `create` and `delete` are more of the script.
    fn new(create: &str, delete: &str) -> Self {
        let lab = Lab::new();
        let hook = Self(lab);
        hook.write(create, delete);
        hook
    }

    fn program(&self) -> PathBuf {
        self.0.folder().join("hook")
    }

    fn write(&self, create: &str, delete: &str) {
        let script = format!(
            "#!/bin/sh\nhere={}\necho \"$1 $SNAPKEEP_GUEST $SNAPKEEP_ROOTFS $SNAPKEEP_SNAPSHOT_ID\" >> $here/calls\n\
             snapshot=$here/$SNAPKEEP_SNAPSHOT_ID\n\
             if [ $1 = create ]; then cp -a $SNAPKEEP_ROOTFS $snapshot; {create}\n\
             else {delete}\nrm -rf $snapshot; fi\n",
            self.0.folder().display()
        );
        fs::write(self.program(), script).unwrap();
        fs::set_permissions(self.program(), Permissions::from_mode(0o755)).unwrap();
    }

    fn request(&self) -> ContainerRequest {
        let mut request = self.0.request(Mode::Snapshot);
        request.container = Container::Directory {
            rootfs: self.0.rootfs(),
            idmap: Some("0:100000:65536".parse().unwrap()),
        };
        request.snapshot_hook = Some(self.program());
        request
    }

    fn back_up(&self, log: &Log) -> Result<FinishedContainer> {
        back_up(&self.request(), log, |_| Ok(()), fine)
    }

    /// The verbs that the hook was called with.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.folder().join("calls")).unwrap_or_default();
        let verb = |line: &str| line.split(' ').next().unwrap().to_owned();
        calls.lines().map(verb).collect()
    }

    fn snapshots(&self) -> usize {
        let names = fs::read_dir(self.0.folder()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("snapkeep-")).count()
    }
}

#[test]
fn a_hook_makes_and_deletes_the_snapshot() {
    if !can_run("a_hook_makes_and_deletes_the_snapshot", &[]) {
        return;
    }
    let hooked = Hooked::new("echo chatter; echo $snapshot; echo", "");
    let (folder, rootfs) = (hooked.0.folder().to_owned(), hooked.0.rootfs());
    let log = Log::default();
    let read = move |root: &Path| {
        assert!(root.starts_with(&folder) && root != rootfs);
        assert!(root.join("bin/busybox").exists());
        Ok(())
    };
    let done = back_up(&hooked.request(), &log, read, fine).unwrap();
    assert_eq!(done.way, Way::Snapshot);
    let calls = fs::read_to_string(hooked.0.folder().join("calls")).unwrap();
    let rootfs = hooked.0.rootfs();
    assert!(
        calls.starts_with(&format!("create web {} snapkeep-", rootfs.display())),
        "{calls}"
    );
    let ids: Vec<_> = calls
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        (hooked.calls(), hooked.snapshots()),
        (vec!["create".into(), "delete".into()], 0)
    );
    assert_eq!(hooked.0.journals(), 0);
}

#[test]
fn a_hook_that_does_not_make_a_snapshot_is_asked_to_delete_it() {
    if !can_run(
        "a_hook_that_does_not_make_a_snapshot_is_asked_to_delete_it",
        &[],
    ) {
        return;
    }
    let hooked = Hooked::new("", "");
    let live = hooked.0.rootfs();
    for (create, words) in [
        (
            "echo broken >&2; exit 3".to_owned(),
            "exit status: 3: broken",
        ),
        ("exec sleep 1000".to_owned(), "has not ended after"),
        (
            "sleep 1000 & exec cat /dev/zero".to_owned(),
            "has not ended after",
        ),
        (String::new(), "it printed no folder"),
        ("echo; echo ' '".to_owned(), "it printed no folder"),
        ("echo snapshot".to_owned(), "no absolute path"),
        ("printf '/a\\033b'".to_owned(), "no absolute path"),
        ("echo /no/such".to_owned(), "which is not there"),
        ("echo /etc".to_owned(), "whose owner and mode"),
        ("mkdir $here/e; echo $here/e".to_owned(), "which is empty"),
        ("echo /".to_owned(), "around it"),
        (
            format!("echo {}", live.display()),
            "the running container's",
        ),
        (format!("echo {}/tmp", live.display()), "in it"),
        (
            format!("ln -s {0} $here/l; echo $here/l", live.display()),
            "the running container's",
        ),
        ("echo $snapshot/sbin/init".to_owned(), "which is no folder"),
        (
            "chmod 700 $snapshot; echo $snapshot".to_owned(),
            "whose owner and mode",
        ),
    ] {
        hooked.write(&create, "");
        let mut request = hooked.request();
        if create.contains("1000") {
            request.safety.timeouts.hook = Duration::from_secs(1);
        }
        let log = Log::default();
        let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
        assert!(error.chain().contains(words), "{create}: {}", error.chain());
        assert_eq!(hooked.calls(), ["create", "delete"], "{create}");
        assert_eq!(
            (hooked.snapshots(), hooked.0.journals()),
            (0, 0),
            "{create}"
        );
        fs::remove_file(hooked.0.folder().join("calls")).unwrap();
    }
    let mut request = hooked.request();
    for no_program in ["/no/such/hook", "hook", "/etc", "/etc/passwd"] {
        request.snapshot_hook = Some(no_program.into());
        let error = back_up(&request, &Log::default(), |_| panic!("read"), fine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(hooked.0.journals(), 0);
    }
}

#[test]
fn a_snapshot_that_its_hook_does_not_delete_is_deleted_later() {
    if !can_run(
        "a_snapshot_that_its_hook_does_not_delete_is_deleted_later",
        &[],
    ) {
        return;
    }
    let hooked = Hooked::new("echo $snapshot", "echo busy >&2; exit 1");
    let log = Log::default();
    let mut request = hooked.request();
    // Its guard gives up at once.
    request.safety.timeouts.retry = Duration::ZERO;
    let done = back_up(&request, &log, |_| Ok(()), fine).unwrap();
    let left = done.left.unwrap().chain();
    assert!(
        left.contains("busy") && log.text().contains("next backup"),
        "{left}"
    );
    assert_eq!((hooked.snapshots(), hooked.0.journals()), (1, 1));
    hooked.write("echo $snapshot", "");
    let log = Log::default();
    wait_until("the guard has given up", || match hooked.back_up(&log) {
        Ok(done) => done.left.is_none(),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Unavailable, "{}", e.chain());
            false
        }
    });
    assert_eq!((hooked.snapshots(), hooked.0.journals()), (0, 0));
}

/// Programs of ZFS and LVM that only pretend: a snapshot is a file, and its mount a copy.
const PRETENDERS: [(&str, &str); 8] = [
    (
        "zfs",
        "case \"$*\" in
         'list -H -o name '*) echo tank/web ;;
         'list -H -o mountpoint tank/web') echo $here/lxc ;;
         'snapshot tank/web@'*) touch $here/zfs-${2#tank/web@} ;;
         'list -H -t snapshot -o name -d 1 tank/web')
            for file in $here/zfs-*; do echo tank/web@${file#$here/zfs-}; done ;;
         'destroy tank/web@'*) rm $here/zfs-${2#tank/web@} ;;
         *) echo \"zfs $*\" >&2; exit 2 ;; esac",
    ),
    (
        "findmnt",
        "case \"$*\" in
         '-n -o SOURCE --target '*) echo $here/dev/group/web ;;
         '-n -o TARGET --target '*) echo $here/lxc ;;
         *) exit 2 ;; esac",
    ),
    (
        "lvs",
        "test \"$*\" = \"--noheadings -o vg_name $here/dev/group/web\" && echo '  group'",
    ),
    (
        "lvcreate",
        "test $5 = -n && test $7 = $here/dev/group/web && touch $here/dev/group/$6",
    ),
    (
        "lvremove",
        "test $1 = -q && test $2 = -y && rm $here/dev/$3",
    ),
    // The snapshot has to be there.
    (
        "mount",
        "for at; do :; done\ntest -e $here/zfs-${at##*/} || test -e $here/dev/group/${at##*/} || exit 2\n\
         cp -a $here/lxc/. $at && touch $at.mounted",
    ),
    ("umount", "rm -r $1 $1.mounted && mkdir $1"),
    ("mountpoint", "test -e $2.mounted"),
];

#[test]
fn the_hooks_of_the_documentation_make_and_delete_snapshots() {
    if !can_run(
        "the_hooks_of_the_documentation_make_and_delete_snapshots",
        &[],
    ) {
        return;
    }
    let document = include_str!("../../../docs/CONTAINERS.md");
    let scripts = document.split("```sh\n").skip(1);
    let scripts: Vec<_> = scripts
        .map(|text| text.split("```\n").next().unwrap())
        .collect();
    assert_eq!(scripts.len(), 2);
    for script in scripts {
        let hooked = Hooked::new("", "");
        let here = hooked.0.folder().to_owned();
        for folder in ["pretenders", "run", "dev", "dev/group"] {
            fs::create_dir(here.join(folder)).unwrap();
        }
        for (name, body) in PRETENDERS {
            let file = here.join("pretenders").join(name);
            fs::write(
                &file,
                format!("#!/bin/sh\nhere={}\n{body}\n", here.display()),
            )
            .unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        }
        let here = here.display();
        let script = script
            .replace(
                "set -eu\n",
                &format!("set -eu\nPATH={here}/pretenders:$PATH\n"),
            )
            .replace("/run/snapkeep", &format!("{here}/run"))
            .replace("\"/dev/", &format!("\"{here}/dev/"));
        fs::write(hooked.program(), script).unwrap();
        let (folder, rootfs) = (hooked.0.folder().to_owned(), hooked.0.rootfs());
        let read = move |root: &Path| {
            let below = rootfs.strip_prefix(folder.join("lxc")).unwrap();
            assert!(root.starts_with(folder.join("run")) && root.ends_with(below));
            assert!(root.join("bin/busybox").exists());
            Ok(())
        };
        let done = back_up(&hooked.request(), &Log::default(), read, fine).unwrap();
        assert!(done.left.is_none(), "{:?}", done.left);
        let left = |folder: &str| {
            fs::read_dir(hooked.0.folder().join(folder))
                .unwrap()
                .count()
        };
        assert_eq!((left("run"), left("dev/group")), (0, 0));
        // Nothing is there, and nothing is deleted.
        let status = std::process::Command::new(hooked.program())
            .arg("delete")
            .env("SNAPKEEP_ROOTFS", hooked.0.rootfs())
            .env("SNAPKEEP_SNAPSHOT_ID", "snapkeep-0")
            .status();
        assert!(status.unwrap().success());
    }
}
