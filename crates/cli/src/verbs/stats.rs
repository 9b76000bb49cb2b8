//! `stats`: what a repository holds, in numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use snapkeep_repo::{ErrorKind, SnapshotName, take_inventory};

use crate::failure::Code;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::{counted, human};

#[derive(Serialize)]
struct Stats {
    archives: u64,
    guests: Vec<OfGuest>,
    /// Of all archives together.
    size_bytes: u64,
    packs: u64,
    packs_bytes: u64,
    /// Of all other files.
    metadata_bytes: u64,
    /// Each chunk once: as they were, and as they lie in packs.
    chunks: u64,
    chunks_bytes: u64,
    chunks_stored_bytes: u64,
    /// How many times as large the archives are as their chunks; null of none.
    deduplication: Option<f64>,
    /// How many times as large chunks are as what is stored of them; null of none.
    compression: Option<f64>,
    /// What nothing needs in packs; null if an archive that is damaged does not tell what it needs.
    unused_bytes: Option<u64>,
    /// Archives whose own records cannot be read.
    damaged: Vec<String>,
}

#[derive(Default, Serialize)]
struct OfGuest {
    namespace: String,
    kind: String,
    guest: String,
    archives: u64,
    /// Of all its archives together.
    size_bytes: u64,
    /// Of its newest archive.
    newest_bytes: u64,
}

impl Report for Stats {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = (self.guests.iter())
            .map(|of| {
                format!(
                    "{}/{}/{}  {}, the newest {}, together {}",
                    of.namespace,
                    of.kind,
                    of.guest,
                    archives(of.archives),
                    human(of.newest_bytes),
                    human(of.size_bytes)
                )
            })
            .collect();
        lines.push(format!(
            "{} of {} in {} of {}{}",
            archives(self.archives),
            human(self.size_bytes),
            counted(self.chunks, "chunk"),
            human(self.chunks_bytes),
            times(self.deduplication, "deduplication")
        ));
        lines.push(format!(
            "stored as {} in {} of {}{}",
            human(self.chunks_stored_bytes),
            counted(self.packs, "pack"),
            human(self.packs_bytes),
            times(self.compression, "compression")
        ));
        lines.push(format!("other files: {}", human(self.metadata_bytes)));
        lines.push(match self.unused_bytes {
            Some(0) => "needed by no archive: nothing".to_owned(),
            Some(bytes) => format!(
                "needed by no archive: {} (`snapkeep prune` frees it)",
                human(bytes)
            ),
            None => "what no archive needs cannot be told: an archive is damaged (`snapkeep \
                     verify` tells which)"
                .to_owned(),
        });
        lines
    }
}

fn archives(number: u64) -> String {
    counted(number, "archive")
}

fn times(ratio: Option<f64>, what: &str) -> String {
    ratio.map_or_else(String::new, |ratio| format!(" ({what} {ratio:.2})"))
}

/// With two digits behind the point.
#[expect(
    clippy::cast_precision_loss,
    reason = "it is told with two digits behind the point"
)]
fn ratio(large: u64, small: u64) -> Option<f64> {
    (small > 0).then(|| (large as f64 / small as f64 * 100.0).round() / 100.0)
}

pub(super) fn run(settings: &Settings, json: bool) -> Result<ExitCode> {
    let session = Session::open(settings)?;
    let repository = &session.repository;
    let names = repository.snapshots()?;
    let mut guests = BTreeMap::<String, OfGuest>::new();
    let mut damaged = BTreeSet::<SnapshotName>::new();
    for name in &names {
        let snapshot = match repository.any_snapshot(name) {
            Ok(snapshot) => snapshot,
            // It was pruned since it was listed.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                remark(&format!("archive {name} is damaged: {}", e.chain()));
                damaged.insert(name.clone());
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let mut parts = name.group().split('/').map(str::to_owned);
        let guest = guests.entry(name.group().to_owned()).or_insert_with(|| {
            let mut part = || parts.next().unwrap_or_default();
            OfGuest {
                namespace: part(),
                kind: part(),
                guest: part(),
                ..OfGuest::default()
            }
        });
        let disks = snapshot.disks.iter().map(|disk| disk.size);
        let size = disks.chain(snapshot.tree.map(|tree| tree.size)).sum();
        guest.archives += 1;
        guest.size_bytes += size;
        // They come in their order.
        guest.newest_bytes = size;
    }
    let found = take_inventory(repository, &names)?;
    session.stop.cancel.check()?;
    let guests: Vec<OfGuest> = guests.into_values().collect();
    let size_bytes = guests.iter().map(|guest| guest.size_bytes).sum();
    let damaged: Vec<String> = damaged.iter().map(SnapshotName::to_string).collect();
    let code = (!damaged.is_empty()).then_some(Code::Damaged);
    let stats = Stats {
        archives: guests.iter().map(|guest| guest.archives).sum(),
        size_bytes,
        packs: found.packs,
        packs_bytes: found.packs_bytes,
        metadata_bytes: found.beside_bytes,
        chunks: found.data.number,
        chunks_bytes: found.data.plain,
        chunks_stored_bytes: found.data.stored,
        deduplication: ratio(size_bytes, found.data.plain),
        compression: ratio(found.data.plain, found.data.stored),
        unused_bytes: found.unused,
        guests,
        damaged,
    };
    report::result(&stats, json)?;
    Ok(code.map_or(ExitCode::SUCCESS, ExitCode::from))
}
