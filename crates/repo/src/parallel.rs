//! Work by several threads: the same on many items, or two things at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::storage::Storage;
use crate::{Error, Result, limits};

/// Asks two things of a storage that do not depend on each other: at once if it is far, in this order
/// otherwise. If both fail, the error is the first one's.
pub(crate) fn both<A, B: Send>(
    storage: &dyn Storage,
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    if !storage.is_far() {
        return Ok((first()?, second()?));
    }
    std::thread::scope(|scope| {
        let (second, mine) = match std::thread::Builder::new().spawn_scoped(scope, second) {
            Ok(second) => (second, first()),
            Err(e) => return Err(Error::io("cannot start a thread", e)),
        };
        let second = second.join();
        let second = second.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((mine?, second?))
    })
}

/// Does this to every item with so many threads, this one among them, until something fails. Each
/// thread has something of its own.
pub(crate) fn work_off<T: Send, S, E: Send>(
    threads: usize,
    items: Vec<T>,
    own: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = threads.clamp(1, items.len().max(1));
    let (queue, failure) = (Mutex::new(items.into_iter()), Mutex::new(None));
    let next = || {
        let failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.next().filter(|_| failed.is_none())
    };
    let run = || {
        let mut own = own();
        while let Some(item) = next() {
            if let Err(error) = work(&mut own, item) {
                let mut failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is the only one if the machine has no more to give.
        for _ in 1..threads {
            if std::thread::Builder::new()
                .spawn_scoped(scope, run)
                .is_err()
            {
                break;
            }
        }
        run();
    });
    let failed = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// Does this to every item with several threads. What failed, by its number, in order.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Vec<(usize, Error)> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(limits::VERIFY_THREADS) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else {
                        return;
                    };
                    if let Err(error) = work(item) {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push((number, error));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|(number, _)| *number);
    failed
}
