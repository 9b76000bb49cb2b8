//! Heads, `heads/NAMESPACE/KIND/GUEST/STORAGE/SEQUENCE-RANDOM`: which archive the dirty bitmap of
//! a guest is relative to, where the bitmap's own name does not say. `SEQUENCE` and `RANDOM` are
//! 16 hexadecimal digits each; the body is JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bytes::unhex;
use super::snapshot::SnapshotName;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result};

/// Where the heads of one guest on one storage lie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeadPlace(FileName);

impl HeadPlace {
    /// The place of this archive's guest on the storage that its host calls by this name.
    pub fn new(archive: &SnapshotName, storage: &str) -> Result<Self> {
        if storage.contains('/') {
            let what = format!("{storage:?} cannot name a storage");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        format!("heads/{}/{storage}", archive.group())
            .parse()
            .map(Self)
    }

    pub(crate) fn folder(&self) -> &FileName {
        &self.0
    }

    /// The folder.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn head(&self, sequence: u64, random: [u8; 8]) -> HeadName {
        let random = u64::from_be_bytes(random);
        let file = format!("{}/{sequence:016x}-{random:016x}", self.0).parse();
        HeadName {
            sequence,
            file: file.expect("hexadecimal digits keep a name valid"),
        }
    }

    /// What a file below this place is; an error if it is no head.
    pub(crate) fn parse(&self, file: &FileName) -> Result<HeadName> {
        let sequence = (|| {
            let last = file.as_str().strip_prefix(self.0.as_str())?;
            let (sequence, random) = last.strip_prefix('/')?.split_once('-')?;
            unhex::<8>(random)?;
            unhex::<8>(sequence).map(u64::from_be_bytes)
        })();
        match sequence {
            Some(sequence) => Ok(HeadName {
                sequence,
                file: file.clone(),
            }),
            None => Err(Error::corrupt(format!("{file} is not the name of a head"))),
        }
    }
}

/// The name of a head, which no other head ever has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeadName {
    pub(crate) sequence: u64,
    pub(crate) file: FileName,
}

impl fmt::Display for HeadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

/// A head's body.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The repository's identity.
    repository: String,
    /// The archive, of the guest that the head's own name says.
    archive: String,
}

pub(crate) fn encode(repository: &str, archive: &SnapshotName) -> Result<Vec<u8>> {
    let body = Body {
        repository: repository.to_owned(),
        archive: archive.as_str().to_owned(),
    };
    serde_json::to_vec(&body)
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode a head", e))
}

/// The archive that a head names.
pub(crate) fn decode(
    place: &HeadPlace,
    name: &HeadName,
    repository: &str,
    body: &[u8],
) -> Result<SnapshotName> {
    let body: Body = serde_json::from_slice(body).map_err(|e| {
        Error::with_source(ErrorKind::Corrupt, format!("{name} is not readable"), e)
    })?;
    let archive: SnapshotName = body.archive.parse()?;
    let folder = format!("heads/{}/", archive.group());
    if body.repository != repository || !place.folder().as_str().starts_with(&folder) {
        let what = format!("{name} belongs to another repository or guest");
        return Err(Error::corrupt(what));
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(group: &str) -> SnapshotName {
        format!("{group}/1970-0").parse().expect("a valid name")
    }

    #[test]
    fn a_head_of_another_guest_or_repository_is_refused() {
        let mine = archive("main/vm/100");
        let place = HeadPlace::new(&mine, "store").expect("a place");
        let name = place.head(7, [9; 8]);
        assert_eq!(place.parse(&name.file).ok(), Some(name.clone()));
        let body = encode("here", &mine).expect("a body");
        assert_eq!(decode(&place, &name, "here", &body).ok(), Some(mine));
        assert!(decode(&place, &name, "there", &body).is_err());
        let body = encode("here", &archive("main/vm/1000")).expect("a body");
        assert!(decode(&place, &name, "here", &body).is_err());
    }

    #[test]
    fn only_two_numbers_name_a_head() {
        let place = HeadPlace::new(&archive("main/vm/100"), "store").expect("a place");
        for bad in [
            "1-2",
            "0000000000000001",
            "a/0000000000000001-0000000000000002",
        ] {
            let file = format!("heads/main/vm/100/store/{bad}").parse();
            assert!(place.parse(&file.expect("a file's name")).is_err(), "{bad}");
        }
        assert!(HeadPlace::new(&archive("main/vm/100"), "a/b").is_err());
        assert!(HeadPlace::new(&archive("main/vm/100"), "..").is_err());
    }
}
