//! A bucket as the place of a repository's files.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use snapkeep_repo::{Error, ErrorKind, FileName, Result, Storage, already_there, too_long};
use tokio::runtime::Runtime;

use crate::account::Account;
use crate::attempt::{ATTEMPT, Attempt};
use crate::build;
use crate::clock::StorageClock;
use crate::fault::{Deed, Subject, Trouble};
use crate::lent::lend;
use crate::limits;
use crate::listing::{Listing, is_mostly_empty};
use crate::location::Location;
use crate::lock::{Locking, is_to_be_locked};
use crate::reading::{self, Found};
use crate::signed::Asker;
use crate::tries::Tries;

/// Asked now and then whether the end is wanted.
pub type Cancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a bucket is used.
#[derive(Clone)]
pub struct Options {
    /// A file with credentials; without it, Amazon's places are looked at.
    pub credentials_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted besides the machine's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// How long a request is tried again.
    pub retry_deadline: Duration,
    /// Counts what is used, and bounds it: one for all storages of a run.
    pub account: Arc<Account>,
    /// Whether the end is wanted.
    pub cancelled: Cancelled,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials_file: None,
            ca_file: None,
            retry_deadline: limits::RETRY_DEADLINE,
            account: Arc::default(),
            cancelled: Arc::new(|| false),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Options"))
            .field("credentials_file", &self.credentials_file)
            .field("ca_file", &self.ca_file)
            .field("retry_deadline", &self.retry_deadline)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// A repository's files as objects of a bucket.
pub struct S3Storage {
    location: Location,
    options: Options,
    store: AmazonS3,
    asker: Asker,
    clock: Arc<StorageClock>,
    pub(crate) locking: Locking,
    /// There until this is dropped.
    runtime: Option<Runtime>,
    /// What was put here, and its length: a storage that says it is not there is behind.
    put: Mutex<HashMap<FileName, u64>>,
    /// Folders that were empty when they were last listed.
    empty: Mutex<HashSet<String>>,
    /// Whether the bucket did what it was asked for once: then its name is right, and the endpoint's.
    answered: AtomicBool,
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("S3Storage"))
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl S3Storage {
    /// A storage at this location. Nothing is asked of it yet.
    pub fn new(location: Location, options: Options) -> Result<Self> {
        let clock = Arc::new(StorageClock::default());
        let (store, asker) = build::store(&location, &options, &clock)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits::RUNTIME_THREADS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the threads for S3", e))?;
        Ok(Self {
            location,
            options,
            store,
            asker,
            clock,
            locking: Locking::default(),
            runtime: Some(runtime),
            put: Mutex::default(),
            empty: Mutex::default(),
            answered: AtomicBool::new(false),
        })
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What was asked of it.
    pub fn account(&self) -> &Arc<Account> {
        &self.options.account
    }

    pub(crate) fn store(&self) -> &AmazonS3 {
        &self.store
    }

    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    pub(crate) fn clock(&self) -> &StorageClock {
        &self.clock
    }

    pub(crate) fn path(&self, name: &FileName) -> Result<Path> {
        let key = self.location.key(name.as_str());
        Path::parse(&key).map_err(|e| {
            Error::with_source(
                ErrorKind::Invalid,
                format!("{key} is no key of an object"),
                e,
            )
        })
    }

    fn puts(&self) -> MutexGuard<'_, HashMap<FileName, u64>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empties(&self) -> MutexGuard<'_, HashSet<String>> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The length of what was put here.
    pub(crate) fn put_length(&self, name: &FileName) -> Option<u64> {
        self.puts().get(name).copied()
    }

    /// Does a deed until it is done, fails for good, or the deadline passes. It is told how many
    /// replies were wrong before.
    pub(crate) fn run<T>(
        &self,
        subject: Subject<'_>,
        deed: impl AsyncFnMut(u32) -> Result<T, Trouble>,
    ) -> Result<T> {
        self.run_within(subject, None, deed)
    }

    /// The same, but with a bound no try begins once so much time has passed, and none is waited for.
    fn run_within<T>(
        &self,
        subject: Subject<'_>,
        bound: Option<Duration>,
        mut deed: impl AsyncFnMut(u32) -> Result<T, Trouble>,
    ) -> Result<T> {
        let begun = Instant::now();
        // It goes on while the machine sleeps, and the other does not.
        let woken = Timestamp::now();
        let left = |bound: Duration| {
            let slept = Timestamp::now().duration_since(woken).unsigned_abs();
            bound.saturating_sub(begun.elapsed().max(slept))
        };
        let deadline = self.options.retry_deadline;
        let deadline = bound.map_or(deadline, |bound| bound.min(deadline));
        let mut tries = Tries::new(deadline);
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Error::new(ErrorKind::Io, "the storage was closed"))?;
        runtime.block_on(async {
            loop {
                let attempt = Arc::new(Attempt::new(begun.checked_add(deadline)));
                let left = bound.map(left);
                let trying = async {
                    let trying = ATTEMPT.scope(Arc::clone(&attempt), deed(tries.wrong()));
                    let late = || {
                        let what = "the time that there was for it has passed";
                        Trouble::Final(subject.error(ErrorKind::Io, what))
                    };
                    match left {
                        None => trying.await,
                        Some(Duration::ZERO) => Err(late()),
                        Some(left) => tokio::time::timeout(left, trying)
                            .await
                            .unwrap_or_else(|_elapsed| Err(late())),
                    }
                };
                let trouble = match self.obedient(trying).await? {
                    Ok(done) => {
                        self.answered.store(true, Ordering::Relaxed);
                        return Ok(done);
                    }
                    Err(trouble) => trouble,
                };
                let verdict = subject.judge(trouble, attempt.take());
                let answered = self.answered.load(Ordering::Relaxed);
                let wait = tries.failed(verdict, begun.elapsed(), answered)?;
                self.obedient(tokio::time::sleep(wait)).await?;
            }
        })
    }

    /// Waits for this, or until the end is wanted.
    async fn obedient<T>(&self, what: impl Future<Output = T>) -> Result<T> {
        let mut what = std::pin::pin!(what);
        loop {
            if (self.options.cancelled)() {
                return Err(Error::new(ErrorKind::Cancelled, "it was cancelled"));
            }
            if let Ok(done) = tokio::time::timeout(limits::CANCEL_POLL, &mut what).await {
                return Ok(done);
            }
        }
    }

    pub(crate) fn subject<'a>(&'a self, deed: Deed, key: &'a str) -> Subject<'a> {
        let bucket = self.location.bucket();
        Subject { deed, key, bucket }
    }

    /// Does a deed to an object. If it was put by this process and is said not to be there, the
    /// storage is behind, and asked again.
    pub(crate) fn of_object<T>(
        &self,
        deed: Deed,
        name: &FileName,
        mut what: impl AsyncFnMut(&Path, u32) -> Result<T, Trouble>,
    ) -> Result<T> {
        let path = self.path(name)?;
        let subject = self.subject(deed, path.as_ref());
        let put = self.put_length(name).is_some();
        self.run(subject, async |wrong| match what(&path, wrong).await {
            Err(Trouble::Library(object_store::Error::NotFound { .. })) if put => {
                let why = "says that it is not there, and this run put it".to_owned();
                Err(Trouble::Behind(why))
            }
            done => done,
        })
    }

    fn head(&self, name: &FileName) -> Result<ObjectMeta> {
        self.of_object(Deed::Length, name, async |path, _| {
            self.ask(name, path).await
        })
    }

    /// A page of the names that begin so, and how to get the next.
    pub(crate) fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        most: Option<usize>,
    ) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let prefix = self.location.key(prefix);
        self.run(self.subject(Deed::List, &prefix), async |_| {
            let options = PaginatedListOptions {
                page_token: token.map(str::to_owned),
                max_keys: most,
                ..PaginatedListOptions::default()
            };
            let page = self.store.list_paginated(Some(&prefix), options).await?;
            let objects = page.result.objects;
            if let Some(other) = (objects.iter()).find(|o| !is_below(o.location.as_ref(), &prefix))
            {
                let what = format!("lists {}, which was not asked for", other.location);
                return Err(Trouble::Wrong(what));
            }
            // The last page of some has an empty one.
            Ok((objects, page.page_token.filter(|token| !token.is_empty())))
        })
    }

    /// The places below this one in which there may be repositories: those that the first page of a list
    /// shows a `config` in.
    pub fn configs_below(&self) -> Result<Vec<Location>> {
        let (objects, _) = self.page("", None, None)?;
        let names = (objects.iter()).filter_map(|o| self.location.name(o.location.as_ref()));
        names
            .filter_map(|name| Some(name.as_str().strip_suffix("/config")?.to_owned()))
            .map(|folder| self.location.below(&folder))
            .collect()
    }

    /// Calls `each` with every file below a folder, its length, and when it was put: 0 if that was
    /// not said.
    fn list_all(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        let below = format!("{prefix}/");
        for _ in 0..limits::EMPTY_LISTS_MAX {
            // That there is nothing is believed when it was said twice. Somebody else may have put
            // something meanwhile: then it is listed anew.
            let is_empty = || Ok(self.page(&below, None, Some(1))?.0.is_empty());
            let likely = is_mostly_empty(&below) || self.empties().contains(&below);
            let (listing, again) = if likely {
                // Then both are asked at once.
                at_once(|| self.list_once(&below, each), is_empty)
            } else {
                (self.list_once(&below, each), None)
            };
            if !listing?.is_empty() {
                self.empties().remove(&below);
                return Ok(());
            }
            if again.unwrap_or_else(is_empty)? {
                let mut empties = self.empties();
                if empties.len() >= limits::EMPTY_FOLDERS_MAX {
                    empties.clear();
                }
                empties.insert(below);
                return Ok(());
            }
        }
        let why = "was empty, and then it was not, each time: the storage contradicts itself";
        Err(self.unbelievable(&below, why))
    }

    /// Lists what is below, once.
    fn list_once(
        &self,
        below: &str,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<Listing> {
        let key = self.location.key(below);
        let mut listing = Listing::default();
        let mut token: Option<String> = None;
        loop {
            let (objects, next) = self.page(below, token.as_deref(), None)?;
            // What has no name of a file is none: another program's, or a folder's mark.
            let ours = objects
                .into_iter()
                .filter(|o| o.location.as_ref().starts_with(&key));
            let names = ours.filter_map(|o| {
                let name = self.location.name(o.location.as_ref())?;
                Some((name, o.size, o.last_modified.timestamp()))
            });
            let told = (listing.page(names.collect(), next.as_deref()))
                .map_err(|why| self.unbelievable(below, &why))?;
            for (name, length, time) in &told {
                self.learn(name);
                each(name, *length, *time)?;
            }
            token = next;
            if token.is_none() {
                return Ok(listing);
            }
        }
    }

    fn unbelievable(&self, prefix: &str, why: &str) -> Error {
        let key = self.location.key(prefix);
        (self.subject(Deed::List, &key)).error(ErrorKind::Io, &format!("the list {why}"))
    }

    fn put_bytes(&self, name: &FileName, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        self.put_object(name, bytes, false)?;
        let mut put = self.puts();
        if put.len() >= limits::PUT_NAMES_MAX {
            put.clear();
        }
        put.insert(name.clone(), length);
        Ok(())
    }

    fn remove_object(&self, name: &FileName, bound: Option<Duration>) -> Result<()> {
        let path = self.path(name)?;
        let subject = self.subject(Deed::Remove, path.as_ref());
        let removed = self.run_within(subject, bound, async |_| {
            self.store.delete(&path).await?;
            Ok(())
        });
        self.puts().remove(name);
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Does both at once; not the second if there is no thread for it.
fn at_once<A, B: Send>(
    first: impl FnOnce() -> A,
    second: impl FnOnce() -> B + Send,
) -> (A, Option<B>) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, second);
        let first = first();
        let second = thread.ok().map(|thread| {
            let done = thread.join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        (first, second)
    })
}

