//! `init`: a repository, its first key, and a recovery kit that was read back and tried.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use snapkeep_repo::{
    KeyFile, LocalStorage, Protect, RecoveryKit, Repository, SystemRandom, Unlock, limits,
};

use crate::args::Args;
use crate::{report, secrets};

pub(super) fn run(
    args: &Args,
    new_key_file: Option<&Path>,
    kit_path: &Path,
    no_encryption: bool,
) -> Result<()> {
    let folder = super::folder(args)?;
    let protect = if no_encryption {
        Protect::Open
    } else if let Some(path) = new_key_file {
        let key = KeyFile::generate(&SystemRandom)?;
        secrets::write(path, &format!("{}\n", *key.to_text()))?;
        Protect::KeyFile(key)
    } else {
        secrets::protect(args)?
    };
    let storage = Arc::new(LocalStorage::create(folder)?);
    let random = Arc::new(SystemRandom);
    let repository = Repository::init(
        Arc::clone(&storage) as _,
        Arc::clone(&random) as _,
        &protect,
        limits::CHUNK_DEFAULT,
    )
    .with_context(|| format!("cannot make the repository {}", folder.display()))?;
    let id = &repository.config().repository;
    let text = format!(
        "Recovery kit of the Snapkeep repository {id}.\nKeep it on paper, away from the repository. Whoever has it reads every archive.\n\n{}\n",
        *repository.recovery_kit().to_text()
    );
    secrets::write(kit_path, &text)?;
    let written = std::fs::read_to_string(kit_path)
        .with_context(|| format!("cannot read back {}", kit_path.display()))?;
    let kit: RecoveryKit = written.parse()?;
    Repository::open(storage, random, &Unlock::Recovery(kit))
        .context("the recovery kit that was written does not open the repository")?;
    report::line(&format!("made repository {id} in {}", folder.display()));
    report::line(&format!(
        "recovery kit written to {} and tested",
        kit_path.display()
    ));
    Ok(())
}
