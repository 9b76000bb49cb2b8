//! What the command line accepts.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};
use snapkeep_s3::LockMode;

use crate::units::parse_size;

pub(crate) mod conformance;
pub(crate) mod container;
pub(crate) mod copy;
pub(crate) mod forget;
pub(crate) mod key;
pub(crate) mod prune;
pub(crate) mod repair;
pub(crate) mod verify;

use conformance::Conformance;
use container::{BackupContainer, Cat, Diff, Extract, Find, Ls, Mount, RestoreContainer};
use copy::Copy;
use forget::Forget;
use key::Key;
use prune::Prune;
use repair::Repair;
use verify::Verify;

/// Backups of virtual machines and containers: deduplicated, compressed, encrypted, incremental.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 damage was found; 4 cancelled;
/// 5 a repository, archive, guest, disk or file is not there; 6 the key does not open the repository,
/// or its format is newer than this program; 7 done, but not all could be read or written; 8 `diff`
/// found differences; 9 `doctor` found what is still there, or could not look everywhere.
#[derive(Debug, Parser)]
#[command(name = "snapkeep", version)]
pub(crate) struct Args {
    /// What every verb knows.
    #[command(flatten)]
    pub(crate) common: Common,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Arguments, Clone, Debug)]
pub(crate) struct Common {
    /// The configuration file [default: /etc/snapkeep/config.toml, if it is there].
    #[arg(long, env = "SNAPKEEP_CONFIG", global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The repository: a folder, or a bucket of S3 as `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`.
    #[arg(
        long,
        short,
        env = "SNAPKEEP_REPOSITORY",
        global = true,
        value_name = "PLACE"
    )]
    pub(crate) repository: Option<PathBuf>,
    /// A file that holds the passphrase [env: `SNAPKEEP_PASSPHRASE_FILE`].
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// A key file, as `init --new-key-file` writes it [env: `SNAPKEEP_KEY_FILE`].
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) key_file: Option<PathBuf>,
    /// A file that holds the recovery kit [env: `SNAPKEEP_RECOVERY_KIT`].
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub(crate) recovery_kit: Option<PathBuf>,
    /// The part of the repository that this host writes [default: main].
    #[arg(long, env = "SNAPKEEP_NAMESPACE", global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Threads that read, compress, encrypt and write [default: two for each processor, 2 to 16].
    #[arg(long, env = "SNAPKEEP_WORKERS", global = true, value_name = "NUMBER",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Option<u16>,
    /// Where this host keeps what outlives a killed backup of a container
    /// [default: /var/lib/snapkeep].
    #[arg(long, env = "SNAPKEEP_STATE", global = true, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// Keep nothing of a bucket in the cache on this host.
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// Print the result, or the error, as one JSON object.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no remarks on standard error, only what fails.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a repository, with a recovery kit that is tested before it is trusted.
    Init(Init),
    /// Back up a guest.
    #[command(subcommand)]
    Backup(Backup),
    /// List archives.
    List(List),
    /// Tell what the repository holds, in numbers.
    Stats,
    /// Show one archive.
    Show(Show),
    /// Restore a guest.
    #[command(subcommand)]
    Restore(Restore),
    /// Read everything, or a part of it, and prove it.
    Verify(Verify),
    /// Tell what is damaged and what that affects; with --apply, heal what can be healed.
    Repair(Repair),
    /// Copy archives to another repository, which has keys of its own.
    Copy(Copy),
    /// Find what killed jobs left on this host.
    Doctor(Doctor),
    /// Write notes for an archive.
    Note(Note),
    /// Keep archives from being forgotten.
    Protect(Named),
    /// Let archives be forgotten again.
    Unprotect(Named),
    /// Take archives out of all lists: by name, or those that a retention policy does not keep.
    Forget(Forget),
    /// Free the space of what no archive needs.
    Prune(Prune),
    /// List, add and remove what opens the repository.
    #[command(subcommand)]
    Key(Key),
    /// Offer archives without restoring them.
    #[command(subcommand)]
    Nbd(Nbd),
    /// List files of a container's archive.
    Ls(Ls),
    /// Print a file of a container's archive.
    Cat(Cat),
    /// Look for files in all archives of a container.
    Find(Find),
    /// Compare the files of two archives.
    Diff(Diff),
    /// Write files of a container's archive to a folder.
    Extract(Extract),
    /// Mount a repository, or one archive, read-only, until interrupted or unmounted.
    Mount(Mount),
    /// Check which properties of the contract a backup provider has.
    Conformance(Conformance),
    /// For who makes a package: writes the manual pages and the shells' completions.
    #[command(hide = true)]
    Generate {
        /// An empty or new folder.
        folder: PathBuf,
    },
    /// Started by this program itself: the walker of a container's files.
    #[command(hide = true)]
    Walk,
    /// Started by the plugin for Proxmox VE, which it serves over standard input.
    #[command(hide = true)]
    Provider,
    /// Started by this program itself: takes back what a killed backup left.
    #[command(hide = true)]
    Guard {
        /// What it watches.
        #[arg(num_args = 2)]
        watched: Vec<OsString>,
    },
}

