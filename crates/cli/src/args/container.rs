//! What the command line accepts for containers and their file trees.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args as Arguments, ValueEnum, value_parser};

use super::OfGuest;
use crate::units::{parse_share, parse_size};

/// Where LXC keeps its containers if it is not configured otherwise.
pub(crate) const LXC_PATH: &str = "/var/lib/lxc";

/// `backup container`
#[derive(Arguments, Debug)]
pub(crate) struct BackupContainer {
    /// The guest's name in the repository [default: the LXC container's].
    #[arg(long, value_name = "GUEST", required_unless_present = "lxc")]
    pub(crate) guest: Option<String>,
    /// An LXC container of this machine, by its name.
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "directory",
        conflicts_with = "directory"
    )]
    pub(crate) lxc: Option<String>,
    /// Where LXC keeps its containers [default: /var/lib/lxc].
    #[arg(long, value_name = "FOLDER", requires = "lxc")]
    pub(crate) lxc_path: Option<PathBuf>,
    /// A folder instead: the root of the file tree.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
    /// The user namespace that the folder's owners are of: CONTAINER:HOST:COUNT, such as
    /// 0:100000:65536; may be given more than once [default: none, owners are as they are].
    #[arg(long, value_name = "MAP", requires = "directory")]
    pub(crate) idmap: Vec<String>,
    /// Only this folder of the tree, a mount point below it; may be given more than once
    /// [default: the root, without other file systems].
    #[arg(long = "source", value_name = "PATH")]
    pub(crate) sources: Vec<OsString>,
    /// Leave out what matches: with a leading slash from the tree's root, otherwise at any depth;
    /// may be given more than once.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<OsString>,
    /// Keep what is left out otherwise: what lies in /tmp and /var/tmp, and /var/run/*.pid.
    #[arg(long)]
    pub(crate) no_default_excludes: bool,
    /// How the container is kept from changing its files meanwhile.
    #[arg(long, value_enum, default_value_t = Mode::Auto, conflicts_with = "directory")]
    pub(crate) mode: Mode,
    /// A program, by its absolute path, that makes and deletes snapshots where that is not built in.
    #[arg(long, value_name = "PROGRAM", requires = "lxc")]
    pub(crate) snapshot_hook: Option<PathBuf>,
    /// What is read again: all, or what looks changed since the newest archive.
    #[arg(long, value_enum, default_value_t = Detection::Metadata)]
    pub(crate) change_detection: Detection,
    /// Read so many percent of what looks unchanged all the same, and tell what was changed; not
    /// where all is read.
    #[arg(long, value_name = "PERCENT", value_parser = parse_share)]
    pub(crate) audit: Option<u16>,
    #[command(flatten)]
    pub(crate) of_guest: OfGuest,
}

/// How a container is kept from changing its files during a backup.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// A snapshot where the file system has them, otherwise suspended.
    Auto,
    /// Back up a snapshot of its file system.
    Snapshot,
    /// Freeze it meanwhile.
    Suspend,
    /// Stop it, and start it again.
    Stop,
}

/// What is read of a tree that was backed up before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Detection {
    /// Everything.
    Data,
    /// What has another size, time or inode than in the newest archive.
    Metadata,
}

/// `restore container`
#[derive(Arguments, Debug)]
pub(crate) struct RestoreContainer {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// Restore into this folder, which is empty or made.
    #[arg(long, value_name = "FOLDER", required_unless_present_any = ["tar", "lxc"], conflicts_with_all = ["tar", "lxc"])]
    pub(crate) to: Option<PathBuf>,
    /// Write a tar archive to this file; - is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "lxc")]
    pub(crate) tar: Option<PathBuf>,
    /// Make a new LXC container of this name.
    #[arg(long, value_name = "NAME")]
    pub(crate) lxc: Option<String>,
    /// Where LXC keeps its containers [default: /var/lib/lxc].
    #[arg(long, value_name = "FOLDER", requires = "lxc")]
    pub(crate) lxc_path: Option<PathBuf>,
    /// Keep what of the archived configuration can hurt this host, such as hooks and mounts of its
    /// folders.
    #[arg(long, requires = "lxc")]
    pub(crate) allow_unsafe: bool,
    /// Allow a container whose root user is this host's.
    #[arg(long, requires = "lxc")]
    pub(crate) allow_privileged: bool,
    #[command(flatten)]
    pub(crate) how: Extraction,
}

/// `extract`
#[derive(Arguments, Debug)]
pub(crate) struct Extract {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// Files and folders of the container.
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Extract into this folder: each by its own path below it.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) how: Extraction,
}

/// How a tree is written to a folder.
#[derive(Arguments, Debug)]
pub(crate) struct Extraction {
    /// Give files to these owners of the host: CONTAINER:HOST:COUNT, such as 0:100000:65536; may be
    /// given more than once [default: the numbers as they are].
    #[arg(long, value_name = "MAP")]
    pub(crate) idmap: Vec<String>,
    /// Give files whose owner or group is in no map to this ID of the host, such as 65534 [default:
    /// end at the first].
    #[arg(long, value_name = "ID", value_parser = value_parser!(u32).range(..4_294_967_295))]
    pub(crate) unmapped: Option<u32>,
    /// Make devices also for a container with an ID map: its users could open this host's disks by
    /// them.
    #[arg(long)]
    pub(crate) allow_devices: bool,
    /// Write over what is there.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Bytes per second, such as 50MiB [default: no limit].
    #[arg(long, env = "SNAPKEEP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
}

/// `ls`
#[derive(Arguments, Debug)]
pub(crate) struct Ls {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// A file or folder of the container.
    #[arg(default_value = "/")]
    pub(crate) path: OsString,
    /// Also kind, permissions, owner, group, size and time.
    #[arg(long, short)]
    pub(crate) long: bool,
    /// Also what is below the folder's folders.
    #[arg(long, short = 'R')]
    pub(crate) recursive: bool,
}

/// `cat`
#[derive(Arguments, Debug)]
pub(crate) struct Cat {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// A file of the container.
    pub(crate) path: OsString,
}

/// `find`
#[derive(Arguments, Debug)]
pub(crate) struct Find {
    /// The guest.
    pub(crate) guest: String,
    /// As in --exclude: with a leading slash from the tree's root, otherwise at any depth.
    pub(crate) pattern: OsString,
}

/// `diff`
#[derive(Arguments, Debug)]
pub(crate) struct Diff {
    /// The older archive, by its name.
    pub(crate) old: String,
    /// The newer archive, by its name; or a guest's, for its newest archive.
    pub(crate) new: String,
}

/// `mount`
#[derive(Arguments, Debug)]
pub(crate) struct Mount {
    /// An empty folder.
    pub(crate) target: PathBuf,
    /// Only this archive's file tree: its name; or a guest's, for its newest archive
    /// [default: the whole repository].
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) archive: Option<String>,
    /// Let other users look into it, too.
    #[arg(long)]
    pub(crate) allow_other: bool,
}
