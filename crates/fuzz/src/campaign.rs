//! The loop that looks for bytes with which a target panics: deterministic, for a seed and a corpus.

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use super::Target;
use crate::limits;

/// A search that is under way.
#[derive(Debug)]
pub struct Campaign {
    target: Target,
    random: Random,
    /// Inputs to start from: each was treated as none before it.
    pool: Vec<Vec<u8>>,
    seen: BTreeSet<u64>,
    runs: u64,
}

/// An input with which a target panics.
#[derive(Debug)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
}

impl Campaign {
    /// Runs a corpus as it is; what it teaches is where the search starts.
    ///
    /// # Errors
    /// With the first input that makes the target panic.
    pub fn new(target: Target, corpus: Vec<Vec<u8>>, seed: u64) -> Result<Self, Finding> {
        let mut campaign = Self {
            target,
            random: Random(seed),
            pool: vec![Vec::new()],
            seen: BTreeSet::new(),
            runs: 0,
        };
        for input in corpus {
            campaign.run(input)?;
        }
        Ok(campaign)
    }

    /// Tries one mutation; returns the input if it was treated in a new way.
    ///
    /// # Errors
    /// With the input, if it makes the target panic.
    pub fn step(&mut self) -> Result<Option<&[u8]>, Finding> {
        let mut input = self.pick().clone();
        for _ in 0..=self.random.below(4) {
            self.mutate(&mut input);
        }
        input.truncate(limits::INPUT_BYTES_MAX);
        let is_new = self.run(input)?;
        Ok(is_new.then(|| self.pool.last().map_or(&[][..], Vec::as_slice)))
    }

    /// Inputs tried, the corpus among them.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Different ways in which inputs were treated.
    pub fn ways(&self) -> usize {
        self.seen.len()
    }

    fn run(&mut self, input: Vec<u8>) -> Result<bool, Finding> {
        self.runs += 1;
        let target = self.target;
        let Ok(way) = catch_unwind(|| target(&input)) else {
            return Err(Finding { input });
        };
        let is_new = self.seen.len() < limits::POOL_MAX && self.seen.insert(way);
        if is_new {
            self.pool.push(input);
        }
        Ok(is_new)
    }

    fn pick(&mut self) -> &Vec<u8> {
        let index = self.random.below(self.pool.len());
        &self.pool[index]
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(input.len() + 1);
        let length = random.below(input.len() - at + 1).min(64);
        match random.below(8) {
            0 => overwrite(input, at, &[1 << random.below(8)], |old, bit| old ^ bit),
            1 => overwrite(input, at, &[random.byte()], |_, new| new),
            2 | 3 => {
                let bytes = random.integer();
                overwrite(input, at, &bytes, |_, new| new);
            }
            4 => {
                let bytes: Vec<_> = (0..=random.below(24)).map(|_| random.byte()).collect();
                input.splice(at..at, bytes);
            }
            5 => {
                input.drain(at..at + length);
            }
            6 => {
                let again = input[at..at + length].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = self.pick().clone();
                let from = self.random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8], join: impl Fn(u8, u8) -> u8) {
    for (old, new) in input[at..].iter_mut().zip(bytes) {
        *old = join(*old, *new);
    }
}

/// `SplitMix64`: good enough to wander, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// A big-endian integer of some width near a border.
    fn integer(&mut self) -> Vec<u8> {
        let border = [
            0,
            1 << 7,
            1 << 12,
            1 << 15,
            1 << 16,
            1 << 20,
            1 << 25,
            1 << 31,
            1 << 32,
            1 << 63,
        ][self.below(10)];
        let near = match self.below(4) {
            0 => border,
            1 => u64::wrapping_sub(border, 1),
            2 => u64::wrapping_add(border, 1),
            _ => self.next() >> self.below(64),
        };
        let width = [1, 2, 4, 8][self.below(4)];
        near.to_be_bytes()[8 - width..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragile(data: &[u8]) -> u64 {
        // Each byte right is a new way, so that the search is led to the last.
        let right = data.iter().zip(b"BUG!").take_while(|(a, b)| a == b).count();
        assert!(right < 4, "found");
        u64::try_from(right).unwrap()
    }

    fn prefix(data: &[u8]) -> u64 {
        u64::from(data.first().copied().unwrap_or(0))
    }

    #[test]
    fn a_search_finds_what_chance_would_not() {
        let mut campaign = Campaign::new(fragile, Vec::new(), 1).unwrap();
        let found = (0..1_000_000).find_map(|_| campaign.step().err());
        assert!(found.unwrap().input.starts_with(b"BUG!"));
    }

    #[test]
    fn a_seed_decides_everything() {
        let search = || {
            let mut campaign = Campaign::new(prefix, Vec::new(), 7).unwrap();
            (0..5000).for_each(|_| assert!(campaign.step().is_ok()));
            campaign.pool
        };
        assert_eq!(search(), search());
    }
}
