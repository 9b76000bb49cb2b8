//! Files that the storage keeps: a removal that a lock denies ends no sweep. Where a removal only
//! hides a file there are none of these.

use super::Swept;
use crate::{ErrorKind, Result};

/// Whether a file of so many bytes was removed, as far as they are known; not if a lock keeps it, for
/// a later sweep to try again.
pub(super) fn unless_locked(removed: Result<()>, bytes: u64, swept: &mut Swept) -> Result<bool> {
    match removed {
        Err(e) if e.kind() == ErrorKind::Locked => {
            swept.locked.add(bytes);
            Ok(false)
        }
        removed => removed.map(|()| true),
    }
}
