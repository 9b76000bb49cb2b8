//! The same on many objects, several at a time: each takes a journey or two.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use snapkeep_repo::Result;

use crate::limits;

/// What came of each, in no order; after the first that fails nothing more is begun.
pub(crate) fn side_by_side<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = Mutex::new(Ok(Vec::with_capacity(items.len())));
    thread::scope(|scope| {
        for _ in 0..limits::LOCK_THREADS.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let one = work(item);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *done, one) {
                        (Ok(all), Ok(one)) => all.push(one),
                        (Ok(_), Err(error)) => {
                            failed.store(true, Ordering::Relaxed);
                            *done = Err(error);
                        }
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapkeep_repo::{Error, ErrorKind};

    #[test]
    fn each_is_done_once_and_the_first_failure_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        let mut done = side_by_side(&items, |item| Ok(*item)).unwrap();
        done.sort_unstable();
        assert_eq!(done, items);
        let begun = AtomicUsize::new(0);
        let error = side_by_side(&items, |_| -> Result<()> {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(Error::new(ErrorKind::Io, "it failed"))
        });
        assert!(error.is_err());
        assert!(begun.into_inner() <= limits::LOCK_THREADS);
    }
}
