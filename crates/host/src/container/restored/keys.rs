//! Which settings an archive may decide.

use std::collections::BTreeSet;

use crate::container::limits::{PTYS_MAX, TTYS_MAX};
use crate::container::lines::{Line, mount_fields};

/// LXC's own folder of configurations.
const LXC_CONFIGS: &str = "/usr/share/lxc/config/";

/// What becomes of a setting.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Judged {
    Keep,
    /// The restore itself decides it.
    Ours,
    /// It is wrong for another container.
    Drop(&'static str),
    /// It can hurt the machine, or is not known.
    Unsafe(&'static str),
}

use Judged::{Drop, Keep, Ours, Unsafe};

/// What becomes of a setting in a container with an ID map (`mapped`), or without.
pub(super) fn judge(key: &str, value: &str, mapped: bool, networks: &BTreeSet<&str>) -> Judged {
    match key {
        "lxc.rootfs.path" | "lxc.uts.name" | "lxc.idmap" => return Ours,
        "lxc.ephemeral" => return Drop("LXC would destroy the restored container when it stops"),
        "lxc.start.auto" => return Drop("a restored container is not started without being asked"),
        _ => {}
    }
    if value.is_empty() {
        return Unsafe("an empty value takes back what was set before, also what protects");
    }
    if let Some(rest) = key.strip_prefix("lxc.net.") {
        return network(rest, value, networks);
    }
    if let Some(rest) =
        (key.strip_prefix("lxc.cgroup2.")).or_else(|| key.strip_prefix("lxc.cgroup."))
    {
        return control_group(rest);
    }
    if key.starts_with("lxc.hook.") {
        return Unsafe("LXC runs hooks as the machine's root");
    }
    match key {
        "lxc.arch" | "lxc.group" | "lxc.signal.halt" | "lxc.signal.reboot" | "lxc.signal.stop" => {
            when(is_word(value))
        }
        "lxc.tty.max" => when(is_number_to(value, TTYS_MAX)),
        "lxc.pty.max" => when(is_number_to(value, PTYS_MAX)),
        "lxc.init.uid" | "lxc.init.gid" | "lxc.start.delay" | "lxc.start.order" => {
            when(is_number(value))
        }
        "lxc.autodev" => when(matches!(value, "0" | "1")),
        "lxc.no_new_privs" => when(value == "1"),
        "lxc.tty.dir" => when(value == "lxc"),
        "lxc.init.cmd" | "lxc.init.cwd" | "lxc.execute.cmd" => Keep,
        "lxc.environment" if value.contains('=') => Keep,
        "lxc.environment" => Unsafe("it tells the container a variable of the machine"),
        // Both can only take away.
        "lxc.cap.drop" | "lxc.cap.keep" => when(value.split([' ', '\t']).all(is_word_or_empty)),
        "lxc.apparmor.profile" => match value {
            "generated" | "lxc-container-default" | "lxc-container-default-cgns" => Keep,
            _ => Unsafe("it is not one of LXC's own profiles"),
        },
        "lxc.seccomp.profile" if value == "/usr/share/lxc/config/common.seccomp" => Keep,
        "lxc.include" if is_common_config(value, mapped) => Keep,
        "lxc.mount.auto" if value.split([' ', '\t']).all(is_safe_auto) => Keep,
        "lxc.mount.auto" => Unsafe("it gives the container more of the machine than LXC's default"),
        "lxc.mount.entry" => mount(value, mapped),
        "lxc.include" | "lxc.seccomp.profile" | "lxc.mount.fstab" => {
            Unsafe("it is a file of the machine")
        }
        _ => Unsafe("it is not known to be harmless"),
    }
}

fn when(usable: bool) -> Judged {
    if usable {
        Keep
    } else {
        Unsafe("its value is not known to be harmless")
    }
}

/// The numbers of networks that take an interface of the machine, or put one on it, or are not known.
pub(super) fn unsafe_networks<'a>(lines: &[Line<'a>]) -> BTreeSet<&'a str> {
    let types = lines.iter().filter_map(|line| {
        let number = line.key.strip_prefix("lxc.net.")?.strip_suffix(".type")?;
        let own: [&[u8]; 2] = [b"veth", b"empty"];
        (!own.contains(&line.value)).then_some(number)
    });
    types.collect()
}

