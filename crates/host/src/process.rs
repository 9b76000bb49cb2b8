//! Whose process answers a monitor, and what that process may do.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags};
use snapkeep_api::Process;

use crate::limits::{FILE_LOCKS_MAX, OPEN_FILES_MAX};

/// The process at the other end of a monitor's socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    /// The process, if it surely is a QEMU.
    process: Option<Process>,
    /// As which user and group it opens files.
    pub(crate) user: Option<(u32, u32)>,
}

impl Owner {
    pub(crate) fn incarnation(&self) -> Option<Process> {
        self.process
    }

    /// The process as a line that [`lives`] understands; empty if it is not known.
    pub(crate) fn line(&self) -> String {
        self.process.map_or(String::new(), |process| {
            let boot = u128::from_be_bytes(process.boot);
            format!("{boot:032x} {} {}\n", process.id, process.start)
        })
    }

    /// Whether the process sees something at an absolute path, if it is known: it may have other file
    /// systems than this one.
    pub(crate) fn sees(&self, path: &Path) -> Option<io::Result<bool>> {
        let mut there = OsString::from(format!("/proc/{}/root/", self.process?.id));
        there.push(path);
        Some(match std::fs::symlink_metadata(there) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
    }

    /// Whether the process has surely ended, and with it everything that was in its memory.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(process) = self.process else {
            return false;
        };
        match std::fs::read_to_string(format!("/proc/{}/stat", process.id)) {
            Ok(stat) => is_corpse(&stat) || start_time(&stat) != Some(process.start),
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Whether somebody holds the exclusive lock of a file (`flock`), as the kernel lists it. It is not
/// taken, and so nobody who is about to take it fails. That list may name another device than the file
/// does: at worst another file's lock is taken for this one's.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    Ok(!holders(file)?.is_empty())
}

/// The process that holds the exclusive lock of a file, if it has that open.
pub(crate) fn lock_holder(file: &File) -> Option<u32> {
    let about = file.metadata().ok()?;
    let about = (about.dev(), about.ino());
    let has_it = |process: &u32| {
        let open = std::fs::read_dir(format!("/proc/{process}/fd"));
        let mut open = open.into_iter().flatten().take(OPEN_FILES_MAX).flatten();
        open.any(|entry| identity(&entry.path()) == Some(about))
    };
    holders(file).ok()?.into_iter().find(has_it)
}

/// Device and inode of a file that some process has open, by its link in `/proc/PROCESS/fd`. Whoever
/// serves the file is not asked, as `stat` does: a server that is gone would never answer.
pub fn identity(link: &Path) -> Option<(u64, u64)> {
    let (flags, mask) = (AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
    let found = rustix::fs::statx(rustix::fs::CWD, link, flags, mask).ok()?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Some((device, found.stx_ino))
}

fn holders(file: &File) -> io::Result<Vec<u32>> {
    let inode = format!(":{}", file.metadata()?.ino());
    let lines = BufReader::new(File::open("/proc/locks")?).lines();
    let mut holders = Vec::new();
    for line in lines.take(FILE_LOCKS_MAX) {
        holders.extend(holder(&line?, &inode));
    }
    Ok(holders)
}

/// A line is `NUMBER: KIND MODE ACCESS PROCESS DEVICE:INODE START END`.
fn holder(line: &str, inode: &str) -> Option<u32> {
    let mut parts = line.split_ascii_whitespace().skip(1);
    let (kind, _mode, access) = (parts.next()?, parts.next()?, parts.next()?);
    let (process, of) = (parts.next()?, parts.next()?);
    let found = kind == "FLOCK" && access == "WRITE" && of.ends_with(inode);
    found.then(|| process.parse().ok()).flatten()
}

/// The process that a line names, there or not.
pub(crate) fn named(line: &str) -> Option<u32> {
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether the process that a line names is there.
pub(crate) fn lives(line: &str) -> bool {
    let mut parts = line.split_ascii_whitespace();
    let named = parts.next().and_then(boot_id).and_then(|boot| {
        let (id, start) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Process { boot, id, start })
    });
    let Some(process) = named.filter(|process| this_boot() == Some(process.boot)) else {
        return false;
    };
    let owner = Owner {
        process: Some(process),
        user: None,
    };
    !owner.has_ended()
}

fn this_boot() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    boot_id(&text)
}

/// Who opened the other end. That may have been a process that handed the socket over to QEMU, or
/// that is gone: a process counts only if it is there and calls itself a QEMU (`kvm` on Proxmox VE).
///
/// The socket tells who opened it, which is often root, and QEMU gives up its rights only then
/// (`-run-with user=`): its own are asked for. Of a QEMU that is not known, the opener's are the
/// best guess.
pub(crate) fn owner(stream: &UnixStream) -> Owner {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(stream) else {
        return Owner::default();
    };
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok();
    let process = pid.and_then(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Process {
            boot: this_boot()?,
            id: pid,
            start: start_time(&stat)?,
        })
    });
    let opener = (credentials.uid.as_raw(), credentials.gid.as_raw());
    let now = process.and_then(|process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id)).ok()?;
        Some((file_id(&status, "Uid:")?, file_id(&status, "Gid:")?))
    });
    Owner {
        process,
        user: Some(now.unwrap_or(opener)),
    }
}

