//! Limits on everything that QEMU, or its monitor's peer, decides.

use std::time::Duration;

/// A monitor's message is at most this many bytes. The longest known one, the schema of QEMU 10,
/// has 240 thousand.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Events kept until somebody asks for them; the oldest go first.
pub const EVENTS_MAX: usize = 256;
/// Messages that may come before the reply to a command.
pub const MESSAGES_PER_REPLY_MAX: usize = 100_000;
/// Disks of one guest in one backup.
pub const DISKS_MAX: usize = 256;
/// Connections that QEMU's NBD server takes for one backup.
pub const NBD_CONNECTIONS_MAX: u32 = 256;
/// Bytes of a Unix socket's path, without the zero at its end (`sun_path` of Linux).
pub const SOCKET_PATH_MAX: usize = 107;
/// Unix sockets of the machine that are looked through for one whose path was removed.
pub const SOCKETS_MAX: usize = 1 << 20;
/// One cluster of our dirty bitmaps, in bytes: the default chunk size, so that no chunk is read for
/// the sake of half of it.
pub const BITMAP_GRANULARITY: u64 = 256 << 10;
/// Dirty bitmaps of ours that stay on one disk: one for each repository that a guest is backed up to.
pub const GENERATIONS_MAX: usize = 8;
/// Seconds until QEMU gives up a snapshot whose fleecing image cannot keep up; the guest's own
/// write waits so long at most.
pub const FLEECING_TIMEOUT_SECONDS: u32 = 45;
/// A backup does not begin with less free space for fleecing, in bytes.
pub const FLEECING_SPACE_MIN: u64 = 16 << 20;
/// Folders for fleecing that are made anew because somebody swept the one before.
pub const NEW_FOLDERS_MAX: usize = 100;
/// A folder without a lock that is younger is that of a backup that begins.
pub const BEGINNING_SECONDS: i64 = 60;
/// Entries of a fleecing folder that are looked at for what dead backups left there.
pub const SWEEP_ENTRIES_MAX: usize = 100_000;
/// Folders of dead backups that one backup removes.
pub const SWEPT_MAX: usize = 64;
/// File locks of the machine that are looked through for one's holder.
pub const FILE_LOCKS_MAX: usize = 1 << 20;
/// A configuration file of Proxmox VE, in bytes.
pub const PROXMOX_FILE_BYTES_MAX: u64 = 1 << 20;
/// Entries of its folders that are looked at: a few for each guest of a machine.
pub const PROXMOX_ENTRIES_MAX: usize = 100_000;
/// Open files of one process that are looked through for one.
pub const OPEN_FILES_MAX: usize = 1 << 20;
/// Folders of backups that are told of in one fleecing folder.
pub const FOLDERS_TOLD_MAX: usize = 1000;
/// Commands that QEMU may refuse while something is led past a filter, because it changed meanwhile.
pub const DETACH_REFUSALS_MAX: usize = 3;
/// Looks at block nodes that change all the time.
pub const GRAPH_LOOKS_MAX: usize = 5;
/// Devices and overlays of others that are led past a filter when it is taken back.
pub const ON_FILTER_MAX: usize = 64;
/// Exports of a killed backup that are taken back.
pub const LEFTOVERS_MAX: usize = 10_000;
/// The pause before a QEMU that fell silent is asked again: it doubles from the first to the last.
pub const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The log is told so often that QEMU is still silent.
pub const RECONNECT_NOTE: Duration = Duration::from_secs(60);

/// How long the monitor may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To greet a new connection. A monitor that serves somebody else does not greet.
    pub greeting: Duration,
    /// To answer a command that only asks or makes something small.
    pub command: Duration,
    /// To answer a command that waits for the guest's requests: `stop`, inserting, removing.
    pub drain: Duration,
    /// To close an export after it was told to.
    pub export: Duration,
    /// To answer again after it fell silent with something of a backup in it; what is there then
    /// stays until the next backup.
    pub reconnect: Duration,
}

impl Timeouts {
    /// For who looks at many monitors, of which one may belong to a QEMU that stands still. There
    /// is no second try.
    pub fn doctor() -> Self {
        Self {
            greeting: Duration::from_secs(5),
            command: Duration::from_secs(10),
            reconnect: Duration::ZERO,
            ..Self::default()
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(10),
            command: Duration::from_secs(30),
            drain: Duration::from_secs(120),
            export: Duration::from_secs(30),
            reconnect: Duration::from_secs(15 * 60),
        }
    }
}
