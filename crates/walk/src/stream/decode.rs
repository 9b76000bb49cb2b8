//! What the walker said, from bytes. All is checked that can be without knowing what was said before.

use snapkeep_api::tree::limits::{
    LINK_PATH_MAX, SYMLINK_MAX, XATTR_VALUE_MAX, XATTRS_BYTES_MAX, XATTRS_MAX,
};
use snapkeep_api::tree::{
    Attributes, DeviceNumber, Entry, EntryKind, Found, FoundKind, Name, Problem, ProblemKind,
    TreePath, Witness, Xattr,
};

use super::VERSION;
use super::fields::{Fault, Reader};
use super::kind::Kind;
use crate::limits;

/// A message of the walker, but for `Data`, whose payload goes past the messages.
#[derive(Debug)]
pub(crate) enum Message {
    Hello,
    Batch(Vec<(Name, Found)>),
    Enter(Sent),
    Leave,
    Entry(Sent),
    Hole(u64),
    End { changed: Option<String> },
    Lost(String),
    Problem(Problem),
    KeepAlive,
    Done,
    Fatal(String),
}

/// An entry that was told.
#[derive(Debug)]
pub(crate) struct Sent {
    /// `None` for the root.
    pub(crate) name: Option<Name>,
    /// Checked.
    pub(crate) entry: Option<Entry>,
    pub(crate) witness: Option<Witness>,
    /// Whether hard links to it may follow.
    pub(crate) linked: bool,
}

/// Reads a payload of this kind.
pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Message, Fault> {
    let mut reader = Reader::new(payload);
    let message = match kind {
        Kind::Hello => {
            if reader.bytes(8)? != b"snapwalk" {
                return Err(Fault("it is no walker"));
            }
            if reader.u16()? != VERSION {
                return Err(Fault("the walker is of another version"));
            }
            Message::Hello
        }
        Kind::Batch => Message::Batch(batch(&mut reader)?),
        Kind::Enter => Message::Enter(sent(&mut reader)?),
        Kind::Leave => Message::Leave,
        Kind::Entry => Message::Entry(sent(&mut reader)?),
        Kind::Hole => match reader.u64()? {
            0 => return Err(Fault("a hole is empty")),
            length => Message::Hole(length),
        },
        Kind::End => Message::End {
            changed: if reader.left() == 0 {
                None
            } else {
                Some(reader.text()?)
            },
        },
        Kind::Lost => Message::Lost(reader.text()?),
        Kind::Problem => Message::Problem(problem(&mut reader)?),
        Kind::KeepAlive => Message::KeepAlive,
        Kind::Done => Message::Done,
        Kind::Fatal => Message::Fatal(reader.text()?),
        Kind::Data | Kind::Request | Kind::Answers => {
            return Err(Fault("a message comes where it must not"));
        }
    };
    reader.end()?;
    Ok(message)
}

fn batch(reader: &mut Reader<'_>) -> Result<Vec<(Name, Found)>, Fault> {
    let mut all = Vec::new();
    while reader.left() > 0 {
        if all.len() == limits::BATCH_MAX {
            return Err(Fault("it asks about too many entries at once"));
        }
        let name = name(reader)?.ok_or(Fault("it asks about an entry without a name"))?;
        let kind = match reader.u8()? {
            0 => FoundKind::File {
                size: reader.u64()?,
            },
            1 => FoundKind::Directory,
            _ => return Err(Fault("it asks about an entry of no known kind")),
        };
        let mtime = reader.time()?;
        let witness = witness(reader)?;
        all.push((
            name,
            Found {
                kind,
                mtime,
                witness,
            },
        ));
    }
    if all.is_empty() {
        return Err(Fault("it asks about nothing"));
    }
    Ok(all)
}

fn sent(reader: &mut Reader<'_>) -> Result<Sent, Fault> {
    let bits = reader.u8()?;
    if bits > 7 {
        return Err(Fault("an entry says what nobody knows"));
    }
    let name = name(reader)?;
    let witness = (bits & 2 != 0).then(|| witness(reader)).transpose()?;
    let entry = (bits & 1 != 0).then(|| entry(reader)).transpose()?;
    Ok(Sent {
        name,
        entry,
        witness,
        linked: bits & 4 != 0,
    })
}

fn problem(reader: &mut Reader<'_>) -> Result<Problem, Fault> {
    let kind = match reader.u8()? {
        0 => ProblemKind::LeftOut,
        1 => ProblemKind::Vanished,
        2 => ProblemKind::Warning,
        _ => return Err(Fault("a problem is of no known kind")),
    };
    let name = name(reader)?;
    let why = reader.text()?;
    Ok(Problem { name, kind, why })
}

fn name(reader: &mut Reader<'_>) -> Result<Option<Name>, Fault> {
    match reader.short()? {
        [] => Ok(None),
        bytes => match Name::new(bytes) {
            Ok(name) => Ok(Some(name)),
            Err(_) => Err(Fault("an entry has an impossible name")),
        },
    }
}

fn witness(reader: &mut Reader<'_>) -> Result<Witness, Fault> {
    let inode = reader.u64()?;
    let ctime = reader.time()?;
    Ok(Witness { inode, ctime })
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, Fault> {
    let mut attributes = Attributes {
        permissions: reader.u16()?,
        uid: reader.u32()?,
        gid: reader.u32()?,
        mtime: reader.time()?,
        flags: reader.u32()?,
        xattrs: Vec::new(),
    };
    let count = usize::from(reader.u16()?);
    if count > XATTRS_MAX {
        return Err(Fault("an entry has too many extended attributes"));
    }
    let mut bytes = 0;
    for _ in 0..count {
        let (name, value) = (reader.short()?, reader.long()?);
        bytes += name.len() + value.len();
        if value.len() > XATTR_VALUE_MAX || bytes > XATTRS_BYTES_MAX {
            return Err(Fault("extended attributes are too long"));
        }
        attributes.xattrs.push(Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        });
    }
    let kind = match reader.u8()? {
        0 => EntryKind::File {
            size: reader.u64()?,
            links: reader.u32()?,
        },
        1 => EntryKind::Directory,
        2 => EntryKind::Symlink {
            target: at_most(reader.long()?, SYMLINK_MAX)?.to_vec(),
        },
        3 => {
            let to = at_most(reader.long()?, LINK_PATH_MAX)?;
            let to = TreePath::new(to);
            EntryKind::HardLink {
                to: to.map_err(|_| Fault("a hard link leads to an impossible path"))?,
            }
        }
        4 => EntryKind::Fifo,
        5 => EntryKind::Socket,
        6 => EntryKind::CharDevice(device(reader)?),
        7 => EntryKind::BlockDevice(device(reader)?),
        _ => return Err(Fault("an entry is of no known kind")),
    };
    let entry = Entry { attributes, kind };
    match entry.check() {
        Ok(()) => Ok(entry),
        Err(_) => Err(Fault("an entry is impossible")),
    }
}

fn at_most(bytes: &[u8], most: usize) -> Result<&[u8], Fault> {
    if bytes.len() > most {
        return Err(Fault("an entry leads to a path that is too long"));
    }
    Ok(bytes)
}

fn device(reader: &mut Reader<'_>) -> Result<DeviceNumber, Fault> {
    let major = reader.u32()?;
    let minor = reader.u32()?;
    Ok(DeviceNumber { major, minor })
}