fn network(rest: &str, value: &str, unsafe_networks: &BTreeSet<&str>) -> Judged {
    let Some((number, setting)) = rest.split_once('.') else {
        return Unsafe("it is not known to be harmless");
    };
    if !is_number(number) {
        return Unsafe("it is not known to be harmless");
    }
    if unsafe_networks.contains(number) {
        return Unsafe(
            "the network uses an interface of the machine itself, or is of an unknown type",
        );
    }
    match setting {
        "hwaddr" => Drop("two containers must not have the same address; LXC makes a new one"),
        "veth.pair" => Drop("two containers must not have the same name of an interface"),
        "type" | "link" | "flags" | "name" | "mtu" | "ipv4.address" | "ipv4.gateway"
        | "ipv6.address" | "ipv6.gateway" => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/ @".contains(c);
            when(value.chars().all(plain))
        }
        "veth.mode" if value == "bridge" => Keep,
        "veth.mode" => Unsafe("it sets routes of the machine"),
        _ => Unsafe("it changes the machine's network, or runs a program"),
    }
}

/// Settings of control groups, of both versions, that can only limit; others reserve something, or
/// let the container stall its machine.
const LIMITS: [&str; 16] = [
    "memory.max",
    "memory.high",
    "memory.limit_in_bytes",
    "memory.swap.max",
    "cpu.max",
    "cpu.shares",
    "cpu.weight",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpuset.cpus",
    "cpuset.mems",
    "io.max",
    "io.weight",
    "blkio.weight",
    "pids.max",
    "devices.deny",
];

/// A limit of a resource, or less access to devices.
fn control_group(key: &str) -> Judged {
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let page_size = (key.strip_prefix("hugetlb.")).and_then(|rest| {
        rest.strip_suffix(".max")
            .or_else(|| rest.strip_suffix(".limit_in_bytes"))
    });
    let limits = LIMITS.contains(&key)
        || key.strip_prefix("blkio.throttle.").is_some_and(word)
        || page_size.is_some_and(word);
    if limits {
        Keep
    } else if key.starts_with("devices.") {
        Unsafe("it gives access to devices of the machine")
    } else {
        Unsafe("it is no limit of a resource")
    }
}

/// Files of LXC itself that most containers include. Those for ID maps take protection away that a
/// container without one needs.
fn is_common_config(value: &str, mapped: bool) -> bool {
    let Some(name) = value.strip_prefix(LXC_CONFIGS) else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is = |what: &str| {
        (name.strip_suffix(what)).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    name.chars().all(plain) && (is("common.conf") || (is("userns.conf") && mapped))
}

fn is_safe_auto(value: &str) -> bool {
    matches!(
        value,
        "" | "proc"
            | "proc:mixed"
            | "sys"
            | "sys:mixed"
            | "sys:ro"
            | "cgroup"
            | "cgroup:mixed"
            | "cgroup:ro"
    )
}

/// A mount of something that is not the machine's, in the container's own tree.
fn mount(value: &str, mapped: bool) -> Judged {
    let fields = mount_fields(value.as_bytes());
    let fields: Vec<_> = fields
        .iter()
        .map(|field| String::from_utf8_lossy(field))
        .collect();
    let [source, target, kind, options, rest @ ..] = fields.as_slice() else {
        return Unsafe("it is not a whole mount");
    };
    let own = match &**kind {
        "tmpfs" | "mqueue" => true,
        "proc" | "sysfs" => mapped,
        _ => false,
    };
    let inside = !target.is_empty()
        && !target.starts_with('/')
        && target.split('/').all(|part| part != "..")
        && !target.chars().any(char::is_control);
    let foreign = |option: &str| {
        matches!(
            option,
            "bind" | "rbind" | "move" | "remount" | "relative" | "dev" | "idmap"
        ) || option.contains("shared")
            || option.contains("slave")
            || option.contains(':')
            || option.starts_with("idmap")
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ",=._-%".contains(c);
    let usable = !source.starts_with('/')
        && source.chars().all(plain)
        && inside
        && options.chars().all(plain)
        && !options.split(',').any(foreign)
        && rest.len() <= 2
        && rest.iter().all(|number| is_number(number));
    if own && usable {
        Keep
    } else {
        Unsafe("it mounts something of the machine")
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number_to(text: &str, most: u32) -> bool {
    is_number(text) && text.parse().is_ok_and(|number: u32| number <= most)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && is_word_or_empty(text)
}

fn is_word_or_empty(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-+,".contains(&byte))
}
