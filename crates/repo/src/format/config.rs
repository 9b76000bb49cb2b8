//! The file `config`: four lines of text, the last written when a repository is made and the
//! first read when it is opened.
//!
//! Line 1 is for people, line 2 is JSON, line 3 `blake3 HEX` of lines 1 and 2 with their line
//! ends, line 4 `mac HEX`, their keyed BLAKE3 under the config key.

use serde::{Deserialize, Serialize};

use super::bytes::{hex, unhex};
use super::features;
use crate::keys::Keys;
use crate::{Error, ErrorKind, Result, limits};

/// The version of the format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
const FIRST_LINE: &str = "snapkeep repository, format 1\n";

/// What a repository says of itself, in the clear.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The format's version.
    pub version: u32,
    /// 16 random bytes in hexadecimal.
    pub repository: String,
    /// The chunk size of disks, in bytes.
    pub chunk_size: u32,
    /// Features that a reader must know.
    pub incompatible: Vec<String>,
    /// Features that a writer must know.
    pub read_only_compatible: Vec<String>,
    /// Features that may be ignored.
    pub compatible: Vec<String>,
}

impl Config {
    pub(crate) fn new(repository: [u8; 16], chunk_size: usize) -> Result<Self> {
        let config = Self {
            version: FORMAT_VERSION,
            repository: hex(&repository),
            chunk_size: u32::try_from(chunk_size).unwrap_or(u32::MAX),
            incompatible: Vec::new(),
            read_only_compatible: Vec::new(),
            compatible: Vec::new(),
        };
        config.check()?;
        Ok(config)
    }

    /// The chunk size of disks, in bytes.
    pub fn chunk_size(&self) -> usize {
        usize::try_from(self.chunk_size).expect("a chunk size fits in memory")
    }

    fn check(&self) -> Result<()> {
        let size = self.chunk_size();
        if !(limits::CHUNK_MIN..=limits::CHUNK_MAX).contains(&size) || !size.is_power_of_two() {
            let what = format!(
                "a chunk size of {size} bytes cannot be used: it must be a power of two from {} to {}",
                limits::CHUNK_MIN,
                limits::CHUNK_MAX
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    pub(crate) fn encode(&self, keys: &Keys) -> Result<Vec<u8>> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode config", e))?;
        let text = format!("{FIRST_LINE}{json}\n");
        let sum = hex(blake3::hash(text.as_bytes()).as_bytes());
        let mac = hex(&keys.config_mac(text.as_bytes()));
        Ok(format!("{text}blake3 {sum}\nmac {mac}\n").into_bytes())
    }

    /// Reads the file without a key: what it says, and what its last line must prove.
    pub(crate) fn decode(file: &[u8]) -> Result<(Self, Proof)> {
        let corrupt = |why: &str| Error::corrupt(format!("config {why}"));
        let text = std::str::from_utf8(file).map_err(|_e| corrupt("is not text"))?;
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let [first, json, sum, mac] = lines[..] else {
            return Err(corrupt("does not have four lines"));
        };
        if !first.starts_with("snapkeep repository, format ") {
            return Err(corrupt("is not of a snapkeep repository"));
        }
        let covered = [first, json].concat();
        let value =
            |line: &str, word: &str| unhex::<32>(line.strip_prefix(word)?.strip_suffix('\n')?);
        if value(sum, "blake3 ") != Some(*blake3::hash(covered.as_bytes()).as_bytes()) {
            return Err(corrupt("does not match its checksum"));
        }
        let mac = value(mac, "mac ").ok_or_else(|| corrupt("has no proof in its fourth line"))?;
        let version = serde_json::from_str::<Version>(json)
            .map_err(|e| Error::with_source(ErrorKind::Corrupt, "config is not readable", e))?
            .version;
        if version != FORMAT_VERSION || first != FIRST_LINE {
            let what = format!(
                "the repository has format {version} and its first line is {:?}, this program knows format {FORMAT_VERSION}; use the program that made it, or a newer one",
                first.trim_end()
            );
            return Err(Error::new(ErrorKind::Version, what));
        }
        let config: Self = serde_json::from_str(json).map_err(|e| {
            Error::with_source(
                ErrorKind::Version,
                "config says more than this program knows",
                e,
            )
        })?;
        for feature in &config.incompatible {
            features::require("the repository", feature)?;
        }
        config.check()?;
        Ok((
            config,
            Proof {
                covered: covered.into_bytes(),
                mac,
            },
        ))
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What a key must prove of a `config` before it is believed.
#[derive(Debug)]
pub(crate) struct Proof {
    covered: Vec<u8>,
    mac: [u8; 32],
}

impl Proof {
    pub(crate) fn holds(&self, keys: &Keys) -> bool {
        keys.config_mac(&self.covered) == self.mac
    }

    /// Whether both are about the same words.
    pub(crate) fn is_of_the_same(&self, other: &Self) -> bool {
        self.covered == other.covered
    }
}
