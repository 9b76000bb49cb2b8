//! What `repair` accepts.

use std::path::PathBuf;

use clap::Args as Arguments;

/// `repair`
#[derive(Arguments, Debug)]
pub(crate) struct Repair {
    /// Do it. Without this flag it is only told what is damaged, what that affects and what can be
    /// done.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Write the index anew, by what the packs themselves say, and nothing else.
    #[arg(long, requires = "apply", conflicts_with_all = ["move_away", "config_file"])]
    pub(crate) rebuild_index: bool,
    /// Make the file `config` again, which was lost, from the recovery kit and any archive.
    #[arg(long = "lost-config", conflicts_with = "move_away")]
    pub(crate) config_file: bool,
    /// Move this file away that has a pack's name and that nobody knows; may be given more than once.
    #[arg(long, value_name = "FILE", requires_all = ["into", "apply"])]
    pub(crate) move_away: Vec<String>,
    /// The folder that it is moved to.
    #[arg(long, value_name = "FOLDER", requires = "move_away")]
    pub(crate) into: Option<PathBuf>,
}
