//! What of archived configurations is kept, dropped and refused.

use super::*;

fn policy() -> RestorePolicy {
    RestorePolicy {
        name: "copy".into(),
        rootfs: "/var/lib/lxc/copy/rootfs".into(),
        idmap: None,
        allow_privileged: false,
        allow_unsafe: false,
    }
}

const MAP: &str = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n";
const END: &str = "lxc.rootfs.path = dir:/var/lib/lxc/copy/rootfs\nlxc.uts.name = copy\nlxc.idmap =\n\
                   lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n";

fn restored(text: &str) -> RestoredConfig {
    restored_config(format!("{text}{MAP}").as_bytes(), &policy()).unwrap()
}

#[test]
fn it_is_another_container_with_the_same_settings() {
    let kept = "lxc.include = /usr/share/lxc/config/debian.common.conf\n\
                lxc.include = /usr/share/lxc/config/debian.userns.conf\n\
                lxc.arch = linux64\nlxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\n\
                lxc.net.0.veth.mode = bridge\nlxc.tty.max = 4\nlxc.pty.max = 1024\n\
                lxc.net.0.flags = up\nlxc.net.0.ipv4.address = 10.0.3.7/24\n\
                lxc.cgroup2.memory.max = 512M\nlxc.cgroup2.hugetlb.2MB.max = 0\n\
                lxc.cgroup.blkio.throttle.read_bps_device = 8:0 1\nlxc.cgroup.cpu.shares = 512\n\
                lxc.cgroup.devices.deny = a\nlxc.cap.drop = mac_admin  sys_time\n\
                lxc.environment = \" A=b \"\nlxc.apparmor.profile = generated\n\
                lxc.mount.auto = proc:mixed sys:mixed cgroup:mixed\n\
                lxc.mount.entry = tmpfs run tmpfs rw,nosuid,size=10M,create=dir 0 0\n";
    let text = format!("# a comment\nlxc.rootfs.path = zfs:tank/web\nlxc.uts.name = web\n{kept}");
    let restored = restored(&text);
    assert_eq!(restored.text, format!("{kept}{END}"));
    assert_eq!(restored.dropped, Vec::<String>::new());
    assert_eq!(restored.links, ["line 8, lxc.net.0.link: lxcbr0"]);
    assert_eq!(restored.idmap.unwrap().users()[0].host, 100_000);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn what_could_hurt_is_dropped_and_named() {
    for line in [
        "lxc.hook.pre-start = /bin/x",
        "lxc.hook.start = x",
        "lxc.include = /etc/x.conf",
        "lxc.include = /usr/share/lxc/config/../../x/common.conf",
        "lxc.include = /usr/share/lxc/config/nesting.conf",
        "lxc.include = /usr/share/lxc/config/xcommon.conf",
        "lxc.mount.entry = /srv srv none bind 0 0",
        "lxc.mount.entry = srv srv none rbind 0 0",
        "lxc.mount.entry = tmpfs ../x tmpfs rw 0 0",
        "lxc.mount.entry = tmpfs /x tmpfs rw 0 0",
        "lxc.mount.entry = tmpfs a\\040../x/.. tmpfs rw 0 0",
        "lxc.mount.entry = tmpfs x tmpfs rw,bind 0 0",
        "lxc.mount.entry = tmpfs x tmpfs rw,rshared 0 0",
        "lxc.mount.entry = tmpfs x tmpfs rw,relative 0 0",
        "lxc.mount.entry = \\057etc x tmpfs rw 0 0",
        "lxc.mount.entry = tmpfs x tmpfs",
        "lxc.mount.entry = /dev/sda1 x ext4 rw 0 0",
        "lxc.mount.fstab = /etc/fstab",
        "lxc.mount.auto = proc:rw",
        "lxc.mount.auto = cgroup-full:rw:force",
        "lxc.apparmor.profile = unconfined",
        "lxc.apparmor.profile = unchanged",
        "lxc.apparmor.raw = mount,",
        "lxc.apparmor.allow_incomplete = 1",
        "lxc.seccomp.profile = /x",
        "lxc.cap.drop =",
        "lxc.cap.keep =",
        "lxc.cap.ambient = sys_admin",
        "lxc.cgroup.devices.allow = a",
        "lxc.cgroup2.devices.allow = c 1:1 rwm",
        "lxc.cgroup2.devices.deny =",
        "lxc.cgroup.relative = 1",
        "lxc.cgroup.dir = ../x",
        "lxc.cgroup.dir.container = x",
        "lxc.cgroup2.memory.-x = 1",
        "lxc.cgroup2.memory = 1",
        "lxc.cgroup2.memory.min = 1G",
        "lxc.cgroup2.memory.oom.group = 1",
        "lxc.cgroup.memory.oom_control = 1",
        "lxc.cgroup.memory.move_charge_at_immigrate = 1",
        "lxc.cgroup.cpu.rt_runtime_us = 950000",
        "lxc.cgroup2.cpuset.cpus.partition = root",
        "lxc.cgroup.cpuset.memory_pressure_enabled = 1",
        "lxc.cgroup2.hugetlb..max = 1",
        "lxc.cgroup.blkio.throttle. = 1",
        "lxc.tty.max = 65",
        "lxc.pty.max = 999999999",
        "lxc.cgroup2.cgroup.procs = 1",
        "lxc.environment = HOME",
        "lxc.namespace.share.pid = 1",
        "lxc.namespace.keep = net",
        "lxc.log.file = /etc/x",
        "lxc.console.logfile = /etc/x",
        "lxc.rootfs.mount = /etc",
        "lxc.rootfs.options = x",
        "lxc.sysctl.kernel.core_pattern = x",
        "lxc.prlimit.nofile = unlimited",
        "lxc.proc.oom_score_adj = -1000",
        "lxc.selinux.context = x",
        "lxc.no_new_privs = 0",
        "lxc.net.0.script.up = /x",
        "lxc.net.0.hwaddr = 00:16:3e:00:00:01",
        "lxc.net.0.veth.pair = vethx",
        "lxc.net.0.type = phys",
        "lxc.net.0.type = none",
        "lxc.net.0.type = vlan",
        "lxc.net.0.type = macvlan",
        "lxc.net.0.type = ipvlan",
        "lxc.net.0.veth.mode = router",
        "lxc.net.0.veth.ipv4.route = 0.0.0.0/1",
        "lxc.net.0.macvlan.mode = bridge",
        "lxc.net.0.vlan.id = 1",
        "lxc.net = x",
        "lxc.net.x.type = veth",
        "lxc.ephemeral = 1",
        "lxc.start.auto = 1",
        "lxc.unknown = 1",
        "lxc.rootfs.pathx = /x",
    ] {
        let restored = restored(&format!("{line}\n"));
        assert_eq!(restored.text, END, "{line}");
        assert_eq!(restored.dropped.len(), 1, "{line}");
        let key = line.split(' ').next().unwrap();
        let words = format!("line 1, {key}: ");
        assert!(
            restored.dropped[0].starts_with(&words),
            "{:?}",
            restored.dropped
        );
    }
}

#[test]
fn a_network_of_the_machine_is_dropped_as_a_whole() {
    let text = "lxc.net.0.link = eth0\nlxc.net.1.type = veth\nlxc.net.1.link = br0\nlxc.net.0.type = phys\n";
    let restored = restored(text);
    let kept = "lxc.net.1.type = veth\nlxc.net.1.link = br0\n";
    assert_eq!(restored.text, format!("{kept}{END}"));
    assert_eq!(restored.dropped.len(), 2);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (line, words) in [
        (
            "lxc.init.cmd = \"\"/x\"",
            "line 1: it still begins with a quote",
        ),
        ("lxc.init.cmd = '\"/x", "begins with a quote"),
        ("lxc.init.cmd = \"'a'\"", "begins with a quote"),
        ("lxc.init.cmd = a\rb", "control character"),
        ("lxc.init.cmd = a\x0bb", "control character"),
        ("lxc.init.cmd = a\x7f", "control character"),
        ("lxc.init.cmd = a\0b", "zero byte"),
        ("lxc.init.cmd", "no \"=\""),
        ("lxc.init\x0bcmd = a", "is no key"),
        ("lxc.idmap = u 0 1", "lxc.idmap"),
        ("lxc.idmap = b 5 100005 1", "twice"),
    ] {
        let error = restored_config(format!("{line}\n{MAP}").as_bytes(), &policy()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.chain().contains(words), "{line}: {}", error.chain());
    }
    assert!(restored_config(b"lxc.init.cmd = \xff\n", &policy()).is_err());
    let foreign = restored_config(b"arch: amd64\nrootfs: local:1\n", &policy()).unwrap_err();
    assert!(
        foreign.chain().contains("is not LXC's"),
        "{}",
        foreign.chain()
    );
}

#[test]
fn a_privileged_container_needs_to_be_allowed() {
    let text = b"lxc.include = /usr/share/lxc/config/userns.conf\nlxc.mount.entry = sysfs sys sysfs rw 0 0\n";
    let mut policy = policy();
    let error = restored_config(text, &policy).unwrap_err();
    assert!(error.chain().contains("no ID map"), "{}", error.chain());
    policy.allow_privileged = true;
    let restored = restored_config(text, &policy).unwrap();
    assert!(
        restored
            .text
            .ends_with("lxc.uts.name = copy\nlxc.idmap =\n")
    );
    // What is harmless with a map only is dropped.
    assert_eq!(restored.dropped.len(), 2);
    policy.allow_privileged = false;
    policy.idmap = Some("0:200000:65536".parse().unwrap());
    let restored = restored_config(text, &policy).unwrap();
    assert!(restored.text.ends_with("lxc.idmap = g 0 200000 65536\n"));
    assert!(restored.dropped.is_empty());
}

#[test]
fn an_archive_does_not_give_itself_the_users_of_the_machine() {
    for (map, given, word) in [
        ("lxc.idmap = b 0 0 65536", None, "machine's root"),
        (
            "lxc.idmap = b 0 100000 1000\nlxc.idmap = b 1000 1000 1",
            None,
            "from 1000 on",
        ),
        (
            "lxc.idmap = b 0 100000 65536",
            Some("0:0:1"),
            "machine's root",
        ),
    ] {
        let mut policy = policy();
        policy.idmap = given.map(|map| map.parse().unwrap());
        let error = restored_config(map.as_bytes(), &policy).unwrap_err();
        assert!(error.chain().contains(word), "{map}: {}", error.chain());
        policy.allow_privileged = true;
        restored_config(map.as_bytes(), &policy).unwrap();
    }
    let mut policy = policy();
    policy.idmap = Some("0:1000:10".parse().unwrap());
    restored_config(MAP.as_bytes(), &policy).unwrap();
}

#[test]
fn a_user_may_keep_all_but_what_two_containers_cannot_have() {
    let mut policy = policy();
    policy.allow_unsafe = true;
    let kept =
        "lxc.hook.start = /x\nlxc.include = /etc/x\nlxc.net.0.type = phys\nlxc.cap.drop = \n";
    let text = format!("{kept}lxc.net.1.hwaddr = 00:16:3e:00:00:01\nlxc.ephemeral = 1\n{MAP}");
    let restored = restored_config(text.as_bytes(), &policy).unwrap();
    assert_eq!(restored.text, format!("{kept}{END}"));
    assert_eq!(restored.dropped.len(), 2);
}

#[test]
fn names_and_folders_that_lxc_cannot_be_told_are_refused() {
    for (name, rootfs) in [
        ("a/b", "/a"),
        ("-a", "/a"),
        ("a", "a"),
        ("a", "/a\nb"),
        ("a", "/a "),
    ] {
        let policy = RestorePolicy {
            name: name.into(),
            rootfs: rootfs.into(),
            ..policy()
        };
        assert!(
            restored_config(MAP.as_bytes(), &policy).is_err(),
            "{name} {rootfs}"
        );
    }
}
