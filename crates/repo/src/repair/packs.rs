//! What still opens in damaged packs.

use std::collections::HashMap;
use std::ops::Range;

use super::RepairPlan;
use crate::format::id::PackId;
use crate::format::index::IndexedPack;
use crate::format::pack::{self, Class, HEADER};
use crate::index::{Location, object_of, pack_of, read_object, read_table};
use crate::keys::Cipher;
use crate::repository::Repository;
use crate::storage::{FileName, read_all};
use crate::verify::{Damage, twice};
use crate::{Error, ErrorKind, Result, limits};

/// A damaged pack of which it is known what was in it.
#[derive(Debug)]
pub struct PackDamage {
    /// The file.
    pub object: FileName,
    /// What was found.
    pub error: Error,
    /// Chunks or nodes that still open.
    pub kept: u64,
    /// Those that do not.
    pub lost: u64,
    /// Its number in the index, from here on.
    pub(super) number: u32,
    /// What was in it.
    pub(super) table: IndexedPack,
}

/// Reads damaged packs, and has the index take what does not open for absent.
pub(super) fn examine(
    repository: &Repository,
    packs: Vec<(FileName, Damage)>,
    plan: &mut RepairPlan,
) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let mut said = said_by_index(repository, &packs)?;
    for (object, damage) in packs {
        let Some(id) = pack_of(&object) else { continue };
        let read = twice(|| read_all(&*repository.storage, &object, limits::PACK_MAX));
        let bytes = match read {
            Ok(bytes) => bytes,
            // It is longer than any pack.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                plan.strange.push(damage);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let table = own_table(repository, id, &bytes).or_else(|| said.remove(&id));
        let Some(mut table) = table else {
            plan.strange.push(damage);
            continue;
        };
        table.id = id;
        repository.forget_pack_key(&id);
        let opens = opens(repository, &table, bytes);
        let mut index = repository.write_index();
        let number = index.replace(&table);
        for (blob, opens) in (0u32..).zip(&opens) {
            if !opens {
                index.shun_place(number, blob);
            }
        }
        drop(index);
        let kept = opens.iter().filter(|opens| **opens).count() as u64;
        plan.packs.push(PackDamage {
            object,
            error: damage.error,
            kept,
            lost: opens.len() as u64 - kept,
            number,
            table,
        });
    }
    Ok(())
}

/// What index objects say of these packs.
fn said_by_index(
    repository: &Repository,
    packs: &[(FileName, Damage)],
) -> Result<HashMap<PackId, IndexedPack>> {
    let wanted: Vec<PackId> = packs.iter().filter_map(|(name, _)| pack_of(name)).collect();
    let mut objects = Vec::new();
    repository.storage.list(&"index".parse()?, &mut |name, _| {
        objects.extend(object_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    let mut said = HashMap::new();
    for name in objects {
        match read_object(&*repository.storage, &repository.keys, &name) {
            Ok(packs) => {
                let packs = packs.into_iter().filter(|pack| wanted.contains(&pack.id));
                said.extend(packs.map(|pack| (pack.id, pack)));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(said)
}

/// What a file's own table says, whatever its name.
fn own_table(repository: &Repository, id: PackId, bytes: &[u8]) -> Option<IndexedPack> {
    let part = |range: Range<u64>| {
        let place = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        let part = bytes.get(place(range.start)..place(range.end));
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| pack::corrupt(&id, "is too short"))
    };
    read_table(&repository.keys, id, bytes.len() as u64, &part).ok()
}

/// The key that a file's header names.
fn cipher(repository: &Repository, class: Class, bytes: &[u8]) -> Option<Cipher> {
    let header = bytes.first_chunk::<HEADER>()?;
    let (found, cipher) = pack::open_header(&repository.keys, header)?;
    (found == class).then_some(cipher)
}

fn opens(repository: &Repository, table: &IndexedPack, mut bytes: Vec<u8>) -> Vec<bool> {
    let mut opens = vec![false; table.entries.len()];
    each_open(repository, table, &mut bytes, &mut |number, _| {
        opens[number] = true;
        Ok(())
    })
    .ok();
    opens
}

/// Gives each blob of a pack that opens, by its number, as it was before compression.
pub(super) fn each_open(
    repository: &Repository,
    table: &IndexedPack,
    bytes: &mut [u8],
    each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let Some(cipher) = cipher(repository, table.class, bytes) else {
        return Ok(());
    };
    let mut plain = Vec::new();
    for (number, entry) in (0u32..).zip(&table.entries) {
        let place = Location::new(0, number, entry);
        let from = entry.offset as usize;
        let Some(sealed) = bytes.get_mut(from..from + entry.stored as usize) else {
            continue;
        };
        plain.resize(entry.plain as usize, 0);
        let (class, id) = (table.class, &entry.id);
        let opened =
            repository.open_copy_with(&cipher, class, id, &place, &table.id, sealed, &mut plain);
        if opened.is_ok() {
            each(number as usize, &plain)?;
        }
    }
    Ok(())
}
