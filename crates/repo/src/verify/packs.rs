//! The proof of packs: each read whole against its name, its table opened and, of data, every chunk
//! in it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::again::twice;
use super::{Depth, Follow, Report, fatal};
use crate::format::id::PackId;
use crate::format::pack::{self, Class, HEADER};
use crate::index::{Location, pack_file, pack_of, read_table};
use crate::marks::Marks;
use crate::parallel::in_parallel;
use crate::repository::Repository;
use crate::storage::{FileName, read_all};
use crate::{Error, ErrorKind, Result, limits};

/// Reads the packs that this depth wants, and marks the data of those that are whole.
pub(super) fn verify_packs(
    repository: &Repository,
    depth: Depth,
    follow: &dyn Follow,
    report: &mut Report,
) -> Result<Marks> {
    let mut names = Vec::new();
    let mut total = 0;
    repository
        .storage
        .list(&"packs".parse()?, &mut |name, length| {
            if pack_of(name).is_some_and(|id| depth.reads(id.as_bytes())) {
                if follow.was_proven(name.as_str()) {
                    report.packs_before += 1;
                } else {
                    total += length;
                }
                names.push(name.clone());
            }
            Ok(())
        })?;
    follow.begun(names.len() as u64 - report.packs_before, total);
    let marks = Mutex::new(Marks::default());
    // Only a pack that the index knows has places to mark. Nodes are proven with what is below them.
    let mark = |name: &FileName| {
        let index = repository.index.read();
        let index = index.unwrap_or_else(PoisonError::into_inner);
        let number = pack_of(name).and_then(|id| index.number_of(&id));
        let data = |number: &u32| {
            let pack = index.pack(*number);
            pack.is_some_and(|pack| pack.class == Class::Data)
        };
        if let Some(number) = number.filter(data) {
            let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.insert_pack(number);
        }
    };
    let [packs, bytes, chunks] = [0; 3].map(AtomicU64::new);
    let judged = in_parallel(&names, |name| {
        if follow.was_proven(name.as_str()) {
            mark(name);
            return Ok(());
        }
        let proven = twice(|| {
            let read = read_all(&*repository.storage, name, limits::PACK_MAX)?;
            bytes.fetch_add(read.len() as u64, Ordering::Relaxed);
            judge(repository, name, read)
        });
        match proven {
            // It was pruned since it was listed: whoever needs what was in it tells.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                packs.fetch_add(u64::from(!super::is_unread(&error)), Ordering::Relaxed);
                return Err(error);
            }
            Ok(proven) => chunks.fetch_add(proven, Ordering::Relaxed),
        };
        packs.fetch_add(1, Ordering::Relaxed);
        mark(name);
        follow.proven(name.as_str());
        Ok(())
    });
    for (number, error) in judged {
        if fatal(&error) {
            return Err(error);
        }
        report.tell(&names[number], error);
    }
    [report.packs, report.bytes, report.chunks] = [packs, bytes, chunks].map(AtomicU64::into_inner);
    Ok(marks.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a pack has its name's hash, a table that tells what is in it (without an index nothing
/// else does) and, in it, what the table says; the number of chunks that were opened.
fn judge(repository: &Repository, name: &FileName, mut bytes: Vec<u8>) -> Result<u64> {
    let id = PackId(*blake3::hash(&bytes).as_bytes());
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
    let table = read_table(&repository.keys, id, bytes.len() as u64, &part).map_err(|error| {
        let what = format!("{name} is unchanged, but no pack of this repository");
        Error::with_source(ErrorKind::Corrupt, what, error)
    })?;
    let class = table.class;
    // Nodes are opened where they are needed: what they say of each other counts there.
    if class == Class::Metadata {
        return Ok(0);
    }
    let header = bytes.first_chunk::<HEADER>();
    let (_, cipher) = header
        .and_then(|header| pack::open_header(&repository.keys, header))
        .ok_or_else(|| pack::corrupt(&id, "has a header that does not open"))?;
    let mut plain = Vec::new();
    let count = table.entries.len() as u64;
    for (number, entry) in (0u32..).zip(table.entries) {
        let place = Location::new(0, number, &entry);
        let from = entry.offset as usize;
        let sealed = bytes
            .get_mut(from..from + entry.stored as usize)
            .ok_or_else(|| pack::corrupt(&id, "ends before its blobs do"))?;
        plain.resize(entry.plain as usize, 0);
        repository.open_copy_with(&cipher, class, &entry.id, &place, &id, sealed, &mut plain)?;
    }
    Ok(count)
}
