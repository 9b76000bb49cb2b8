//! What `copy` accepts.

use std::num::NonZeroU64;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args as Arguments;

use crate::units::parse_size;

/// `copy`
#[derive(Arguments, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(crate) struct Copy {
    /// The archives' names; or guests', for their newest archives.
    #[arg(value_name = "ARCHIVE", group = "which", conflicts_with = "all")]
    pub(crate) archives: Vec<String>,
    /// All archives of this guest in the namespace; may be given more than once.
    #[arg(
        long = "guest",
        value_name = "GUEST",
        group = "which",
        conflicts_with = "all"
    )]
    pub(crate) guests: Vec<String>,
    /// All archives of the repository, of all namespaces.
    #[arg(long, group = "which")]
    pub(crate) all: bool,
    /// Of each guest only so many of these archives, the newest.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) newest: Option<NonZeroUsize>,
    /// The repository that they are copied to: a folder, or a bucket as --repository names it.
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: PathBuf,
    /// A file that holds that one's passphrase.
    #[arg(long, value_name = "FILE", group = "to-secret")]
    pub(crate) to_passphrase_file: Option<PathBuf>,
    /// That one's key file.
    #[arg(long, value_name = "FILE", group = "to-secret")]
    pub(crate) to_key_file: Option<PathBuf>,
    /// A file that holds that one's recovery kit.
    #[arg(long, value_name = "FILE", group = "to-secret")]
    pub(crate) to_recovery_kit: Option<PathBuf>,
    /// Bytes per second that are read, such as 50MiB [default: no limit].
    #[arg(long, env = "SNAPKEEP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
}
