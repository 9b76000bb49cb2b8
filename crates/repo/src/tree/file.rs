//! A file that is being given: small ones go to a bundle, large ones are cut into chunks.

use super::cut::Cutter;
use super::levels::{Finished, Item, Levels, number_of};
use super::queue::Sink;
use super::{Attributes, Content, Extent};
use crate::format::bytes::length_u32;
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::tree::{Role, extent};
use crate::{Result, limits};

/// A part of a file in a chunk that is not stored yet.
#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    within: usize,
    length: usize,
}

/// Parts of one file in one chunk, in order.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Piece>);

impl Pieces {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether data at this offset goes on where the last piece ended.
    pub(crate) fn joins(&self, offset: u64) -> bool {
        let last = self.0.last();
        last.is_some_and(|piece| piece.offset + piece.length as u64 == offset)
    }

    /// Adds data that lies here in the chunk.
    pub(crate) fn push(&mut self, offset: u64, within: usize, length: usize) {
        if self.joins(offset) {
            if let Some(last) = self.0.last_mut() {
                last.length += length;
            }
        } else {
            self.0.push(Piece {
                offset,
                within,
                length,
            });
        }
    }

    /// The extents, once the chunk has an identity.
    pub(crate) fn extents(&self, chunk: ChunkId) -> impl Iterator<Item = Extent> {
        self.0.iter().map(move |piece| Extent {
            offset: piece.offset,
            chunk,
            within: length_u32(piece.within),
            length: length_u32(piece.length),
        })
    }
}

/// A file that is being given.
pub(crate) struct OpenFile {
    pub(crate) name: Vec<u8>,
    pub(crate) attributes: Attributes,
    pub(crate) links: u32,
    /// What was given of it, holes included.
    pub(crate) size: u64,
    /// Where it begins in the bundle.
    pub(crate) start: usize,
    /// Its parts in the bundle.
    pub(crate) pieces: Pieces,
    pub(crate) large: Option<Large>,
}

impl OpenFile {
    pub(crate) fn new(name: &[u8], attributes: &Attributes, links: u32, start: usize) -> Self {
        Self {
            name: name.to_owned(),
            attributes: attributes.clone(),
            links,
            size: 0,
            start,
            pieces: Pieces::default(),
            large: None,
        }
    }

    /// Takes data; small files' to the bundle. What is too large for that leaves it.
    pub(crate) fn data(
        &mut self,
        sink: &mut Sink<'_>,
        bundle: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<()> {
        let offset = self.size;
        self.size += data.len() as u64;
        if let Some(large) = &mut self.large {
            return large.data(sink, offset, data);
        }
        let fits = bundle.len() - self.start + data.len() <= limits::BUNDLED_MAX;
        let few = self.pieces.joins(offset) || self.pieces.len() < limits::EXTENTS_INLINE;
        if fits && few {
            self.pieces.push(offset, bundle.len(), data.len());
            bundle.extend_from_slice(data);
            return Ok(());
        }
        let mut large = Large::new(sink);
        for piece in std::mem::take(&mut self.pieces).0 {
            let part = &bundle[piece.within..piece.within + piece.length];
            large.data(sink, piece.offset, part)?;
        }
        bundle.truncate(self.start);
        self.large.insert(large).data(sink, offset, data)
    }
}

/// A file with chunks of its own.
pub(crate) struct Large {
    /// The chunk that is being filled.
    chunk: Vec<u8>,
    cutter: Cutter,
    pieces: Pieces,
    few: Vec<Extent>,
    many: Option<Levels>,
}

impl Large {
    fn new(sink: &Sink<'_>) -> Self {
        Self {
            chunk: sink.buffer(),
            cutter: Cutter::default(),
            pieces: Pieces::default(),
            few: Vec::new(),
            many: None,
        }
    }

    fn data(&mut self, sink: &mut Sink<'_>, mut offset: u64, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            if self.pieces.len() >= limits::PIECES_MAX && !self.pieces.joins(offset) {
                self.cutter = Cutter::default();
                self.end_chunk(sink)?;
            }
            let (length, ends) = self.cutter.take(data);
            self.pieces.push(offset, self.chunk.len(), length);
            self.chunk.extend_from_slice(&data[..length]);
            if ends {
                self.end_chunk(sink)?;
            }
            data = &data[length..];
            offset += length as u64;
        }
        Ok(())
    }

    fn end_chunk(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let next = sink.buffer();
        let id = sink.put(Class::Data, std::mem::replace(&mut self.chunk, next))?;
        let pieces = std::mem::take(&mut self.pieces);
        pieces
            .extents(id)
            .try_for_each(|extent| self.extent(sink, extent))
    }

    fn extent(&mut self, sink: &mut Sink<'_>, extent: Extent) -> Result<()> {
        if self.many.is_none() && self.few.len() < limits::EXTENTS_INLINE {
            self.few.push(extent);
            return Ok(());
        }
        let few = std::mem::take(&mut self.few);
        let many = (self.many).get_or_insert_with(|| Levels::new(Role::Extents));
        few.into_iter().chain([extent]).try_for_each(|extent| {
            let mut bytes = Vec::with_capacity(extent::LENGTH);
            extent::encode(&extent, &mut bytes);
            let item = Item {
                bytes: &bytes,
                key: 8,
                number: number_of(&extent.chunk),
                witness: (&[], false),
            };
            many.push(sink, &item)
        })
    }

    /// Stores what is left.
    pub(crate) fn finish(mut self, sink: &mut Sink<'_>) -> Result<Content> {
        if !self.chunk.is_empty() {
            self.end_chunk(sink)?;
        }
        let Some(many) = self.many else {
            return Ok(Content::Extents(self.few));
        };
        match many.finish(sink, 0)? {
            Finished::Stored(id, _) => Ok(Content::Node(id)),
            Finished::Small(..) | Finished::Nothing => {
                unreachable!("there are extents, and no node is small enough to be left")
            }
        }
    }
}
