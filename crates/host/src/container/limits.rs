//! Limits on what a container's files and outside programs decide.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A container's configuration, and each file that it includes, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// All that one configuration includes, in bytes.
pub const INCLUDED_BYTES_MAX: u64 = 4 << 20;
/// Files that one configuration includes.
pub const INCLUDED_FILES_MAX: usize = 256;
/// How deep configurations include each other.
pub const INCLUDE_DEPTH_MAX: usize = 8;
/// Entries of an included folder.
pub const INCLUDED_ENTRIES_MAX: usize = 4096;
/// Lines of one configuration with all that it includes.
pub const CONFIG_LINES_MAX: usize = 65_536;
/// Mounts of one container.
pub const MOUNTS_MAX: usize = 4096;
/// The kernel's table of what is mounted where, in bytes.
pub const MOUNT_TABLE_BYTES_MAX: u64 = 16 << 20;
/// What is kept of a program's words, from their end, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// A journal, in bytes.
pub const JOURNAL_BYTES_MAX: u64 = 256 << 10;
/// Journals in one folder of states.
pub const JOURNALS_MAX: usize = 10_000;
/// Things that one backup has changed and has to take back.
pub const STEPS_MAX: usize = 16;
/// Subvolumes in a subvolume whose names are told.
pub const NESTED_TOLD_MAX: usize = 16;
/// What a guard writes down, in bytes.
pub const GUARD_LOG_BYTES_MAX: usize = 64 << 10;
/// Folders of a failed restore that wait to be looked through for files that cannot be removed.
pub const FOLDERS_MAX: usize = 1 << 20;
/// Terminals of the machine that an archived configuration gives a container (`lxc.tty.max`).
pub const TTYS_MAX: u32 = 64;
/// Terminals inside a container (`lxc.pty.max`), of which the machine has all containers' to serve.
pub const PTYS_MAX: u32 = 4096;
/// Processes of the machine that are looked at for programs that a killed backup left.
pub const PROCESSES_MAX: usize = 1 << 20;

/// How long things may take.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Timeouts {
    /// A program that asks or changes something small: `lxc-info`, `lxc-freeze`, `btrfs`, `mount`.
    pub program: Duration,
    /// `lxc-start`, until the container runs.
    pub start: Duration,
    /// A clean shutdown.
    pub stop: Duration,
    /// How long a container is watched that was asked to stop, and did not in time: if it stops
    /// after all, it is started again.
    pub watch: Duration,
    /// The hook that makes and deletes snapshots, each time.
    pub hook: Duration,
    /// Until the guard says that it is there.
    pub guard: Duration,
    /// How long a guard tries again what does not succeed.
    pub retry: Duration,
    /// How long after a backup stopped a container the next one starts it again if neither it nor
    /// its guard did; later, somebody may have wanted it to be stopped.
    pub restart: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            program: Duration::from_secs(60),
            start: Duration::from_secs(120),
            stop: Duration::from_secs(120),
            watch: Duration::from_secs(300),
            hook: Duration::from_secs(600),
            guard: Duration::from_secs(30),
            retry: Duration::from_secs(600),
            restart: Duration::from_secs(24 * 3600),
        }
    }
}
