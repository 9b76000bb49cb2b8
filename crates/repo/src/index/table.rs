//! One table of the index: looked up in, and read from its beginning to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::format::bytes::length_u32;
use crate::format::id::ChunkId;
use crate::format::table::{
    self, BLOCK, Directory, Filter, HEADER, TRAILER, TableEntry, block_range, blocks,
};
use crate::keys::{Cipher, Keys};
use crate::storage::{FileName, Storage, doubting};
use crate::{Error, Random, Result, limits, random};

/// An open table: in memory are the first identity of each block and a filter.
#[derive(Debug)]
pub(crate) struct Table {
    storage: Arc<dyn Storage>,
    name: FileName,
    associated: Vec<u8>,
    cipher: Cipher,
    directory: Directory,
    blocks: Mutex<HashMap<usize, Arc<Vec<u8>>>>,
}

fn associated(header: &[u8], name: &FileName) -> Vec<u8> {
    [header, name.as_str().as_bytes()].concat()
}

impl Table {
    /// Reads its directory.
    pub(crate) fn open(storage: &Arc<dyn Storage>, keys: &Keys, name: &FileName) -> Result<Self> {
        doubting(&**storage, name, || {
            Self::read(Arc::clone(storage), keys, name.clone())
        })
    }

    fn read(storage: Arc<dyn Storage>, keys: &Keys, name: FileName) -> Result<Self> {
        let corrupt = |why: &str| Error::corrupt(format!("{name} {why}"));
        let length = storage.length(&name)?;
        if !((HEADER + TRAILER) as u64..=limits::SEALED_MAX).contains(&length) {
            return Err(corrupt("has an impossible length"));
        }
        let header = storage.read(&name, 0..HEADER as u64)?;
        let salt = (header.as_slice().try_into().ok().and_then(table::salt))
            .ok_or_else(|| corrupt("has no header of a table"))?;
        let end = length - TRAILER as u64;
        let trailer = storage.read(&name, end..length)?;
        let start = (table::directory_length(&trailer))
            .and_then(|directory| end.checked_sub(directory))
            .filter(|start| *start >= HEADER as u64)
            .ok_or_else(|| corrupt("has no proper end"))?;
        let associated = associated(&header, &name);
        let cipher = keys.index_table(&salt);
        let sealed = storage.read(&name, start..end)?;
        let body = cipher.open(0, &associated, sealed);
        let directory = (body.as_deref().and_then(Directory::decode))
            .ok_or_else(|| corrupt("has a directory that does not open"))?;
        let last = blocks(directory.entries) - 1;
        if block_range(last, directory.entries).end != start {
            return Err(corrupt("has another length than its directory says"));
        }
        Ok(Self {
            storage,
            name,
            associated,
            cipher,
            directory,
            blocks: Mutex::default(),
        })
    }

    pub(crate) fn entries(&self) -> usize {
        self.directory.entries
    }

    /// All entries of an identity.
    pub(crate) fn find(&self, id: &ChunkId, found: &mut Vec<TableEntry>) -> Result<()> {
        if !self.directory.filter.may_contain(id) {
            return Ok(());
        }
        let first = &self.directory.first;
        // Copies of one chunk may begin at the end of the block before.
        let start = first.partition_point(|first| first < id).saturating_sub(1);
        for number in (start..first.len()).take_while(|number| first[*number] <= *id) {
            let block = self.block(number)?;
            let same = table::find_in_block(&block, id);
            found.extend(same.ok_or_else(|| self.unreadable(number))?);
        }
        Ok(())
    }

    fn block(&self, number: usize) -> Result<Arc<Vec<u8>>> {
        let kept = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = kept().get(&number) {
            return Ok(Arc::clone(block));
        }
        let range = block_range(number, self.directory.entries);
        let read = || {
            let sealed = self.storage.read(&self.name, range.clone())?;
            self.open_block(number, sealed)
        };
        let block = Arc::new(doubting(&*self.storage, &self.name, read)?);
        let mut kept = kept();
        if kept.len() >= limits::TABLE_BLOCKS {
            kept.clear();
        }
        kept.insert(number, Arc::clone(&block));
        Ok(block)
    }

    fn unreadable(&self, number: usize) -> Error {
        let what = format!("{} has a block {number} that does not open", self.name);
        Error::corrupt(what)
    }

    fn open_block(&self, number: usize, sealed: Vec<u8>) -> Result<Vec<u8>> {
        (self.cipher)
            .open(number as u64 + 1, &self.associated, sealed)
            .ok_or_else(|| self.unreadable(number))
    }

    /// All entries in order, several blocks read at once.
    pub(crate) fn scan(&self) -> impl Iterator<Item = Result<TableEntry>> + '_ {
        let blocks = blocks(self.directory.entries);
        (0..blocks)
            .step_by(limits::TABLE_RUN)
            .flat_map(move |first| {
                let end = (first + limits::TABLE_RUN).min(blocks);
                let run = || self.run(first, end);
                match doubting(&*self.storage, &self.name, run) {
                    Ok(entries) => entries.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                }
            })
    }

    fn run(&self, first: usize, end: usize) -> Result<Vec<TableEntry>> {
        let range = |number| block_range(number, self.directory.entries);
        let bytes = (self.storage).read(&self.name, range(first).start..range(end - 1).end)?;
        let mut rest = bytes.as_slice();
        let mut entries = Vec::with_capacity((end - first) * BLOCK);
        for number in first..end {
            let length = range(number).end - range(number).start;
            let (sealed, behind) = usize::try_from(length)
                .ok()
                .and_then(|length| rest.split_at_checked(length))
                .ok_or_else(|| Error::corrupt(format!("{} is too short", self.name)))?;
            let block = table::decode_block(&self.open_block(number, sealed.to_vec())?);
            entries.extend(block.ok_or_else(|| self.unreadable(number))?);
            rest = behind;
        }
        Ok(entries)
    }
}

/// Puts a table with these entries, which are in order and at most [`limits::TABLE_ENTRIES`].
pub(crate) fn put(
    storage: &dyn Storage,
    keys: &Keys,
    random: &dyn Random,
    name: &FileName,
    entries: &[TableEntry],
) -> Result<()> {
    let salt = random::fresh(random)?;
    let header = table::header(&salt);
    let associated = associated(&header, name);
    let cipher = keys.index_table(&salt);
    let mut filter = Filter::new(entries.len());
    let mut first = Vec::with_capacity(blocks(entries.len()));
    let mut file = header.to_vec();
    for (nonce, block) in (1..).zip(entries.chunks(BLOCK)) {
        first.extend(block.first().map(|entry| entry.entry.id));
        for entry in block {
            filter.insert(&entry.entry.id);
        }
        let start = file.len();
        file.extend(table::encode_block(block));
        cipher.seal(nonce, &associated, &mut file, start);
    }
    let directory = Directory {
        entries: entries.len(),
        first,
        filter,
    };
    let start = file.len();
    file.extend(directory.encode());
    cipher.seal(0, &associated, &mut file, start);
    let sealed = length_u32(file.len() - start) as usize;
    file.extend(table::trailer(sealed));
    storage.put(name, &file)
}
