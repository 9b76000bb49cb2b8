//! Archives that are there and not listed yet.

use crate::Result;
use crate::format::snapshot::SnapshotName;
use crate::prune::needs::Needs;
use crate::repository::Repository;

impl Repository {
    /// Whether a [late](Self::late) archive has all that it needs, some of it in packs that are
    /// condemned: it was taken back or made just as a sweep began. That sweep, or the next one if it died,
    /// copies this, and then the archive is listed. Of others something is gone, and nobody was told
    /// that they were there.
    pub fn waits_for_sweep(&self, archive: &SnapshotName) -> Result<bool> {
        let snapshot = self.any_snapshot(archive)?;
        Needs::of_all(self).are_met(&snapshot)
    }
}
