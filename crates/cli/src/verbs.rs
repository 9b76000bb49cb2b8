//! One function for each verb.

mod init;
mod restore;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use snapkeep_repo::{LocalStorage, Repository, SnapshotName, SystemRandom, Unlock, verify};

use crate::args::{Args, Verb};
use crate::{report, secrets};

/// Runs a verb; the exit code if it did not fail.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.verb {
        Verb::Init {
            new_key_file,
            write_recovery_kit,
            no_encryption,
        } => {
            init::run(
                args,
                new_key_file.as_deref(),
                write_recovery_kit,
                *no_encryption,
            )?;
        }
        Verb::List => list(args)?,
        Verb::Show { archive } => show(args, archive)?,
        Verb::Restore {
            archive,
            device,
            to,
        } => {
            restore::run(args, archive, device.as_deref(), to)?;
        }
        Verb::Verify => return run_verify(args),
        Verb::Keys => keys(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn folder(args: &Args) -> Result<&std::path::Path> {
    args.repository
        .as_deref()
        .context("no repository was named: give --repository or SNAPKEEP_REPOSITORY")
}

fn open(args: &Args) -> Result<Arc<Repository>> {
    let folder = folder(args)?;
    let storage = Arc::new(LocalStorage::open(folder)?);
    let random = Arc::new(SystemRandom);
    let nothing_given =
        args.passphrase_file.is_none() && args.key_file.is_none() && args.recovery_kit.is_none();
    if nothing_given
        && let Ok(repository) = Repository::open(
            Arc::clone(&storage) as _,
            Arc::clone(&random) as _,
            &Unlock::Open,
        )
    {
        return Ok(Arc::new(repository));
    }
    let repository = Repository::open(storage, random, &secrets::unlock(args)?)
        .with_context(|| format!("cannot open the repository {}", folder.display()))?;
    Ok(Arc::new(repository))
}

fn list(args: &Args) -> Result<()> {
    let repository = open(args)?;
    for name in repository.snapshots()? {
        let snapshot = repository.snapshot(&name)?;
        let size: u64 = snapshot.disks.iter().map(|disk| disk.size).sum();
        if args.json {
            report::json(&json!({"archive": name.as_str(), "time": snapshot.time, "size": size}));
        } else {
            report::line(&format!(
                "{name}  {size} bytes, {} disks",
                snapshot.disks.len()
            ));
        }
    }
    Ok(())
}

fn show(args: &Args, archive: &str) -> Result<()> {
    let name: SnapshotName = archive.parse()?;
    let snapshot = open(args)?.snapshot(&name)?;
    if args.json {
        report::json(&serde_json::to_value(&snapshot)?);
        return Ok(());
    }
    report::line(&format!("archive {name}, made by {}", snapshot.program));
    for disk in &snapshot.disks {
        let base = disk
            .lineage
            .base
            .as_deref()
            .map(|base| format!(", read incrementally to {base}"));
        report::line(&format!(
            "  {}: {} bytes{}",
            disk.device,
            disk.size,
            base.unwrap_or_default()
        ));
    }
    let stats = snapshot.stats;
    report::line(&format!(
        "  read {}, new {}, stored {} bytes",
        stats.read, stats.new, stats.stored
    ));
    Ok(())
}

fn run_verify(args: &Args) -> Result<ExitCode> {
    let repository = open(args)?;
    let found = verify(&repository)?;
    for damage in &found.damage {
        report::line(&format!(
            "damaged: {}: {}",
            damage.object,
            damage.error.chain()
        ));
    }
    report::line(&format!(
        "{} packs ({} bytes), {} archives and {} chunks verified, {} damaged objects",
        found.packs,
        found.bytes,
        found.snapshots,
        found.chunks,
        found.damage.len()
    ));
    Ok(if found.damage.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}

fn keys(args: &Args) -> Result<()> {
    for (name, kind) in open(args)?.keys()? {
        report::line(&format!("{name}  {kind}"));
    }
    Ok(())
}
