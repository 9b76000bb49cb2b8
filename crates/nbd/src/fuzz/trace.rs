//! How an input was treated, as one number.

use crate::error::Fault;

/// Hashes the steps of a treatment (FNV-1a).
#[derive(Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn step(&mut self, name: &str, number: u64) {
        self.words(name);
        number.to_be_bytes().into_iter().for_each(|b| self.byte(b));
    }

    /// The error that ended it.
    pub(super) fn fault(&mut self, fault: &Fault) {
        self.words(&fault.message);
    }

    /// A text without its numbers and quotations, which are as many as there are inputs.
    pub(super) fn words(&mut self, text: &str) {
        let mut quoted = false;
        for byte in text.bytes() {
            quoted ^= byte == b'"';
            if !quoted && !byte.is_ascii_digit() {
                self.byte(byte);
            }
        }
    }

    pub(super) fn end(self) -> u64 {
        self.0
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}
