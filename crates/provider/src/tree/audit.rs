//! Comparing a file that looks unchanged with what the base has of it, while it is read.

use std::sync::Arc;

use snapkeep_repo::{TreeFile, TreeReader};

use crate::limits::AUDIT_BYTES;

/// A comparison that goes on.
pub(crate) struct Audit {
    reader: Arc<TreeReader>,
    file: TreeFile,
    offset: u64,
    buffer: Vec<u8>,
    verdict: Verdict,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// So far all is the same.
    Same,
    /// It differs at or after this offset.
    Differs(u64),
    /// What the base has cannot be read.
    Unreadable(snapkeep_repo::Error),
}

impl Audit {
    pub(crate) fn new(reader: Arc<TreeReader>, file: TreeFile) -> Self {
        Self {
            reader,
            file,
            offset: 0,
            buffer: Vec::new(),
            verdict: Verdict::Same,
        }
    }

    /// The next bytes of the file are these.
    pub(crate) fn data(&mut self, data: &[u8]) {
        for piece in data.chunks(AUDIT_BYTES) {
            let offset = self.offset;
            self.offset = offset.saturating_add(piece.len() as u64);
            if !matches!(self.verdict, Verdict::Same) {
                continue;
            }
            if self.offset > self.file.size {
                self.verdict = Verdict::Differs(self.file.size);
                continue;
            }
            self.buffer.resize(piece.len(), 0);
            match self.reader.read_at(&self.file, offset, &mut self.buffer) {
                Ok(()) if self.buffer == piece => {}
                Ok(()) => self.verdict = Verdict::Differs(offset),
                Err(error) => self.verdict = Verdict::Unreadable(error),
            }
        }
    }

    /// The next so many bytes are a hole: only what the base has as data there is read.
    pub(crate) fn hole(&mut self, length: u64) {
        let end = self.offset.saturating_add(length);
        while matches!(self.verdict, Verdict::Same) && self.offset < end {
            let data = match self.reader.next_data(&self.file, self.offset) {
                Ok(data) => data.filter(|(start, _)| *start < end),
                Err(error) => {
                    self.verdict = Verdict::Unreadable(error);
                    break;
                }
            };
            let Some((start, length)) = data else {
                break;
            };
            let bytes = length.min(end - start).min(AUDIT_BYTES as u64);
            self.buffer
                .resize(usize::try_from(bytes).unwrap_or(AUDIT_BYTES), 0);
            match self.reader.read_at(&self.file, start, &mut self.buffer) {
                Ok(()) if self.buffer.iter().all(|byte| *byte == 0) => self.offset = start + bytes,
                Ok(()) => self.verdict = Verdict::Differs(start),
                Err(error) => self.verdict = Verdict::Unreadable(error),
            }
        }
        self.offset = end;
    }

    /// The file is over.
    pub(crate) fn end(self) -> Verdict {
        match self.verdict {
            Verdict::Same if self.offset != self.file.size => Verdict::Differs(self.offset),
            verdict @ (Verdict::Same | Verdict::Differs(_) | Verdict::Unreadable(_)) => verdict,
        }
    }
}