/// The last of the four numbers in a line of `/proc/PID/status`: with it files are opened.
fn file_id(status: &str, field: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Field 22 of `/proc/PID/stat`, if field 2, the name, is QEMU's. The name is in parentheses, and
/// may have some in it.
fn start_time(stat: &str) -> Option<u64> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    if !name.starts_with("qemu") && name != "kvm" {
        return None;
    }
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether field 3 of `/proc/PID/stat` says that only the parent has not taken notice.
fn is_corpse(stat: &str) -> bool {
    let after = stat.rsplit_once(')').map(|(_, after)| after.trim_start());
    after.is_some_and(|after| after.starts_with(['Z', 'X']))
}

/// The bytes of a boot ID, written as a UUID.
fn boot_id(text: &str) -> Option<[u8; 16]> {
    let digits = text.trim_end().replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_the_bytes_of_its_digits() {
        let found = boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(found[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!(found[12..], [0xcc, 0xdd, 0xee, 0xff]);
        assert_eq!(boot_id("00112233\n"), None);
        assert_eq!(boot_id(""), None);
        let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(boot_id(&here).is_some(), "{here}");
    }

    #[test]
    fn files_are_opened_with_the_last_of_four_numbers() {
        let status = "Name:\tqemu\nTgid:\t7\nUid:\t0\t1\t2\t3\nGid:\t4\t5\t6\t4294967295\n";
        assert_eq!(file_id(status, "Uid:"), Some(3));
        assert_eq!(file_id(status, "Gid:"), Some(u32::MAX));
        assert_eq!(file_id("Uid:\t0\t1\t2\n", "Uid:"), None);
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(file_id(&own, "Uid:"), Some(user));
    }

    #[test]
    fn a_process_that_only_opened_the_socket_is_no_qemu() {
        let folder = tempfile::TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let owner = owner(&UnixStream::connect(&socket).unwrap());
        assert!(owner.process.is_none(), "{owner:?}");
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(owner.user.map(|(user, _)| user), Some(user));
    }

    #[test]
    fn an_open_file_is_the_one_that_stat_tells() {
        let file = tempfile::tempfile().unwrap();
        let about = file.metadata().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let link = format!("/proc/self/fd/{number}");
        let found = identity(Path::new(&link));
        assert_eq!(found, Some((about.dev(), about.ino())));
        drop(file);
        assert_eq!(identity(Path::new("/proc/self/fd/absent")), None);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_among_others() {
        let line = "7: FLOCK  ADVISORY  WRITE 4242 00:2a:1234 0 EOF";
        assert_eq!(holder(line, ":1234"), Some(4242));
        for other in [
            "7: FLOCK  ADVISORY  WRITE 4242 00:2a:12345 0 EOF",
            "7: FLOCK  ADVISORY  READ 4242 00:2a:1234 0 EOF",
            "7: POSIX  ADVISORY  WRITE 4242 00:2a:1234 0 EOF",
            "7: -> FLOCK  ADVISORY  WRITE 4242 00:2a:1234 0 EOF",
            "",
        ] {
            assert_eq!(holder(other, ":1234"), None, "{other}");
        }
    }

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let numbers = (3..=30)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(start_time(&format!("12 (qemu-x) (86) {numbers}")), Some(22));
        assert_eq!(start_time(&format!("12 (libvirtd) {numbers}")), None);
        assert_eq!(start_time("12 (kvm) S 1"), None);
    }
}
