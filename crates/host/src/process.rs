//! Whose process answers a monitor.

use std::os::unix::net::UnixStream;

/// The process at the other end of a monitor's socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    /// Its process ID and start time, in clock ticks since boot, if it surely is a QEMU.
    process: Option<(u32, u64)>,
    /// Its user and group.
    pub(crate) user: Option<(u32, u32)>,
}

impl Owner {
    pub(crate) fn incarnation(&self) -> Option<(u32, u64)> {
        self.process
    }
}

/// Who opened the other end. That may have been a process that handed the socket over to QEMU, or
/// that is gone: a process counts only if it is there and calls itself a QEMU (`kvm` on Proxmox VE).
pub(crate) fn owner(stream: &UnixStream) -> Owner {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(stream) else {
        return Owner::default();
    };
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok();
    let process = pid.and_then(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, start_time(&stat)?))
    });
    Owner {
        process,
        user: Some((credentials.uid.as_raw(), credentials.gid.as_raw())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
