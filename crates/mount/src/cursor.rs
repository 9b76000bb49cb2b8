//! Going through a folder of any size with little memory, also back to where one was.

use snapkeep_api::tree::Name;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::inode::{Found, Inode};
use crate::limits::{BATCH, BATCH_XATTRS, MARKS_MAX};

/// Where an open folder is read. Entries have positions, from 0.
///
/// It keeps one batch of entries, and every `spacing`-th name it came past: from there it goes on
/// to a position that is not in the batch.
pub(crate) struct Cursor {
    start: u64,
    batch: Vec<(Name, Found)>,
    /// The `n`-th is the name of the entry at position `(n + 1) * spacing - 1`.
    marks: Vec<Name>,
    spacing: u64,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            start: 0,
            batch: Vec::new(),
            marks: Vec::new(),
            spacing: BATCH as u64,
        }
    }
}

impl Cursor {
    /// The entry at this position; `None` past the last.
    pub(crate) fn at(&mut self, folder: &Inode, position: u64) -> Result<Option<&(Name, Found)>> {
        if position < self.start || position > self.end() {
            self.go_back(position);
        }
        while position >= self.end() {
            if !self.go_on(folder)? {
                return Ok(None);
            }
        }
        let at = usize::try_from(position - self.start).ok();
        Ok(at.and_then(|at| self.batch.get(at)))
    }

    fn end(&self) -> u64 {
        self.start + self.batch.len() as u64
    }

    /// To the last mark before this position, with nothing in the batch but its entry's name.
    fn go_back(&mut self, position: u64) {
        let marks = usize::try_from(position / self.spacing).unwrap_or(usize::MAX);
        let marks = marks.min(self.marks.len());
        self.batch.clear();
        self.start = marks as u64 * self.spacing;
    }

    /// Takes the next batch; `false` if there is none.
    fn go_on(&mut self, folder: &Inode) -> Result<bool> {
        let end = self.end();
        let after = match self.batch.last() {
            Some((name, _)) => Some(name.clone()),
            None if end == 0 => None,
            None => {
                let mark = usize::try_from(end / self.spacing - 1).ok();
                let mark = mark.and_then(|mark| self.marks.get(mark)).cloned();
                let lost = || Error::new(ErrorKind::Protocol, "a place in a folder is lost");
                Some(mark.ok_or_else(lost)?)
            }
        };
        let mut batch = folder.list(after.as_ref(), BATCH)?;
        let names = after.iter().chain(batch.iter().map(|(name, _)| name));
        if batch.len() > BATCH || !names.is_sorted_by(|a, b| a < b) {
            let what = "its entries are not in order, or more than were asked for";
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        batch.truncate(affordable(&batch));
        if batch.is_empty() {
            return Ok(false);
        }
        for (position, (name, _)) in (end..).zip(&batch) {
            let next_mark = (self.marks.len() as u64 + 1) * self.spacing - 1;
            if position == next_mark {
                self.mark(name.clone());
            }
        }
        self.start = end;
        self.batch = batch;
        Ok(true)
    }

    fn mark(&mut self, name: Name) {
        self.marks.push(name);
        if self.marks.len() > MARKS_MAX {
            // Every second one stays.
            let marks = std::mem::take(&mut self.marks).into_iter();
            self.marks = marks.skip(1).step_by(2).collect();
            self.spacing *= 2;
        }
    }
}

/// How many entries can be kept: at least one.
fn affordable(batch: &[(Name, Found)]) -> usize {
    let mut bytes = 0;
    let lengths = batch.iter().map(|(_, found)| match found {
        Found::Node(_) => 0,
        Found::Entry(node) => {
            let xattrs = node.entry.attributes.xattrs.iter();
            xattrs.map(|x| x.name.len() + x.value.len()).sum()
        }
    });
    let fits = lengths.take_while(|length: &usize| {
        bytes += *length;
        bytes <= BATCH_XATTRS
    });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapkeep_api::tree::Timestamp;

    use super::*;
    use crate::location::Location;
    use crate::node::{FixedFolder, Folder, Node};

    fn folder(of: impl Folder + 'static) -> Inode {
        let node = Node::Folder(Arc::new(of));
        Inode::of_node(Location::root(), node).unwrap().0
    }

    fn numbered(entries: u32) -> Inode {
        let empty = Node::Folder(Arc::new(FixedFolder::default()));
        let names = (0..entries).map(|n| Name::new(format!("{n:07}").into_bytes()).unwrap());
        let entries = names.map(|name| (name, empty.clone()));
        folder(FixedFolder::new(entries, Timestamp::default()))
    }

    fn at(cursor: &mut Cursor, folder: &Inode, position: u64) -> Option<u64> {
        let (name, _) = cursor.at(folder, position).unwrap()?;
        Some(name.to_string().parse().unwrap())
    }

    #[test]
    fn every_entry_is_met_once_and_every_place_found_again() {
        let entries = 100_001;
        let folder = numbered(entries);
        let mut cursor = Cursor::default();
        for position in 0..u64::from(entries) {
            assert_eq!(at(&mut cursor, &folder, position), Some(position));
        }
        assert_eq!(at(&mut cursor, &folder, entries.into()), None);
        assert!(cursor.marks.len() <= MARKS_MAX && cursor.batch.len() <= BATCH);
        for position in (0..entries).step_by(997).rev().map(u64::from) {
            assert_eq!(at(&mut cursor, &folder, position), Some(position));
        }
        let mut cursor = Cursor::default();
        assert_eq!(at(&mut cursor, &folder, 77_777), Some(77_777));
        assert_eq!(at(&mut cursor, &folder, 1 << 40), None);
        assert_eq!(at(&mut cursor, &folder, 0), Some(0));
        assert_eq!(at(&mut Cursor::default(), &numbered(0), 0), None);
    }

    struct Circle;

    impl Folder for Circle {
        fn list(&self, _: Option<&Name>, _: usize) -> Result<Vec<(Name, Node)>> {
            let node = Node::Folder(Arc::new(Circle));
            Ok(vec![(Name::new(&b"again"[..])?, node)])
        }

        fn lookup(&self, _: &Name) -> Result<Option<Node>> {
            Ok(None)
        }
    }

    #[test]
    fn a_folder_that_never_ends_is_refused() {
        let folder = folder(Circle);
        let mut cursor = Cursor::default();
        assert!(cursor.at(&folder, 0).unwrap().is_some());
        assert_eq!(
            cursor.at(&folder, 1).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}
