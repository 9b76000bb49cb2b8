//! Verification: every pack against its name and by its table, every chunk that a snapshot needs against its
//! identity.

mod tree;

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::format::attributes::{AttributeChange, Verification, VerificationState};
use crate::format::id::{ChunkId, PackId};
use crate::format::pack::Class;
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::index::{Location, pack_file, pack_of, read_table};
use crate::keys::Keys;
use crate::map;
use crate::marks::Marks;
use crate::parallel::in_parallel;
use crate::repository::Repository;
use crate::storage::{FileName, read_all};
use crate::{Error, ErrorKind, Result, limits};

/// What is wrong, and with what.
#[derive(Debug)]
pub struct Damage {
    /// The pack, index object, key slot, head or snapshot.
    pub object: String,
    /// What was found.
    pub error: Error,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Packs that were read whole.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Snapshots whose chunks were all read.
    pub snapshots: u64,
    /// Chunks that were read and proven.
    pub chunks: u64,
    /// Of each snapshot that could be judged, whether it was found to be whole.
    pub archives: Vec<(SnapshotName, Result<()>)>,
    /// Everything that is wrong: at most one entry for each file.
    pub damage: Vec<Damage>,
    /// What was not judged: the storage failed to read it, or it needs a newer program.
    pub unread: Vec<Damage>,
}

impl Report {
    fn tell(&mut self, object: &impl ToString, error: Error) {
        let list = if unread(&error) {
            &mut self.unread
        } else {
            &mut self.damage
        };
        let object = object.to_string();
        list.push(Damage { object, error });
    }
}

/// Whether an error says nothing of what is stored.
fn unread(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Version)
}

/// Keeps what a verification found as an attribute of each archive that it judged. `time` is in
/// seconds since the epoch, `program` a name and version.
pub fn keep_verification(
    repository: &Repository,
    report: &Report,
    time: i64,
    program: &str,
) -> Result<()> {
    for (name, found) in &report.archives {
        let problem = found.as_ref().err().map(|error| {
            let mut chain = error.chain();
            let mut end = chain.len().min(limits::CALLER_ERROR_MAX);
            while !chain.is_char_boundary(end) {
                end -= 1;
            }
            chain.truncate(end);
            chain
        });
        let state = match problem {
            None => VerificationState::Good,
            Some(_) => VerificationState::Damaged,
        };
        let verification = Verification {
            state,
            time,
            program: program.to_owned(),
            problem,
        };
        let change = AttributeChange {
            verification: Some(verification),
            ..AttributeChange::default()
        };
        match repository.change_attributes(name, &change) {
            // Its own record may be what is damaged: nothing can be said of it there.
            Err(_) if found.is_err() => {}
            kept => kept?,
        }
    }
    Ok(())
}

/// Chunks that are handed to the threads together.
const BATCH: usize = 4096;

