//! Heads: each names the archive that a guest's dirty bitmaps with fixed names will be relative to
//! once it is committed. It is written before the guest is read; the one with the highest sequence
//! counts, whether its archive is there or not.

use crate::format::envelope::{self, Kind};
use crate::format::head::{self, HeadName, HeadPlace};
use crate::format::snapshot::SnapshotName;
use crate::repository::Repository;
use crate::storage::{FileName, read_all, read_and_open};
use crate::{Error, ErrorKind, Result, limits, random};

impl Repository {
    /// The newest head of a place, and the archive that it names; `None` if the place has no head.
    /// `Corrupt` if it cannot be told: two heads have the highest sequence (then two hosts wrote
    /// at once), the newest is damaged, or something else lies in the place.
    pub fn latest_head(&self, place: &HeadPlace) -> Result<Option<(HeadName, SnapshotName)>> {
        let mut heads = Vec::new();
        for file in self.head_files(place)? {
            heads.push(place.parse(&file)?);
        }
        let Some(newest) = heads.iter().max_by_key(|head| head.sequence) else {
            return Ok(None);
        };
        if heads
            .iter()
            .filter(|h| h.sequence == newest.sequence)
            .count()
            > 1
        {
            let what = format!("two heads have the sequence of {newest}");
            return Err(Error::corrupt(what));
        }
        let archive = read_and_open(&*self.storage, &newest.file, limits::HEAD_MAX, |sealed| {
            let body = envelope::open(&self.keys, Kind::Head, &newest.file, sealed)?;
            head::decode(place, newest, &self.config().repository, &body)
        })?;
        Ok(Some((newest.clone(), archive)))
    }

    /// Writes a head that counts more than all others of its place.
    pub fn put_head(&self, place: &HeadPlace, archive: &SnapshotName) -> Result<HeadName> {
        self.may_write()?;
        // What is no head does not keep new ones from being written.
        let files = self.head_files(place)?;
        let heads = files.iter().filter_map(|file| place.parse(file).ok());
        let next = match heads.map(|head| head.sequence).max() {
            None => 0,
            Some(newest) => newest.checked_add(1).ok_or_else(|| {
                Error::corrupt(format!("the heads in {} are used up", place.folder()))
            })?,
        };
        let name = place.head(next, random::fresh(&*self.random)?);
        let body = head::encode(&self.config().repository, archive)?;
        let sealed = envelope::seal(&self.keys, &*self.random, Kind::Head, &name.file, &body)?;
        self.storage.put(&name.file, &sealed)?;
        Ok(name)
    }

    /// Removes the heads that count less than this one, so that none of them is the newest if
    /// this one is ever lost.
    pub fn remove_heads_before(&self, place: &HeadPlace, newest: &HeadName) -> Result<()> {
        self.may_write()?;
        for file in self.head_files(place)? {
            let old = place.parse(&file);
            if old.is_ok_and(|old| old.sequence < newest.sequence) {
                self.storage.remove(&file)?;
            }
        }
        Ok(())
    }

    /// Heads of all places that do not open.
    pub(crate) fn damaged_heads(&self) -> Result<Vec<(FileName, Error)>> {
        let mut damaged = Vec::new();
        self.storage.list(&"heads".parse()?, &mut |file, _| {
            let read = read_all(&*self.storage, file, limits::HEAD_MAX);
            let opened =
                read.and_then(|sealed| envelope::open(&self.keys, Kind::Head, file, &sealed));
            // A backup that ends removes the old ones.
            let error = opened.err().filter(|e| e.kind() != ErrorKind::NotFound);
            damaged.extend(error.map(|error| (file.clone(), error)));
            Ok(())
        })?;
        Ok(damaged)
    }

    fn head_files(&self, place: &HeadPlace) -> Result<Vec<FileName>> {
        let mut files = Vec::new();
        self.storage.list(place.folder(), &mut |file, _| {
            if files.len() >= limits::HEADS_MAX {
                let what = format!("{} has more heads than are allowed", place.folder());
                return Err(Error::corrupt(what));
            }
            files.push(file.clone());
            Ok(())
        })?;
        Ok(files)
    }
}
