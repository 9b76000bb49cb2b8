//! `restore`: one disk of an archive to a new raw file, holes left as holes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use snapkeep_repo::{DiskReader, SnapshotName};

use crate::args::Args;
use crate::report;

/// Bytes that are read and written at once.
const PIECE: u64 = 4 << 20;

pub(super) fn run(args: &Args, archive: &str, device: Option<&str>, to: &Path) -> Result<()> {
    let name: SnapshotName = archive.parse()?;
    let repository = super::open(args)?;
    let disks = repository.snapshot(&name)?.disks;
    let disk = match (device, &disks[..]) {
        (None, [only]) => only,
        (None, _) => {
            let names: Vec<_> = disks.iter().map(|disk| disk.device.as_str()).collect();
            bail!(
                "archive {name} has {} disks; name one with --device: {}",
                disks.len(),
                names.join(", ")
            );
        }
        (Some(device), _) => (disks.iter().find(|disk| disk.device == device))
            .with_context(|| format!("archive {name} has no device {device}"))?,
    };
    let file = File::options()
        .write(true)
        .create_new(true)
        .open(to)
        .with_context(|| format!("cannot make {}", to.display()))?;
    file.set_len(disk.size)
        .with_context(|| format!("cannot size {}", to.display()))?;
    let reader = DiskReader::new(repository, disk.clone());
    let mut buffer = Vec::new();
    let mut written = 0;
    let mut position = 0;
    while let Some((start, length)) = reader.next_data(position)? {
        let length = length.min(PIECE);
        buffer.resize(usize::try_from(length)?, 0);
        reader.read_at(start, &mut buffer)?;
        file.write_all_at(&buffer, start)
            .with_context(|| format!("cannot write {}", to.display()))?;
        written += length;
        position = start + length;
    }
    file.sync_all()
        .with_context(|| format!("cannot sync {}", to.display()))?;
    report::line(&format!(
        "restored {} of {name} to {}: {} bytes, {written} of them data",
        disk.device,
        to.display(),
        disk.size
    ));
    Ok(())
}