/// Reads everything: each pack whole against its name, key slots and heads, then each snapshot's
/// nodes, chunks and configurations, each once. Index objects that could not be read when the repository was
/// opened are told too, although nothing depends on them.
pub fn verify(repository: &Repository) -> Result<Report> {
    repository.may_read()?;
    let mut report = Report::default();
    let mut names = Vec::new();
    repository.storage.list(&"packs".parse()?, &mut |name, _| {
        names.extend(pack_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    let (packs, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let judged = in_parallel(&names, |name| {
        let read = read_all(&*repository.storage, name, limits::PACK_MAX)?;
        packs.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(read.len(), Ordering::Relaxed);
        judge_pack(&repository.keys, name, &read)
    });
    report.packs = packs.into_inner() as u64;
    report.bytes = bytes.into_inner() as u64;
    for (number, error) in judged {
        report.tell(&names[number], error);
    }
    let index = repository.index.read();
    for (name, error) in index.unwrap_or_else(PoisonError::into_inner).problems() {
        // Packs were judged by their bytes.
        if name.as_str().starts_with("index/") {
            report.tell(&name, error.clone());
        }
    }
    for (name, error) in
        (repository.damaged_slots()?.into_iter()).chain(repository.damaged_heads()?)
    {
        report.tell(&name, error);
    }
    let mut proof = Proof {
        repository,
        proven: Marks::default(),
        nodes: Vec::new(),
        waiting: Vec::new(),
    };
    for name in repository.all_snapshots_of(None)? {
        let read = repository.listed_snapshot(&name);
        let result = read.and_then(|snapshot| {
            proof.snapshot(&snapshot)?;
            Ok(snapshot.tree.and_then(|tree| proof.witnesses(&tree).err()))
        });
        report.snapshots += u64::from(result.is_ok());
        match &result {
            Ok(_) => report.archives.push((name.clone(), Ok(()))),
            Err(error) if unread(error) => {}
            Err(error) => report.archives.push((name.clone(), Err(error.clone()))),
        }
        match result {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => report.tell(&name, error),
        }
    }
    for (name, attributes) in repository.attributes_of(None)? {
        let log = attributes.and_then(|attributes| match &attributes.task_log {
            Some(log) => repository.read_task_log(log).map(drop).map_err(|e| {
                let what = "its task log cannot be read";
                Error::with_source(e.kind(), what, e)
            }),
            None => Ok(()),
        });
        if let Err(error) = log {
            report.tell(&format!("attributes/{name}"), error);
        }
    }
    report.chunks = proof.proven.count();
    Ok(report)
}

/// Whether a pack has its name's hash, and a table that tells what is in it: without an index
/// nothing else does.
fn judge_pack(keys: &Keys, name: &FileName, bytes: &[u8]) -> Result<()> {
    let id = PackId(*blake3::hash(bytes).as_bytes());
    if pack_file(&id) != *name {
        let what = format!("{name} does not have the checksum that is its name");
        return Err(Error::corrupt(what));
    }
    let part = |range: Range<u64>| {
        let place = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = bytes.get(place(range.start)..place(range.end));
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| Error::corrupt(format!("{name} is too short")))
    };
    match read_table(keys, id, bytes.len() as u64, &part) {
        Ok(_) => Ok(()),
        Err(error) => {
            let what = format!("{name} is unchanged, but no pack of this repository");
            Err(Error::with_source(ErrorKind::Corrupt, what, error))
        }
    }
}

/// What is proven of the snapshots so far.
struct Proof<'a> {
    repository: &'a Repository,
    /// Chunks; nodes, once all that is below them is proven; and those of the next two lists.
    proven: Marks,
    /// Nodes of this snapshot: what is below them may turn out to be damaged.
    nodes: Vec<Location>,
    /// Chunks of this snapshot that are still to be read.
    waiting: Vec<(ChunkId, Location)>,
}

impl Proof<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let result = self.walk(snapshot).and_then(|()| self.read_waiting());
        if result.is_err() {
            // Another snapshot that shares a node shares the damage.
            let waiting = self.waiting.iter().map(|(_, place)| place);
            self.nodes
                .iter()
                .chain(waiting)
                .for_each(|place| self.proven.remove(place));
        }
        self.nodes.clear();
        self.waiting.clear();
        result
    }

    fn walk(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.repository.read_blob(&snapshot.guest_config)?;
        if let Some(config) = &snapshot.firewall_config {
            self.repository.read_blob(config)?;
        }
        for disk in &snapshot.disks {
            let levels = map::levels(disk.size, disk.chunk_size);
            let mut todo: Vec<_> = disk.root.map(|id| (levels, id)).into_iter().collect();
            while let Some((level, id)) = todo.pop() {
                let place = self.repository.find(&id)?;
                if self.proven.contains(&place) {
                    continue;
                }
                if level == 0 {
                    self.chunk(id, place)?;
                } else {
                    let children = self.repository.read_node(&id)?;
                    // Taken from the end: in the disk's order, which is about that of the packs.
                    let children = children.iter().rev().flatten();
                    todo.extend(children.map(|child| (level - 1, *child)));
                    self.proven.insert(&place);
                    self.nodes.push(place);
                }
            }
        }
        match &snapshot.tree {
            Some(record) => self.tree(record),
            None => Ok(()),
        }
    }

    /// Has a chunk read, with others.
    fn chunk(&mut self, id: ChunkId, place: Location) -> Result<()> {
        self.proven.insert(&place);
        self.waiting.push((id, place));
        if self.waiting.len() >= BATCH {
            self.read_waiting()?;
        }
        Ok(())
    }

    /// Reads the chunks that wait; if one fails, all go on waiting.
    fn read_waiting(&mut self) -> Result<()> {
        let failed = in_parallel(&self.waiting, |(id, _)| {
            self.repository.read_chunk(Class::Data, id).map(drop)
        });
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
        }
        self.waiting.clear();
        Ok(())
    }
}
