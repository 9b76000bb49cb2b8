//! One life of a process: process IDs come again, and start times after a reboot.

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

/// A process, so that no other is equal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Life {
    /// The kernel's boot ID.
    boot: String,
    id: u32,
    /// In clock ticks since boot.
    start: u64,
}

impl Life {
    /// The process that has this ID now.
    pub(super) fn of(id: u32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let start = running_since(&stat)?;
        let boot = boot.trim_end().to_owned();
        Some(Self { boot, id, start })
    }

    /// This process.
    pub(super) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether it has surely ended.
    pub(super) fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id));
        match stat {
            Ok(_) => Self::of(self.id).as_ref() != Some(self),
            Err(e) => {
                let while_read = e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
                e.kind() == ErrorKind::NotFound || while_read
            }
        }
    }
}

/// Field 22 of `/proc/PID/stat`, unless only the parent has not taken notice of the end. Field 2 is
/// a name in parentheses, which may have some in it.
fn running_since(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends_and_no_other_is_it() {
        let own = Life::own().unwrap();
        assert!(!own.has_ended());
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let life = Life::of(child.id()).unwrap();
        assert!(!life.has_ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(life.has_ended());
        let earlier = Life {
            start: own.start - 1,
            ..own
        };
        assert!(earlier.has_ended());
    }

    #[test]
    fn the_start_is_found_behind_an_odd_name() {
        let numbers: Vec<_> = (4..=30).map(|n| n.to_string()).collect();
        let numbers = numbers.join(" ");
        assert_eq!(running_since(&format!("1 (a) b (c) S {numbers}")), Some(22));
        assert_eq!(running_since(&format!("1 (a) Z {numbers}")), None);
        assert_eq!(running_since("1 (a"), None);
    }
}
