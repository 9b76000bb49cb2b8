//! The configuration of a restored container: of another container, and made of settings that an
//! archive may decide.
//!
//! Whoever could write to a repository, or to the container that was backed up, may have written the
//! archived configuration; LXC reads it as the machine's root. So only settings are kept that are
//! known to do no harm; the others are dropped, each with its reason, unless the user wants them.

mod keys;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, IdMap, IdRange, Result, add_lxc_range};

use super::limits::{CONFIG_BYTES_MAX, CONFIG_LINES_MAX};
use super::lines::{Line, settings, shown, shown_path};
use super::lxc::check_name;
use keys::{Judged, judge};

/// The IDs below are the machine's own users and groups, by the custom of all distributions.
const OWN_IDS: u32 = 65_536;

/// What a restored container is, and what its archive may decide.
#[derive(Clone, Debug)]
pub struct RestorePolicy {
    /// The name of the new container, also in its network (`lxc.uts.name`).
    pub name: String,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// Its ID map; `None` takes the archived one.
    pub idmap: Option<IdMap>,
    /// A container without an ID map is allowed, whose root is the machine's, and an archived map
    /// with the machine's own users.
    pub allow_privileged: bool,
    /// Keep what would be dropped because it can hurt the machine: hooks, mounts of the machine's
    /// folders, includes, profiles and all else.
    pub allow_unsafe: bool,
}

/// A configuration for LXC.
#[derive(Clone, Debug)]
pub struct RestoredConfig {
    /// The file.
    pub text: String,
    /// The ID map in it.
    pub idmap: Option<IdMap>,
    /// What of the archived one is not in it, and why: a line each.
    pub dropped: Vec<String>,
    /// The bridges of the machine that the archive chose for its networks: a line each.
    pub links: Vec<String>,
}

/// Makes the configuration of a restored container of the archived one.
///
/// `Invalid` if LXC could read the archived one otherwise than this program, or if its container was
/// privileged and that is not allowed.
pub fn restored_config(archived: &[u8], policy: &RestorePolicy) -> Result<RestoredConfig> {
    check_name(&policy.name)?;
    let rootfs = usable_rootfs(&policy.rootfs)?;
    if archived.len() as u64 > CONFIG_BYTES_MAX {
        let what = format!("the archived configuration has more than {CONFIG_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let mut lines = Vec::new();
    for line in settings(archived) {
        let line = line.map_err(|(number, why)| wrong(number, &why))?;
        check(&line).map_err(|why| wrong(line.number, &why))?;
        lines.push(line);
        if lines.len() > CONFIG_LINES_MAX {
            let what = format!("there are more than {CONFIG_LINES_MAX} settings");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
    }
    if lines.is_empty() {
        let what =
            "the archived configuration is not LXC's: it has no setting that begins with lxc.";
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let idmap = match &policy.idmap {
        Some(map) => Some(map.clone()),
        None => archived_map(&lines)?,
    };
    if !policy.allow_privileged {
        refuse_privileged(idmap.as_ref(), policy.idmap.is_some())?;
    }
    let mut text = String::new();
    let (mut dropped, mut links) = (Vec::new(), Vec::new());
    let unsafe_networks = keys::unsafe_networks(&lines);
    for line in &lines {
        let value = String::from_utf8_lossy(line.value);
        match judge(line.key, &value, idmap.is_some(), &unsafe_networks) {
            Judged::Ours => {}
            Judged::Unsafe(_) if policy.allow_unsafe => put(&mut text, line.key, &value),
            Judged::Unsafe(why) | Judged::Drop(why) => {
                dropped.push(format!("line {}, {}: {why}", line.number, line.key));
            }
            Judged::Keep => {
                put(&mut text, line.key, &value);
                let network = line.key.strip_prefix("lxc.net.");
                let setting = network.and_then(|rest| rest.split_once('.'));
                if setting.is_some_and(|(_, name)| name == "link") {
                    links.push(format!("line {}, {}: {value}", line.number, line.key));
                }
            }
        }
    }
    // The last, because LXC takes the last, and adds up ranges.
    put(&mut text, "lxc.rootfs.path", &rootfs);
    put(&mut text, "lxc.uts.name", &policy.name);
    text.push_str("lxc.idmap =\n");
    if let Some(map) = &idmap {
        put_map(&mut text, "u", map.users());
        put_map(&mut text, "g", map.groups());
    }
    Ok(RestoredConfig {
        text,
        idmap,
        dropped,
        links,
    })
}

/// A line that LXC reads as it is meant, on any of its versions.
fn check(line: &Line<'_>) -> Result<(), String> {
    let Some(value) = line.text() else {
        return Err("it is not UTF-8".into());
    };
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err("it has a control character".into());
    }
    if value.starts_with(['"', '\'']) {
        return Err("it still begins with a quote after LXC has taken one pair away".into());
    }
    Ok(())
}

fn put(text: &mut String, key: &str, value: &str) {
    // The spaces at its ends were in quotes.
    let quote = if value.trim_matches([' ', '\t']) == value {
        ""
    } else {
        "\""
    };
    // Writing to a string does not fail.
    writeln!(text, "{key} = {quote}{value}{quote}").ok();
}

fn put_map(text: &mut String, kind: &str, ranges: &[IdRange]) {
    for range in ranges {
        let value = format!("{kind} {} {} {}", range.container, range.host, range.count);
        put(text, "lxc.idmap", &value);
    }
}

fn archived_map(lines: &[Line<'_>]) -> Result<Option<IdMap>> {
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for line in lines.iter().filter(|line| line.key == "lxc.idmap") {
        if line.value.is_empty() {
            users.clear();
            groups.clear();
        } else {
            let value = String::from_utf8_lossy(line.value);
            add_lxc_range(&value, &mut users, &mut groups)
                .map_err(|why| wrong(line.number, &format!("lxc.idmap: {why}")))?;
        }
    }
    if users.is_empty() && groups.is_empty() {
        return Ok(None);
    }
    IdMap::new(users, groups).map(Some)
}

/// A map may be one of an attacker's, too: the machine's own users are not for an archive to take.
fn refuse_privileged(idmap: Option<&IdMap>, given: bool) -> Result<()> {
    let refuse = |why: &str| {
        let what = format!("{why}; give it another ID map, or allow privileged containers");
        Err(Error::new(ErrorKind::Invalid, what))
    };
    let Some(map) = idmap else {
        return refuse("the container has no ID map: its root would be the machine's");
    };
    let lowest = (map.users().iter().chain(map.groups()))
        .map(|range| range.host)
        .min();
    match lowest {
        Some(0) => refuse("the ID map gives the container the machine's root"),
        Some(host) if host < OWN_IDS && !given => refuse(&format!(
            "the archived ID map gives the container users or groups of the machine, from {host} on"
        )),
        Some(_) | None => Ok(()),
    }
}

fn usable_rootfs(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| {
        path.is_absolute() && !text.chars().any(char::is_control) && text.trim() == *text
    });
    text.map(|text| format!("dir:{text}")).ok_or_else(|| {
        let what = format!(
            "{} cannot be a root file system in LXC's configuration",
            shown_path(path)
        );
        Error::new(ErrorKind::Invalid, what)
    })
}

fn wrong(number: usize, why: &str) -> Error {
    let why = shown(why.as_bytes());
    let what = format!("the archived configuration, line {number}: {why}");
    Error::new(ErrorKind::Invalid, what)
}

#[cfg(test)]
mod tests;
