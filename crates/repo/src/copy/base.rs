//! The archive that a new one is compared with.

use super::{Copier, Pair};
use crate::format::snapshot::SnapshotName;
use crate::prune::needs::Needs;
use crate::{ErrorKind, Result};

impl Copier {
    /// The newest copy of an archive of the same guest that the source still has, if it is whole, and
    /// both of them. `there` are the target's archives of that guest, in order.
    pub(super) fn base(
        &mut self,
        name: &SnapshotName,
        there: &[SnapshotName],
    ) -> Result<Option<(SnapshotName, Pair)>> {
        // The nearest before it; else the nearest behind.
        let (before, behind) = there.split_at(there.partition_point(|other| other < name));
        let near = before.iter().rev().chain(behind);
        for other in near {
            let Some(pair) = self.pair(other)? else {
                continue;
            };
            if self.whole.contains(other) {
                return Ok(Some((other.clone(), pair)));
            }
            // All that it is taken for is there, and stays: of one that is forgotten it may be about
            // to go.
            let whole = match self.target.check_remembered(other) {
                Ok(()) => Needs::of_homes(&self.target).are_met(&pair.target),
                Err(e) => Err(e),
            };
            let whole = match whole {
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => false,
                whole => whole?,
            };
            if whole {
                self.whole.insert(other.clone());
                return Ok(Some((other.clone(), pair)));
            }
        }
        Ok(None)
    }

    /// An archive of the target and what it is a copy of, if the source has that.
    fn pair(&self, name: &SnapshotName) -> Result<Option<Pair>> {
        let unusable = |kind| {
            matches!(
                kind,
                ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Version
            )
        };
        let target = match self.target.any_snapshot(name) {
            Err(error) if unusable(error.kind()) => return Ok(None),
            read => read?,
        };
        let Some(origin) = &target.origin else {
            return Ok(None);
        };
        if origin.repository != self.source.config().repository {
            return Ok(None);
        }
        let source = match origin
            .archive
            .parse()
            .and_then(|name| self.source.any_snapshot(&name))
        {
            Err(error) if unusable(error.kind()) => return Ok(None),
            read => read?,
        };
        let same = source.id == origin.id;
        Ok(same.then_some(Pair { source, target }))
    }
}
