//! The message that a handshake machine waits for.

use std::mem;

/// Collects exactly the bytes of one message.
#[derive(Debug)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    need: usize,
    over: bool,
}

impl Inbox {
    /// Waits for a first message of so many bytes.
    pub(super) fn new(need: usize) -> Self {
        Self {
            buffer: Vec::new(),
            need,
            over: false,
        }
    }

    /// Waits for a message of so many bytes, of which none is there yet.
    pub(super) fn wait(&mut self, need: usize) {
        self.need = need;
    }

    /// Waits for nothing any more.
    pub(super) fn close(&mut self) {
        self.need = 0;
        self.over = true;
    }

    pub(super) fn wants(&self) -> usize {
        self.need - self.buffer.len()
    }

    /// Takes what is wanted of `input`; returns how much that was.
    pub(super) fn add(&mut self, input: &[u8]) -> usize {
        let taken = self.wants().min(input.len());
        self.buffer.extend_from_slice(&input[..taken]);
        taken
    }

    /// The message, once it is complete.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        (!self.over && self.buffer.len() == self.need).then(|| mem::take(&mut self.buffer))
    }
}
