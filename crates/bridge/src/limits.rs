//! Every bound of the bridge.

/// The longest message, with its newline, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How much is received at once, in bytes.
pub(crate) const RECEIVE_BYTES: usize = 64 << 10;

/// The longest `id` of a message, in bytes: two numbers and a hyphen.
pub(crate) const ID_BYTES_MAX: usize = 64;

/// The most lines of the log that wait for the next call.
pub(crate) const LOG_LINES_MAX: usize = 1000;

/// The longest line of the log, or message of an error, in bytes; of a longer one the end is cut off.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 10;

/// The largest VMID of Proxmox VE.
pub(crate) const VMID_MAX: u32 = 999_999_999;

/// The most dirty regions of all volumes of a guest: 64 MiB of memory.
pub(crate) const REGIONS_MAX: usize = 4 << 20;

/// The most dirty regions in one message.
pub(crate) const REGIONS_MESSAGE_MAX: usize = 10_000;

/// The most volumes of a guest: Proxmox VE has names for fewer than 100.
pub(crate) const VOLUMES_MAX: usize = 512;

/// The most that is read of a file in `/proc`, in bytes.
pub(crate) const PROC_BYTES_MAX: u64 = 1 << 20;

/// The most that is read of the list of all Unix sockets, in bytes: about 100,000 of them.
pub(crate) const SOCKETS_BYTES_MAX: u64 = 16 << 20;

/// The most restores at once: a process of Proxmox VE does one.
pub(crate) const RESTORES_MAX: usize = 16;

/// The most folders that are looked at for what the dead left.
pub(crate) const RUN_FOLDERS_MAX: usize = 10_000;
