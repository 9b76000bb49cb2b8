//! Why the walk cannot go on.

use rustix::io::Errno;

/// The end of the walk.
#[derive(Debug)]
pub(super) enum Stop {
    /// The peer has hung up.
    Gone,
    /// Something that concerns not one entry.
    Failed(String),
}

impl Stop {
    /// Whether an error says nothing about the entry at which it came up, but that the walker or the
    /// whole system has no room. To leave the entry out would be a lie.
    pub(super) fn if_not_about_the_entry(errno: Errno) -> Result<(), Self> {
        let elsewhere = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::NOSYS,
        ];
        if elsewhere.contains(&errno) {
            return Err(Self::Failed(format!("the walker has no room: {errno}")));
        }
        Ok(())
    }
}
