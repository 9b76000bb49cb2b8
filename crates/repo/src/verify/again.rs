//! What looks damaged is read once more, by another request, before it is called so: a storage may
//! have answered with other bytes than it holds.

use std::sync::PoisonError;

use super::is_unread;
use crate::format::id::ChunkId;
use crate::format::pack::{self, Class, HEADER};
use crate::index::{Location, Pack, pack_file};
use crate::repository::Repository;
use crate::{Error, ErrorKind, Result};

/// Does it again, once, if what was read is damaged.
pub(crate) fn twice<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    match read() {
        Err(error) if error.kind() == ErrorKind::Corrupt => read(),
        read => read,
    }
}

impl Repository {
    /// Reads a chunk. If no copy is what it should be, the index is read again, and each copy once
    /// more with what is around it. An error of the storage says nothing of what it holds: it
    /// comes before one that tells of damage.
    pub(crate) fn read_chunk_twice(&self, class: Class, id: &ChunkId) -> Result<Vec<u8>> {
        match self.read_chunk(class, id) {
            Err(error) if error.kind() == ErrorKind::Corrupt => self.read_again(class, id),
            read => read,
        }
    }

    fn read_again(&self, class: Class, id: &ChunkId) -> Result<Vec<u8>> {
        self.look_again();
        let first = self.find(id)?;
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let copies = index.all(id).unwrap_or_else(|_| vec![first]);
        drop(index);
        let mut error: Option<Error> = None;
        for copy in copies {
            let pack = self.pack_of(id, &copy)?;
            match self.read_wider(class, id, &copy, &pack) {
                Ok(chunk) => return Ok(chunk),
                Err(found) if error.is_none() || is_unread(&found) => error = Some(found),
                Err(_) => {}
            }
        }
        Err(error.unwrap_or_else(|| Error::corrupt(format!("chunk {id} is in no pack"))))
    }

    /// Reads a copy with a byte around it and its pack's header: a request that was not made before.
    fn read_wider(
        &self,
        class: Class,
        id: &ChunkId,
        copy: &Location,
        pack: &Pack,
    ) -> Result<Vec<u8>> {
        if pack.class != class {
            return Err(pack::corrupt(&pack.id, "has the wrong class"));
        }
        let file = pack_file(&pack.id);
        let header = self.storage.read(&file, 0..HEADER as u64)?;
        let header = header.first_chunk::<HEADER>();
        let (_, cipher) = header
            .and_then(|header| pack::open_header(&self.keys, header))
            .ok_or_else(|| pack::corrupt(&pack.id, "has a header that does not open"))?;
        // A header lies before every chunk, and a table behind.
        let from = u64::from(copy.offset) - 1;
        let length = u64::from(copy.stored) + 2;
        let mut bytes = self.storage.read(&file, from..from + length)?;
        let sealed = bytes
            .get_mut(1..=copy.stored as usize)
            .ok_or_else(|| pack::corrupt(&pack.id, "ends before a chunk that lies in it"))?;
        let mut chunk = vec![0; copy.plain as usize];
        self.open_copy_with(&cipher, class, id, copy, &pack.id, sealed, &mut chunk)?;
        // The header that was read before may have been another one.
        self.forget_pack_key(&pack.id);
        Ok(chunk)
    }
}
