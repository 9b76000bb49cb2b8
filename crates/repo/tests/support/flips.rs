//! Damage to the golden repositories, byte by byte: whatever is changed, everything is restored as
//! it was, or an error names what is damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snapkeep_repo::{DiskReader, Error, MemoryStorage, Repository, Result, TreeReader, Unlock};

use crate::golden::{self, files, load, open_with};

/// What damage did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tried: u64,
    pub(crate) refused: u64,
    pub(crate) without_effect: u64,
}

/// Bytes and where they lie.
type Pieces = Vec<(u64, Vec<u8>)>;

/// All that an archive restores to; of the disks what is not a hole.
#[derive(Debug, Eq, PartialEq)]
struct Restored {
    disks: Vec<(String, u64, Pieces)>,
    tree: Option<String>,
    configs: Vec<Option<Vec<u8>>>,
}

fn restore(repository: &Arc<Repository>) -> Result<BTreeMap<String, Restored>> {
    let mut all = BTreeMap::new();
    for name in repository.snapshots()? {
        let snapshot = repository.snapshot(&name)?;
        let mut disks = Vec::new();
        for disk in snapshot.disks {
            let (device, size) = (disk.device.clone(), disk.size);
            let reader = DiskReader::new(Arc::clone(repository), disk);
            let mut data = Vec::new();
            let mut offset = 0;
            while let Some((start, length)) = reader.next_data(offset)? {
                let mut bytes = vec![0xee; usize::try_from(length).unwrap_or(usize::MAX)];
                reader.read_at(start, &mut bytes)?;
                data.push((start, bytes));
                offset = start + length;
            }
            disks.push((device, size, data));
        }
        let guest = repository.read_blob(&snapshot.guest_config)?;
        let firewall = snapshot.firewall_config.as_ref();
        let firewall = firewall
            .map(|blob| repository.read_blob(blob))
            .transpose()?;
        let configs = vec![Some(guest), firewall];
        let tree = (snapshot.tree.as_ref())
            .map(|record| {
                let reader = TreeReader::open(Arc::clone(repository), record)?;
                golden::tree::listing(&reader).map(|(_, listing)| listing)
            })
            .transpose()?;
        let restored = Restored {
            disks,
            tree,
            configs,
        };
        all.insert(name.to_string(), restored);
    }
    Ok(all)
}

/// A golden repository and what it restores to.
pub(crate) struct Target {
    memory: MemoryStorage,
    unlock: Unlock,
    good: BTreeMap<String, Restored>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Target {
    pub(crate) fn new(folder: &Path, name: &str) -> golden::Fallible<Self> {
        let memory = load(&folder.join(name))?;
        let unlock = golden::unlock(name)?;
        let good = restore(&open_with(Arc::new(memory.fork()), &unlock)?)?;
        let files = files(&memory)?;
        Ok(Self {
            memory,
            unlock,
            good,
            files,
        })
    }

    /// Restores everything while one file is changed. What goes wrong is the caller's to report.
    pub(crate) fn damage(
        &self,
        file: &str,
        change: impl FnOnce(&mut Vec<u8>),
        counts: &mut Counts,
    ) -> std::result::Result<(), String> {
        counts.tried += 1;
        let damaged = self.memory.fork();
        let name = file.parse().map_err(|e: Error| e.chain())?;
        damaged.damage(&name, change);
        let restored = open_with(Arc::new(damaged), &self.unlock).and_then(|r| restore(&r));
        match restored {
            Ok(restored) if restored == self.good => counts.without_effect += 1,
            Ok(_) => return Err("other bytes are restored".to_owned()),
            Err(error) if names(&error, file) => counts.refused += 1,
            Err(error) => return Err(format!("the error names nothing: {}", error.chain())),
        }
        Ok(())
    }
}

/// Whether an error says which file it is about: by its name or, as for packs, its last part.
fn names(error: &Error, file: &str) -> bool {
    let last = file.rsplit('/').next().unwrap_or(file);
    error.chain().contains(last)
}

/// The line that says what came of it.
pub(crate) fn summary(name: &str, what: &str, counts: Counts, wrong: usize) -> String {
    let Counts {
        tried,
        refused,
        without_effect,
    } = counts;
    format!(
        "{name}: {tried} bytes {what}: {refused} refused, {without_effect} without effect, {wrong} wrong"
    )
}