/// `init`
#[derive(Arguments, Debug)]
pub(crate) struct Init {
    /// Write a new key file here and protect the repository with it.
    #[arg(long, value_name = "FILE", conflicts_with = "no_encryption")]
    pub(crate) new_key_file: Option<PathBuf>,
    /// Write the recovery kit here.
    #[arg(long, value_name = "FILE")]
    pub(crate) write_recovery_kit: PathBuf,
    /// Keep the key in the open: whoever has the repository reads it.
    #[arg(long)]
    pub(crate) no_encryption: bool,
    /// Lock each object for so many days, so that nobody can remove it before; the bucket must have Object Lock.
    #[arg(long, value_name = "DAYS")]
    pub(crate) object_lock: Option<u32>,
    /// Whom locks bind: compliance (everybody, also the owner of the account) or governance (all but who may
    /// pass over it) [default: compliance].
    #[arg(long, value_name = "MODE", requires = "object_lock")]
    pub(crate) object_lock_mode: Option<LockMode>,
}

/// `backup`
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Back up the disks of a virtual machine that runs in QEMU, as they are at one instant.
    Vm(BackupVm),
    /// Back up the files of a container.
    Container(BackupContainer),
}

/// `backup vm`
#[derive(Arguments, Debug)]
pub(crate) struct BackupVm {
    /// The guest's name in the repository.
    #[arg(long, value_name = "GUEST")]
    pub(crate) guest: String,
    /// The socket of a monitor that is for backups alone: -qmp unix:SOCKET,server=on,wait=off
    #[arg(long, value_name = "SOCKET")]
    pub(crate) qmp: Option<PathBuf>,
    /// The socket of the NBD server that this QEMU runs already, if it does: it has one at most.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) nbd_server: Option<PathBuf>,
    /// Only this disk, by its device name; may be given more than once [default: all that the guest
    /// writes].
    #[arg(long = "disk", value_name = "DEVICE")]
    pub(crate) disks: Vec<String>,
    /// Where old data goes that the guest overwrites during the backup; up to as much as its disks
    /// have [default: /var/tmp].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) fleecing: Option<PathBuf>,
    /// Read everything, although it is known what changed.
    #[arg(long)]
    pub(crate) full: bool,
    #[command(flatten)]
    pub(crate) of_guest: OfGuest,
}

/// What backups of both kinds of guests take, and the configuration has for each guest, too.
#[derive(Arguments, Debug)]
pub(crate) struct OfGuest {
    /// Keep this file as the guest's configuration [default: an LXC container's own].
    #[arg(long, value_name = "FILE")]
    pub(crate) guest_config: Option<PathBuf>,
    /// Keep this file as the firewall's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) firewall_config: Option<PathBuf>,
    /// Bytes per second, such as 50MiB [default: no limit].
    #[arg(long, env = "SNAPKEEP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
}

/// `list`
#[derive(Arguments, Debug)]
pub(crate) struct List {
    /// Only archives of this guest in the namespace.
    #[arg(long, value_name = "GUEST")]
    pub(crate) guest: Option<String>,
    /// Those that were forgotten instead, which `forget --undo` takes back.
    #[arg(long)]
    pub(crate) forgotten: bool,
}

