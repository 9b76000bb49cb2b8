//! A panic while a guest is backed up fails that backup, by what was being read, and nothing else.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use snapkeep_api::{Error, ErrorKind, Result};

/// Does a part of the backup of a disk or a tree, which is named. After a panic nothing of that backup is used any more, and what
/// it shares with others is not left half done under a lock.
pub(crate) fn caught<T>(name: impl fmt::Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = format!("{name}: its backup panicked: {}", text(&*panic));
        Err(Error::new(ErrorKind::Target, what))
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
