//! What was decoded last, bounded by count and by bytes; each is decoded by one thread, for which
//! the others that want it wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::format::id::ChunkId;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Empty while it is being decoded, or if that failed.
type Cell<V> = Arc<Mutex<Option<Arc<V>>>>;

#[derive(Debug)]
struct Slot<V> {
    id: ChunkId,
    cell: Cell<V>,
    bytes: usize,
}

/// The one that was used last is at the end.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    slots: Mutex<VecDeque<Slot<V>>>,
    count: usize,
    bytes: usize,
}

impl<V> Cache<V> {
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        Self {
            slots: Mutex::default(),
            count,
            bytes,
        }
    }

    fn cell(&self, id: &ChunkId) -> Cell<V> {
        let mut slots = lock(&self.slots);
        let place = slots.iter().rposition(|slot| slot.id == *id);
        let slot = place.and_then(|place| slots.remove(place));
        let slot = slot.unwrap_or_else(|| Slot {
            id: *id,
            cell: Cell::default(),
            bytes: 0,
        });
        let cell = Arc::clone(&slot.cell);
        slots.push_back(slot);
        if slots.len() > self.count {
            slots.pop_front();
        }
        cell
    }

    /// What has this identity. If it must be loaded, its size is told with it.
    pub(crate) fn get(
        &self,
        id: &ChunkId,
        load: impl FnOnce() -> Result<(V, usize)>,
    ) -> Result<Arc<V>> {
        let cell = self.cell(id);
        let mut value = lock(&cell);
        if let Some(value) = &*value {
            return Ok(Arc::clone(value));
        }
        let (loaded, bytes) = load()?;
        let loaded = Arc::new(loaded);
        *value = Some(Arc::clone(&loaded));
        drop(value);
        self.weigh(id, bytes);
        Ok(loaded)
    }

    /// Notes the size of what was loaded, and forgets others for it.
    fn weigh(&self, id: &ChunkId, bytes: usize) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.iter_mut().rfind(|slot| slot.id == *id) {
            slot.bytes = bytes;
        }
        let mut total: usize = slots.iter().map(|slot| slot.bytes).sum();
        while total > self.bytes && slots.len() > 1 {
            total -= slots.pop_front().map_or(0, |slot| slot.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    /// Whether it had to be loaded.
    fn loads(cache: &Cache<u8>, number: u8, bytes: usize) -> bool {
        let mut loaded = false;
        let got = cache.get(&id(number), || {
            loaded = true;
            Ok((number, bytes))
        });
        assert_eq!(*got.expect("it loads"), number);
        loaded
    }

    #[test]
    fn it_keeps_the_last_used_within_both_bounds() {
        let cache = Cache::new(3, 100);
        assert!([1, 2, 3].iter().all(|n| loads(&cache, *n, 10)));
        assert!(!loads(&cache, 1, 10));
        assert!(loads(&cache, 4, 10));
        assert!(!loads(&cache, 1, 10) && loads(&cache, 2, 90));
        // 2 and the one used before it fill the cache.
        assert!(!loads(&cache, 1, 10) && loads(&cache, 4, 10));
        assert!(loads(&cache, 5, 1000) && !loads(&cache, 5, 1000));
        assert!(loads(&cache, 4, 10));
    }

    #[test]
    fn what_failed_to_load_is_tried_again() {
        let cache: Cache<u8> = Cache::new(3, 100);
        let failed = cache.get(&id(1), || Err(Error::corrupt("damaged")));
        assert!(failed.is_err());
        assert!(loads(&cache, 1, 1) && !loads(&cache, 1, 1));
    }
}
