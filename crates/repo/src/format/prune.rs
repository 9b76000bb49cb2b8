//! What lies in `prune/`: generations, `NUMBER-RANDOM`, that condemn packs and name the archives
//! that go with them; markers, `NUMBER-RANDOM-swept`, that say that a sweep began; probes,
//! `RANDOM-probe`, that ask the storage for its time. `NUMBER` is 8 decimal digits, `RANDOM` 16
//! hexadecimal ones.
//!
//! ```text
//! generation  4       number of packs
//!             32      identity of each, ascending
//!             4       number of archives
//!             1, –    length and name of each, ascending
//! marker      4       number of archives that stay
//!             16      the first bytes of the BLAKE3 of the name of each, ascending
//! ```

use super::bytes::{Bytes, hex, length_u32, unhex};
use super::id::PackId;
use super::snapshot::SnapshotName;
use crate::storage::FileName;
use crate::{Error, Result, limits};

/// The highest number that eight digits can say.
pub(crate) const NUMBER_MAX: u32 = 99_999_999;

/// What a file below `prune/` is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PruneFile {
    /// A generation with this number.
    Generation(u32),
    /// A marker with this number.
    Marker(u32),
    Probe,
}

impl PruneFile {
    /// `None` if it is none of them.
    pub(crate) fn parse(file: &FileName) -> Option<Self> {
        let rest = file.as_str().strip_prefix("prune/")?;
        let (first, rest) = rest.split_once('-')?;
        if rest == "probe" {
            return unhex::<8>(first).map(|_| Self::Probe);
        }
        if first.len() != 8 || !first.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = first.parse().ok()?;
        let (random, made): (_, fn(u32) -> Self) = match rest.strip_suffix("-swept") {
            Some(random) => (random, Self::Marker),
            None => (rest, Self::Generation),
        };
        unhex::<8>(random).map(|_| made(number))
    }

    /// A name that nothing else has.
    pub(crate) fn name(self, random: [u8; 8]) -> FileName {
        let random = hex(&random);
        let text = match self {
            Self::Generation(number) => format!("prune/{number:08}-{random}"),
            Self::Marker(number) => format!("prune/{number:08}-{random}-swept"),
            Self::Probe => format!("prune/{random}-probe"),
        };
        text.parse().expect("digits make a valid name")
    }
}

/// What one pruning condemns.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation {
    /// In ascending order.
    pub(crate) packs: Vec<PackId>,
    /// In ascending order.
    pub(crate) archives: Vec<SnapshotName>,
}

impl Generation {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = length_u32(self.packs.len()).to_le_bytes().to_vec();
        for pack in &self.packs {
            out.extend_from_slice(&pack.0);
        }
        out.extend_from_slice(&length_u32(self.archives.len()).to_le_bytes());
        for archive in &self.archives {
            let name = archive.as_str().as_bytes();
            out.push(u8::try_from(name.len()).expect("a snapshot's name is short"));
            out.extend_from_slice(name);
        }
        out
    }

    pub(crate) fn decode(file: &FileName, body: &[u8]) -> Result<Self> {
        Self::parse(body).map_err(|why| Error::corrupt(format!("generation {file} {why}")))
    }

    fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let mut bytes = Bytes(body);
        let packs = bytes.u32().ok_or(SHORT)? as usize;
        if packs > limits::GENERATION_PACKS_MAX || packs * 32 > bytes.0.len() {
            return Err("has an impossible number of packs");
        }
        let packs = (0..packs).map(|_| bytes.array().map(PackId).ok_or(SHORT));
        let packs = packs.collect::<Result<Vec<_>, _>>()?;
        let count = bytes.u32().ok_or(SHORT)? as usize;
        if count > limits::GENERATION_ARCHIVES_MAX || count > bytes.0.len() {
            return Err("has an impossible number of archives");
        }
        let mut archives = Vec::new();
        for _ in 0..count {
            let length = bytes.u8().ok_or(SHORT)?;
            let name = bytes.take(usize::from(length)).ok_or(SHORT)?;
            let name = std::str::from_utf8(name).ok();
            let name = name.and_then(|name| name.parse::<SnapshotName>().ok());
            archives.push(name.ok_or("has a name that is no archive's")?);
        }
        if !bytes.is_empty() {
            return Err("goes on behind its end");
        }
        if !packs.is_sorted_by(|a, b| a < b) || !archives.is_sorted_by(|a, b| a < b) {
            return Err("is not in order");
        }
        Ok(Self { packs, archives })
    }
}