/// `show`
#[derive(Arguments, Debug)]
pub(crate) struct Show {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// Print the guest's configuration instead, byte for byte.
    #[arg(long, conflicts_with = "json")]
    pub(crate) guest_config: bool,
    /// Print the log of the backup instead, as it was kept.
    #[arg(long, conflicts_with_all = ["json", "guest_config"])]
    pub(crate) log: bool,
}

/// `note`
#[derive(Arguments, Debug)]
#[command(group = clap::ArgGroup::new("notes").required(true))]
pub(crate) struct Note {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// The notes, in place of those that are there.
    #[arg(group = "notes")]
    pub(crate) text: Option<String>,
    /// A file that holds the notes.
    #[arg(long, group = "notes", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Remove the notes.
    #[arg(long, group = "notes")]
    pub(crate) remove: bool,
}

/// `protect` and `unprotect`
#[derive(Arguments, Debug)]
pub(crate) struct Named {
    /// The archives' names; or guests', for their newest archives.
    #[arg(required = true, value_name = "ARCHIVE")]
    pub(crate) archives: Vec<String>,
}

/// `restore`
#[derive(Debug, Subcommand)]
pub(crate) enum Restore {
    /// Restore disks of a virtual machine.
    Vm(RestoreVm),
    /// Restore the files of a container.
    Container(RestoreContainer),
}

/// `restore vm`
#[derive(Arguments, Debug)]
pub(crate) struct RestoreVm {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// The disk, by its device name; may be given more than once with --into [default: all].
    #[arg(long = "disk", value_name = "DEVICE")]
    pub(crate) disks: Vec<String>,
    /// Restore one disk to this file or block device.
    #[arg(long, value_name = "FILE", required_unless_present = "into")]
    pub(crate) to: Option<PathBuf>,
    /// Restore into this folder: DEVICE.FORMAT for each disk, guest.conf, firewall.conf.
    #[arg(long, value_name = "FOLDER", conflicts_with = "to")]
    pub(crate) into: Option<PathBuf>,
    /// The format to write; every one but raw needs qemu-img.
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) format: String,
    /// Write raw disks through qemu-img, too.
    #[arg(long)]
    pub(crate) qemu_img: bool,
    /// Replace what is there; without it an existing file or a block device is refused.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Bytes per second, such as 50MiB [default: no limit].
    #[arg(long, env = "SNAPKEEP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
}

/// `doctor`
#[derive(Arguments, Debug)]
pub(crate) struct Doctor {
    /// Heal what a killed job of ours left. What a job uses, or another product made, is let alone.
    #[arg(long)]
    pub(crate) heal: bool,
    /// Take the repository as it is, although archives are gone that this host remembers.
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    /// The socket of a QEMU's monitor; may be given more than once [default: those of Proxmox VE and
    /// of the configuration's guests, as far as they run].
    #[arg(long, value_name = "SOCKET")]
    pub(crate) qmp: Vec<PathBuf>,
    /// A folder that backups were given with --fleecing; may be given more than once [default:
    /// /var/tmp, and those of the configuration].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) fleecing: Vec<PathBuf>,
    /// Where restores of Proxmox VE are mounted [default: /run/snapkeep].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run_folder: Option<PathBuf>,
    /// Of all other mounts only those below this folder [default: /].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) mounts: Option<PathBuf>,
}

/// `nbd`
#[derive(Debug, Subcommand)]
pub(crate) enum Nbd {
    /// Serve the disks of an archive, read-only, until interrupted.
    Serve(Serve),
}

/// `nbd serve`
#[derive(Arguments, Debug)]
pub(crate) struct Serve {
    /// The archive's name; or a guest's, for its newest archive.
    pub(crate) archive: String,
    /// Only this disk, by its device name; may be given more than once [default: all].
    #[arg(long = "disk", value_name = "DEVICE")]
    pub(crate) disks: Vec<String>,
    /// The Unix socket to listen on.
    #[arg(long, value_name = "PATH", required_unless_present = "listen")]
    pub(crate) socket: Option<PathBuf>,
    /// The loopback address to listen on, such as 127.0.0.1:10809; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "socket")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}
