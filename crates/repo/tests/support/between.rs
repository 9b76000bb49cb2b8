//! A storage that lets something else happen between two operations of whoever uses it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_repo::{Error, FileName, Result, Storage};

/// What is about to be done, or was just done, to which file or folder.
pub(crate) type Step<'s> = (Moment, &'static str, &'s str);

/// Whether an operation begins or has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moment {
    Before,
    After,
}

type Hook = Box<dyn FnMut(Step<'_>) + Send>;

/// Calls a hook before and after each operation, but for those of the hook itself.
pub(crate) struct Between {
    inner: Arc<dyn Storage>,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Between").finish_non_exhaustive()
    }
}

impl Between {
    pub(crate) fn new(
        inner: Arc<dyn Storage>,
        hook: impl FnMut(Step<'_>) + Send + 'static,
    ) -> Self {
        Self {
            inner,
            hook: Mutex::new(Some(Box::new(hook))),
        }
    }

    /// Another hook from here on.
    pub(crate) fn hook(&self, hook: impl FnMut(Step<'_>) + Send + 'static) {
        *self.hook.lock().expect("no hook panicked") = Some(Box::new(hook));
    }

    fn tell(&self, moment: Moment, operation: &'static str, name: &FileName) {
        let hook = self.hook.lock().expect("no hook panicked").take();
        if let Some(mut hook) = hook {
            hook((moment, operation, name.as_str()));
            *self.hook.lock().expect("no hook panicked") = Some(hook);
        }
    }

    fn run<T>(&self, operation: &'static str, name: &FileName, deed: impl FnOnce() -> T) -> T {
        self.tell(Moment::Before, operation, name);
        let done = deed();
        self.tell(Moment::After, operation, name);
        done
    }
}

impl Storage for Between {
    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.run("put", name, || self.inner.put(name, bytes))
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.run("settle", name, || self.inner.settle(name))
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.run("read", name, || self.inner.read(name, range))
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.run("length", name, || self.inner.length(name))
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.run("modified", name, || self.inner.modified(name))
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.run("list", prefix, || self.inner.list(prefix, each))
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.run("list", prefix, || self.inner.list_dated(prefix, each))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.run("remove", name, || self.inner.remove(name))
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        self.run("remove", name, || self.inner.remove_within(name, most))
    }
}