const SHORT: &str = "is too short";

/// An archive as a marker names it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Survivor([u8; 16]);

impl Survivor {
    pub(crate) fn of(archive: &SnapshotName) -> Self {
        let hash = blake3::hash(archive.as_str().as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        Self(first)
    }
}

/// The archives that a sweep found and that stay.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Survivors(Vec<Survivor>);

impl Survivors {
    pub(crate) fn new(archives: impl Iterator<Item = Survivor>) -> Self {
        let mut all: Vec<_> = archives.collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    pub(crate) fn contains(&self, archive: &SnapshotName) -> bool {
        self.names(&Survivor::of(archive))
    }

    pub(crate) fn names(&self, one: &Survivor) -> bool {
        self.0.binary_search(one).is_ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Survivor> {
        self.0.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = length_u32(self.0.len()).to_le_bytes().to_vec();
        self.0.iter().for_each(|one| out.extend_from_slice(&one.0));
        out
    }

    pub(crate) fn decode(file: &FileName, body: &[u8]) -> Result<Self> {
        Self::parse(body).map_err(|why| Error::corrupt(format!("sweep marker {file} {why}")))
    }

    fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let mut bytes = Bytes(body);
        let count = bytes.u32().ok_or(SHORT)? as usize;
        if count > limits::SURVIVORS_MAX || count.checked_mul(16) != Some(bytes.0.len()) {
            return Err("has an impossible number of archives");
        }
        let all = (0..count).map(|_| bytes.array().map(Survivor).ok_or(SHORT));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if !all.is_sorted_by(|a, b| a < b) {
            return Err("is not in order");
        }
        Ok(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::noise;

    fn generation() -> Generation {
        let archive = |text: &str| format!("main/vm/{text}/1970-0").parse().expect("a name");
        Generation {
            packs: vec![PackId([1; 32]), PackId([2; 32])],
            archives: vec![archive("100"), archive("web")],
        }
    }

    fn survivors() -> Survivors {
        Survivors::new(generation().archives.iter().map(Survivor::of))
    }

    #[test]
    fn names_are_what_they_say_and_nothing_else_is_one() {
        for file in [
            PruneFile::Generation(7),
            PruneFile::Marker(NUMBER_MAX),
            PruneFile::Probe,
        ] {
            assert_eq!(PruneFile::parse(&file.name([0xab; 8])), Some(file));
        }
        for bad in [
            "prune/7-abababababababab",
            "prune/00000007-abababababababab-swept-swept",
            "prune/00000007-ABABABABABABABAB",
            "prune/00000007-abab",
            "prune/+0000007-abababababababab",
            "prune/00000007-probe",
            "prune/abababababababab",
            "prune/a/00000007-abababababababab",
        ] {
            let file = bad.parse().expect("a file's name");
            assert_eq!(PruneFile::parse(&file), None, "{bad}");
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let file = "prune/x".parse().expect("a name");
        let decoded = Generation::decode(&file, &generation().encode());
        assert_eq!(decoded.expect("a generation"), generation());
        let decoded = Survivors::decode(&file, &survivors().encode());
        let decoded = decoded.expect("a marker");
        assert_eq!(decoded, survivors());
        assert!(generation().archives.iter().all(|a| decoded.contains(a)));
        assert!(!decoded.contains(&"main/vm/1/1970-0".parse().expect("a name")));
    }

    #[test]
    fn what_is_not_in_order_or_there_twice_is_refused() {
        let mut twice = generation();
        twice.packs[1] = twice.packs[0];
        assert!(Generation::parse(&twice.encode()).is_err());
        let mut turned = generation();
        turned.archives.reverse();
        assert!(Generation::parse(&turned.encode()).is_err());
        let mut turned = survivors();
        turned.0.reverse();
        assert!(Survivors::parse(&turned.encode()).is_err());
    }

    #[test]
    fn damaged_bytes_are_refused_or_decode_to_what_encodes_to_them() {
        for bytes in noise::around(&[generation().encode(), survivors().encode()]) {
            if let Ok(found) = Generation::parse(&bytes) {
                assert_eq!(found.encode(), bytes);
            }
            if let Ok(found) = Survivors::parse(&bytes) {
                assert_eq!(found.encode(), bytes);
            }
        }
    }
}
