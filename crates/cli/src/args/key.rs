//! `key`

use std::path::PathBuf;

use clap::Subcommand;

/// `key`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List the keys.
    List,
    /// Add a passphrase (asked for on the terminal if no file is named) or a key file.
    Add {
        /// A file that holds the new passphrase.
        #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
        new_passphrase_file: Option<PathBuf>,
        /// Write a new key file here and add it.
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
        /// Whose it is, for people; it lies in the clear.
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
    },
    /// Add a key for a host that may only write: it backs up, lists, notes, protects and forgets,
    /// and reads nothing that guests hold.
    AddHost {
        /// What the host is called in `key list`; it lies in the clear.
        name: String,
        /// Write the host's key file here.
        #[arg(long, value_name = "FILE")]
        new_key_file: PathBuf,
    },
    /// Put a new passphrase (asked for on the terminal if no file is named) or a new key file in the
    /// place of the one that opens the repository now.
    Change {
        /// A file that holds the new passphrase.
        #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
        new_passphrase_file: Option<PathBuf>,
        /// Write a new key file here.
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
        /// Whose it is from now on [default: as before].
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
    },
    /// Write the recovery kit again, for paper. Whoever has it reads every archive.
    RecoveryKit {
        /// Write it here.
        #[arg(long, value_name = "FILE")]
        write: PathBuf,
    },
    /// Remove a key. The last one stays.
    Remove {
        /// Its name, as `key list` shows it.
        name: String,
    },
}
