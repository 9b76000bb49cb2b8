//! What the command line accepts.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Backups of virtual machines: deduplicated, compressed, encrypted, incremental.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a verification found damage.
#[derive(Debug, Parser)]
#[command(name = "snapkeep", version)]
pub(crate) struct Args {
    /// The repository's folder.
    #[arg(long, short, env = "SNAPKEEP_REPOSITORY", global = true)]
    pub(crate) repository: Option<PathBuf>,
    /// A file that holds the passphrase.
    #[arg(
        long,
        env = "SNAPKEEP_PASSPHRASE_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// A key file, as `init --new-key-file` writes it.
    #[arg(long, env = "SNAPKEEP_KEY_FILE", global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// A file that holds the recovery kit.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) recovery_kit: Option<PathBuf>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a repository, with a recovery kit that is tested before it is trusted.
    Init {
        /// Write a new key file here and protect the repository with it.
        #[arg(long, value_name = "FILE", conflicts_with = "no_encryption")]
        new_key_file: Option<PathBuf>,
        /// Write the recovery kit here.
        #[arg(long, value_name = "FILE")]
        write_recovery_kit: PathBuf,
        /// Keep the key in the open: whoever has the repository reads it.
        #[arg(long)]
        no_encryption: bool,
    },
    /// List archives.
    List,
    /// Show one archive.
    Show {
        /// The archive's name.
        archive: String,
    },
    /// Restore one disk of an archive to a new raw file.
    Restore {
        /// The archive's name.
        archive: String,
        /// The device; may be left out if there is only one.
        #[arg(long)]
        device: Option<String>,
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Read everything, and prove it.
    Verify,
    /// List the repository's keys.
    Keys,
}
