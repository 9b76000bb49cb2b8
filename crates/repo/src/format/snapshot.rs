//! Snapshots, `snapshots/NAMESPACE/KIND/GUEST/TIME-RANDOM`: the record of one archive, complete
//! by itself. Its file is the commit point; its path is the archive's name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes::{hex, unhex};
use super::features;
use super::id::ChunkId;
use crate::storage::FileName;
use crate::tree::TreeRecord;
use crate::{Error, ErrorKind, Result, limits};

/// The name of a snapshot: `NAMESPACE/KIND/GUEST/TIME-RANDOM`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SnapshotName(FileName);

impl SnapshotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The part before the last slash: namespace, kind and guest.
    pub fn group(&self) -> &str {
        self.as_str()
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
    }

    pub(crate) fn file(&self) -> FileName {
        format!("snapshots/{}", self.0)
            .parse()
            .expect("a prefix keeps a name valid")
    }
}

impl FromStr for SnapshotName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name: FileName = text.parse()?;
        if text.split('/').count() != 4 || text.len() > 200 {
            let what =
                format!("{text:?} is not a snapshot's name: NAMESPACE/KIND/GUEST/TIME-RANDOM");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self(name))
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The record of one archive.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Snapshot {
    /// 16 random bytes in hexadecimal.
    pub id: String,
    /// The repository's identity, so that a file copied from another one is noticed.
    pub repository: String,
    /// Features that a reader of this snapshot must know. The writer names what the tree needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Seconds since the epoch, as the caller gave them.
    pub time: i64,
    /// The disks, by device name in order.
    pub disks: Vec<DiskRecord>,
    /// The directory tree of a container, which has no disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<TreeRecord>,
    /// The guest's raw configuration.
    pub guest_config: BlobRef,
    /// The guest's raw firewall configuration, if it had one.
    pub firewall_config: Option<BlobRef>,
    /// The writer, whose index objects are numbered from zero.
    pub writer: String,
    /// How many index objects that writer had written when it committed.
    pub index_objects: u32,
    /// The highest number in `prune/` that its writer saw before it read the index.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// What was done to make it.
    pub stats: Stats,
    /// The program that made it, and its version.
    pub program: String,
    /// The archive that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The archive of another repository that one is a copy of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Origin {
    /// That repository's identity.
    pub repository: String,
    /// The archive's name there.
    pub archive: String,
    /// Its snapshot's id.
    pub id: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Bytes that lie in one data chunk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BlobRef {
    /// `None` if there are no bytes.
    pub chunk: Option<ChunkId>,
    /// Their number.
    pub length: u32,
}

/// A disk of a snapshot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DiskRecord {
    /// The device name.
    pub device: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of each chunk but the last.
    pub chunk_size: u32,
    /// The root node of its map; `None` if the disk is all zeroes.
    pub root: Option<ChunkId>,
    /// What a dirty bitmap that is reused next time may be trusted by.
    pub lineage: Lineage,
}

/// How a disk was read, and in which life of its guest.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lineage {
    /// The archive it was read incrementally to, if it was. The snapshot does not need it.
    pub base: Option<String>,
    /// The storage, as its host knows it.
    pub storage: Option<String>,
    /// The dirty bitmap with a fixed name that is relative to this archive from here on.
    pub bitmap: Option<String>,
    /// The guest's QEMU: boot id in hexadecimal, process id and start time.
    pub process: Option<String>,
    /// The guest's generation id, in hexadecimal.
    pub vmgenid: Option<String>,
}

/// What a backup did, in bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stats {
    /// Sum of the disks' sizes.
    pub size: u64,
    /// What was read from the guest.
    pub read: u64,
    /// What was not stored before, before compression.
    pub new: u64,
    /// What the repository grew by, metadata included, the snapshot's own file left out.
    pub stored: u64,
}

impl Snapshot {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode a snapshot", e))
    }

    pub(crate) fn decode(name: &SnapshotName, repository: &str, body: &[u8]) -> Result<Self> {
        let snapshot: Self = serde_json::from_slice(body).map_err(|e| {
            Error::with_source(
                ErrorKind::Corrupt,
                format!("snapshot {name} is not readable"),
                e,
            )
        })?;
        let corrupt = |why: &str| Err(Error::corrupt(format!("snapshot {name} {why}")));
        if snapshot.repository != repository {
            return corrupt("belongs to another repository");
        }
        for feature in &snapshot.needs {
            features::require(&format!("archive {name}"), feature)?;
        }
        snapshot.check_limits(name)?;
        Ok(snapshot)
    }

    /// Fails with what is larger than a reader takes.
    pub(crate) fn check_limits(&self, name: &SnapshotName) -> Result<()> {
        let corrupt = |why: &str| Err(Error::corrupt(format!("snapshot {name} {why}")));
        if self.disks.len() > limits::DISKS_MAX {
            return corrupt("has more disks than are allowed");
        }
        let configs = [Some(&self.guest_config), self.firewall_config.as_ref()];
        let too_long = |c: &&BlobRef| c.length as usize > limits::GUEST_CONFIG_MAX;
        if configs.into_iter().flatten().any(|c| too_long(&c)) {
            return corrupt("has a longer configuration than is allowed");
        }
        let needs_trees = self.needs.iter().any(|feature| feature == features::TREES);
        if self.tree.is_some() && (!self.disks.is_empty() || !needs_trees) {
            return corrupt("has a directory tree beside disks, or without the feature it needs");
        }
        for disk in &self.disks {
            let size = disk.chunk_size as usize;
            let proper = (limits::CHUNK_MIN..=limits::CHUNK_MAX).contains(&size);
            if !proper || !size.is_power_of_two() || disk.size > limits::DISK_SIZE_MAX {
                return corrupt("has a disk of an impossible size or chunk size");
            }
        }
        Ok(())
    }
}

impl Serialize for ChunkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = unhex(&text).ok_or_else(|| serde::de::Error::custom("not a chunk id"))?;
        Ok(Self(id))
    }
}