/// Whether a key begins so. That of a mark of a folder has lost its slash at its end.
fn is_below(key: &str, prefix: &str) -> bool {
    key.starts_with(prefix) || prefix.strip_suffix('/') == Some(key)
}

impl Drop for S3Storage {
    fn drop(&mut self) {
        // Whatever still looks up a host's name is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Storage for S3Storage {
    fn is_far(&self) -> bool {
        true
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.put_bytes(name, Bytes::copy_from_slice(bytes))
    }

    fn put_buffer(&self, name: &FileName, bytes: &mut Vec<u8>) -> Result<()> {
        lend(bytes, |bytes| self.put_bytes(name, bytes))
    }

    /// Endpoints that know no conditions ignore them, or refuse.
    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let check = || match self.length(name) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(already_there(name)),
        };
        check()?;
        match self.put_object(name, Bytes::copy_from_slice(bytes), true) {
            Err(e) if e.kind() == ErrorKind::Io => {
                check()?;
                self.put(name, bytes)
            }
            put => put,
        }
    }

    /// An object is durable once it is there, and good for the repository once it is locked as it is
    /// to be, whoever put it.
    fn settle(&self, name: &FileName) -> Result<()> {
        match self.retention().filter(|_| is_to_be_locked(name)) {
            Some(retention) => self.settle_lock(name, retention),
            None => self.head(name).map(drop),
        }
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            // No range of no bytes can be asked for.
            let length = self.length(name)?;
            return if range.start <= length {
                Ok(Vec::new())
            } else {
                Err(Error::corrupt(format!(
                    "{name} ends before byte {}",
                    range.end
                )))
            };
        }
        let shorter = async |path: &Path, told: u64| {
            self.sized(name, path, told, |size| size < range.end)
                .await?;
            let what = format!("{name} ends before byte {}", range.end);
            Err(Trouble::Final(Error::corrupt(what)))
        };
        self.of_object(Deed::Read, name, async |path, wrong| {
            // Whoever gets ranges wrong may get whole objects right.
            let found = if wrong % 3 == 2 {
                reading::out_of_whole(&self.store, path, range.clone()).await
            } else {
                reading::range(&self.store, path, range.clone()).await
            };
            match found {
                Ok(Found::Bytes(bytes)) => Ok(bytes),
                Ok(Found::Shorter(size)) => shorter(path, size).await,
                Err(Trouble::Library(_)) if crate::attempt::is_past_end() => {
                    shorter(path, range.start).await
                }
                Err(trouble) => Err(trouble),
            }
        })
    }

    fn read_whole(&self, name: &FileName, max: u64) -> Result<Vec<u8>> {
        self.of_object(Deed::Read, name, async |path, wrong| {
            let plainly = wrong % 3 == 2;
            let told = match reading::whole(&self.store, path, max, plainly).await {
                Ok(Ok(bytes)) if plainly => {
                    let size = self.ask(name, path).await?.size;
                    if size != bytes.len() as u64 {
                        return Err(Trouble::Wrong(format!(
                            "has {} bytes of {size}",
                            bytes.len()
                        )));
                    }
                    return Ok(bytes);
                }
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(length)) => length,
                // Of an object of no bytes there is no range.
                Err(Trouble::Library(_)) if crate::attempt::is_past_end() => 0,
                Err(trouble) => return Err(trouble),
            };
            match self.sized(name, path, told, |size| size == told).await? {
                0 => Ok(Vec::new()),
                size => Err(Trouble::Final(too_long(name, size, max))),
            }
        })
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        Ok(self.head(name)?.size)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.of_object(Deed::Length, name, async |path, _| {
            // The library fills in what is missing.
            match self.ask(name, path).await?.last_modified.timestamp() {
                0 => Err(Trouble::Wrong("does not say when it was put".to_owned())),
                time => Ok(time),
            }
        })
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.list_all(prefix, &mut |name, length, _| each(name, length))
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.list_all(prefix, &mut |name, length, time| {
            // The library fills in what is missing: what a list does not say is asked for.
            let found = match time {
                0 => self.modified(name),
                time => Ok(time),
            };
            match found {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                found => each(name, length, found?),
            }
        })
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.remove_object(name, None)
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        match self.remove_object(name, Some(most)) {
            // Whoever tries for less in all is not to be asked again.
            Err(error) if error.kind() == ErrorKind::Io && most < self.options.retry_deadline => {
                Ok(Some(error))
            }
            removed => removed.map(|()| None),
        }
    }
}
