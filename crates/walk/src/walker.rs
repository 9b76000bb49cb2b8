//! The unprivileged end: reads a tree and tells it.
//!
//! It runs as the container's root user, among files that the container's processes may change at
//! any moment, into anything. So no path is ever followed: each entry is opened by its name in a
//! folder that is open, without following a link or going into another file system, and only as a
//! handle (`O_PATH`). What the handle shows it to be decides; only a regular file or a folder is then
//! opened for reading, through the handle. So no device, pipe or socket can be opened by accident.
//!
//! # What a witness is worth
//!
//! A file's times change with its content, but for one case: a store through `mmap` to a page that
//! is dirty already moves no time. So each source is synced once before anything of it is looked at:
//! then every page is clean, and the next store to it moves the times. Where that cannot be done, or
//! nothing is ever written back (tmpfs), or times and inodes are what a server says, there is no
//! witness. File systems whose witnesses are believed: ext2 to ext4, XFS, Btrfs, ZFS, F2FS, bcachefs.
//!
//! An entry has none either if something of it could not be read, such as an attribute: else the
//! next archive would take over, without a word, what lacks it.
//!
//! # What cannot be seen
//!
//! An owner that the container's map lacks is shown as `nobody`, 65534. Where the container has a
//! `nobody` of its own, the two look alike: the walker tells them apart for the owner of a file or
//! folder, since the kernel refuses it `O_NOATIME` there, but not for groups, nor for entries of
//! other kinds.

mod attributes;
mod content;
mod entries;
mod levels;
mod links;
mod names;
mod open;
mod out;
mod owners;
mod sources;
mod stat;
mod stop;
mod walk;

use std::os::fd::OwnedFd;

use out::Out;
use stop::Stop;
use walk::Walk;

use crate::userns::begin;

/// What a process does that [`Command`](crate::userns::Command) started: becomes the container's root
/// user, walks as the peer at the other end of the socket asks, and returns the exit status: 0 if
/// all was told, 1 if not, which was told instead unless nobody listens any more.
///
/// The process must have one thread and nothing open that it needs: every descriptor is closed but
/// for the first three and the socket.
pub fn run_walker(socket: OwnedFd) -> u8 {
    if !begin(&socket) {
        return 1;
    }
    let mut out = Out::new(socket);
    let served = serve(&mut out, &mut |_, _| {});
    end(served, &mut out)
}

fn end(served: Result<(), Stop>, out: &mut Out) -> u8 {
    match served {
        Ok(()) => 0,
        Err(Stop::Gone) => 1,
        Err(Stop::Failed(why)) => {
            out.fatal(&why);
            1
        }
    }
}

/// Called before a step at an entry, named by its path: where tests change the tree.
type Before<'a> = dyn FnMut(Moment, &[u8]) + 'a;

/// A step at which the tree may be another one than a moment ago.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Moment {
    /// The names of a folder were listed.
    Listed,
    /// An entry's handle is about to be opened.
    Handle,
    /// What the handle shows was looked at, and it is about to be opened for reading.
    Open,
    /// Somebody has a lease on it, or on the folder's file of patterns, which is about to be waited for.
    Leased,
    /// The entry was told and its content is about to be read.
    Content,
    /// A piece of the content was read.
    Piece,
    /// A folder is about to be left.
    Leave,
}

fn serve(out: &mut Out, before: &mut Before<'_>) -> Result<(), Stop> {
    let wish = out.greet()?;
    Walk::new(out, before, wish)?.run()
}

#[cfg(test)]
pub(crate) mod testing {
    //! A walk whose tree can be changed at each moment.

    use std::os::fd::OwnedFd;

    pub(crate) use super::Moment;
    use super::out::Out;

    pub(crate) fn walk_as_a_test(socket: OwnedFd, mut before: impl FnMut(Moment, &[u8])) -> u8 {
        let mut out = Out::new(socket);
        super::end(super::serve(&mut out, &mut before), &mut out)
    }
}

#[cfg(test)]
mod tests;
