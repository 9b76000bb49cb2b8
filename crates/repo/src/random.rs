//! Randomness as an input.

use std::convert::Infallible;
use std::fmt;

use hpke::rand_core::{TryCryptoRng, TryRng};

use crate::{Error, ErrorKind, Result};

/// A source of random bytes for keys, salts and identities.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]) -> Result<()>;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        aws_lc_rs::rand::fill(buffer)
            .map_err(|e| Error::with_source(ErrorKind::Io, "cannot get random bytes", e))
    }
}

/// A fresh random array.
pub(crate) fn fresh<const N: usize>(random: &dyn Random) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// Random bytes for a library that cannot take an error: they are drawn beforehand.
pub(crate) struct Adapter {
    stream: blake3::OutputReader,
}

impl Adapter {
    pub(crate) fn new(random: &dyn Random) -> Result<Self> {
        let seed: [u8; 32] = fresh(random)?;
        let mut hasher = blake3::Hasher::new_derive_key("snapkeep 1 random stream");
        Ok(Self {
            stream: hasher.update(&seed).finalize_xof(),
        })
    }
}

impl TryRng for Adapter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.stream.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.stream.fill(buffer);
        Ok(())
    }
}

impl TryCryptoRng for Adapter {}
