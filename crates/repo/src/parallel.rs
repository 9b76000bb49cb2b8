//! Work by several threads: the same on many items, or two things at once.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Does this to every item with so many threads, this one among them, until something fails or
/// panics. Each thread has something of its own.
pub(crate) fn work_off<I, S, E: Send>(
    threads: usize,
    items: I,
    own: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, I::Item) -> Result<(), E> + Sync,
) -> Result<(), E>
where
    I: IntoIterator<IntoIter: ExactSizeIterator + Send>,
{
    let items = items.into_iter();
    let threads = threads.clamp(1, items.len().max(1));
    let (queue, failure) = (Mutex::new(items), Mutex::new(None));
    let panicked = AtomicBool::new(false);
    let next = || {
        let failed = lock(&failure).is_some() || panicked.load(Ordering::SeqCst);
        if failed { None } else { lock(&queue).next() }
    };
    let run = || {
        let _alarm = Alarm(&panicked);
        let mut own = own();
        while let Some(item) = next() {
            if let Err(error) = work(&mut own, item) {
                lock(&failure).get_or_insert(error);
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

/// Tells the other threads of a panic in this one: it is told when all have ended, and what they
/// would do until then is of no use.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// Does this to every item with several threads. What failed, by its number, in order.
pub(crate) fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Vec<(usize, Error)> {
    let failed = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(limits::VERIFY_THREADS);
    let Ok(()) = work_off::<_, _, Infallible>(
        threads,
        items.iter().enumerate(),
        || (),
        |(), (number, item)| {
            if let Err(error) = work(item) {
                lock(&failed).push((number, error));
            }
            Ok(())
        },
    );
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_by_key(|(number, _)| *number);
    failed
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::OnceCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::current;

    thread_local! {
        /// Hung up when a thread has ended.
        static ENDS: OnceCell<Sender<()>> = const { OnceCell::new() };
    }

    #[test]
    fn after_a_panic_the_other_threads_begin_nothing_more() {
        let (ends, ended) = channel();
        let (ends, ended) = (Mutex::new(Some(ends)), Mutex::new(ended));
        let (caller, begun) = (current().id(), AtomicUsize::new(0));
        let worked = catch_unwind(AssertUnwindSafe(|| {
            work_off::<_, _, Error>(
                2,
                0..1000,
                || (),
                |(), _| {
                    if current().id() == caller {
                        begun.fetch_add(1, Ordering::SeqCst);
                        lock(&ended).recv().expect_err("it only hangs up");
                        return Ok(());
                    }
                    let ends = lock(&ends).take().expect("one panics");
                    ENDS.with(|cell| cell.set(ends)).expect("once");
                    panic!("on purpose");
                },
            )
        }));
        worked.expect_err("it is told");
        let begun = begun.into_inner();
        assert!(begun <= 1, "{begun} were begun");
    }

    #[test]
    fn all_are_worked_off_and_failures_are_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let failed = in_parallel(&items, |item| {
            if item % 10 == 3 {
                return Err(Error::corrupt(item.to_string()));
            }
            Ok(())
        });
        let numbers: Vec<usize> = failed.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 13, 23, 33, 43, 53, 63, 73, 83, 93]);
        assert_eq!(failed[4].1.to_string(), "43");
    }
}
