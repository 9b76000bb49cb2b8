//! One life of a process, and one moment: process IDs come again, and times since boot after a
//! reboot.

use std::io::ErrorKind;
use std::time::Duration;

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
        let boot = boot()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let start = running_since(&stat)?;
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
            Ok(stat) => boot()
                .is_some_and(|boot| boot != self.boot || running_since(&stat) != Some(self.start)),
            Err(e) => {
                let while_read = e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
                e.kind() == ErrorKind::NotFound || while_read
            }
        }
    }
}

/// A moment of one boot: whoever sets the clock does not move it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Moment {
    /// The kernel's boot ID.
    boot: String,
    /// Since boot, also while the machine slept.
    seconds: u64,
}

impl Moment {
    pub(super) fn now() -> Option<Self> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let seconds = uptime.split('.').next()?.parse().ok()?;
        Some(Self {
            boot: boot()?,
            seconds,
        })
    }

    /// Whether it surely was in this boot, and less than this ago.
    pub(super) fn is_within(&self, age: Duration) -> bool {
        let Some(now) = Self::now().filter(|now| now.boot == self.boot) else {
            return false;
        };
        let passed = now.seconds.checked_sub(self.seconds);
        passed.is_some_and(|passed| passed < age.as_secs())
    }
}

fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim_end().to_owned())
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
    fn a_moment_is_not_long_ago_in_its_own_boot_only() {
        let hour = Duration::from_secs(3600);
        let now = Moment::now().unwrap();
        assert!(now.is_within(hour));
        assert!(!now.is_within(Duration::ZERO));
        let (boot, seconds) = ("another".to_owned(), now.seconds);
        assert!(!Moment { boot, seconds }.is_within(hour));
        // What is to come was never.
        let seconds = now.seconds + 1000;
        assert!(!Moment { seconds, ..now }.is_within(hour));
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
