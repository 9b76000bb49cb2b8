//! Archive names: `NAMESPACE/KIND/GUEST/TIME-RANDOM`, the path of the snapshot in the repository.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use snapkeep_api::{ArchiveName, Error, ErrorKind, GuestId, GuestKind, Result, UnixTime};

/// The part of a repository that one cluster or host writes: 1 to 32 lower-case letters, digits
/// and dashes. Guests of the same number in different namespaces are different guests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace(String);

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fine = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fine {
            let what = format!(
                "namespace {text:?} cannot be used: it must be 1 to 32 lower-case letters, digits and dashes"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of a guest's archives begin with, without the slash behind it.
pub fn group(namespace: &Namespace, kind: GuestKind, guest: &GuestId) -> String {
    let folder = match kind {
        GuestKind::Qemu => "vm",
        GuestKind::Lxc => "ct",
    };
    format!("{namespace}/{folder}/{guest}")
}

/// The kind of guest that the archive of this name is of.
pub(crate) fn archive_kind(name: &ArchiveName) -> GuestKind {
    match name.as_str().split('/').nth(1) {
        Some("ct") => GuestKind::Lxc,
        _ => GuestKind::Qemu,
    }
}

/// When the archive of this name was begun; `None` if the name does not say.
pub(crate) fn archive_time(name: &str) -> Option<UnixTime> {
    let (_, last) = name.rsplit_once('/')?;
    let (text, _random) = last.rsplit_once('-')?;
    let time: Timestamp = text.parse().ok()?;
    // Written in another way it would not be where its time puts it in the order of names.
    (time.to_string() == text).then_some(UnixTime(time.as_second()))
}

/// The name of a new archive. The random part keeps apart two that did not see each other.
pub fn archive_name(
    namespace: &Namespace,
    kind: GuestKind,
    guest: &GuestId,
    time: UnixTime,
    random: [u8; 8],
) -> Result<ArchiveName> {
    let time = Timestamp::from_second(time.0).map_err(|e| {
        let what = format!("{} seconds since the epoch is no time of day", time.0);
        Error::with_source(ErrorKind::Invalid, what, e)
    })?;
    let group = group(namespace, kind, guest);
    let random = u64::from_le_bytes(random);
    format!("{group}/{time}-{random:016x}").parse()
}
