//! What hosts remember of heads, outside of the repository.

use std::fmt::Debug;

use snapkeep_api::{Result, StorageId};

/// A storage, as those who back up by it know it.
#[derive(Clone, Debug)]
pub struct BitmapStorage {
    /// Its ID, which must not change while the guests' bitmaps live.
    pub id: StorageId,
    /// Where its heads are remembered.
    pub memory: std::sync::Arc<dyn HeadMemory>,
}

/// Remembers the newest head of each guest, so that a repository that was put back from an older
/// copy is recognised: its heads look right. What a guest may move between shares one memory: the
/// guest's bitmaps move with it.
pub trait HeadMemory: Debug + Send + Sync {
    /// The head that was last remembered at a place; `None` if nothing was.
    ///
    /// A place is the folder of a guest's heads in the repository, which names namespace, kind,
    /// guest and storage.
    fn remembered(&self, place: &str) -> Result<Option<String>>;

    /// Remembers a head in the place of the one before. When this fails, the backup fails, before
    /// it has read anything: if the memory kept the old head, a repository that was put back to it
    /// would look right.
    fn remember(&self, place: &str, head: &str) -> Result<()>;
}
