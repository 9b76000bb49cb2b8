//! How an input was treated, as one number.

/// Hashes the steps of a treatment (FNV-1a).
#[derive(Debug)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// Nothing was done yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Something that was done, and a number that belongs to it.
    pub fn step(&mut self, name: &str, number: u64) {
        self.words(name);
        number.to_be_bytes().into_iter().for_each(|b| self.byte(b));
    }

    /// A text without its numbers and quotations, which are as many as there are inputs.
    pub fn words(&mut self, text: &str) {
        let mut quoted = false;
        for byte in text.bytes() {
            quoted ^= byte == b'"';
            if !quoted && !byte.is_ascii_digit() {
                self.byte(byte);
            }
        }
    }

    /// The number of all steps.
    pub fn end(self) -> u64 {
        self.0
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}
