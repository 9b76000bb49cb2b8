//! `generate`: the manual pages and the shells' completions, from what the command line accepts.
//!
//! A page for the program, with what flags do not tell, and one for each verb; what is hidden is
//! in none, and is completed by no shell.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Args;

/// What flags do not tell: files, the environment, examples.
const MORE: &str = include_str!("generate/more.roff");

/// The shells, each with the name that it looks for.
const SHELLS: &[(Shell, &str)] = &[
    (Shell::Bash, "snapkeep"),
    (Shell::Zsh, "_snapkeep"),
    (Shell::Fish, "snapkeep.fish"),
];

/// Writes into `man/`, and into a folder with the name of each shell.
pub(super) fn run(folder: &Path) -> Result<()> {
    let command = visible(&Args::command());
    let pages = folder.join("man");
    make(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)
        .with_context(|| format!("could not write to {}", pages.display()))?;
    write(&pages.join("snapkeep.1"), &page(&command)?)?;
    for (shell, name) in SHELLS {
        let place = folder.join(shell.to_string());
        make(&place)?;
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut command.clone(), "snapkeep", &mut script);
        write(&place.join(name), &script)?;
    }
    Ok(())
}

/// The command without its hidden verbs, which the completions would have otherwise.
fn visible(command: &Command) -> Command {
    let mut shown = Command::new("snapkeep")
        .about(command.get_about().cloned().unwrap_or_default())
        .long_about(command.get_long_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned());
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        shown = shown.subcommand(verb.clone());
    }
    shown
}

/// The page of the program.
fn page(command: &Command) -> Result<Vec<u8>> {
    let mut built = command.clone().disable_help_subcommand(true);
    built.build();
    let man = Man::new(built);
    let mut page = Vec::new();
    man.render(&mut page).context("could not make the page")?;
    page.extend_from_slice(MORE.as_bytes());
    Ok(page)
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("could not write {}", path.display()))
}
