//! What the walker says, as bytes. Each function adds one whole message.

use snapkeep_api::tree::{DeviceNumber, Entry, EntryKind, Found, FoundKind, ProblemKind, Witness};

use super::VERSION;
use super::fields::{put_long, put_short, put_time};
use super::kind::Kind;
use crate::limits;

/// An entry to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling<'a> {
    /// `None` for the root.
    pub(crate) name: Option<&'a [u8]>,
    /// `None` if it is known.
    pub(crate) entry: Option<&'a Entry>,
    /// `None` if it cannot be relied on.
    pub(crate) witness: Option<Witness>,
    /// Whether hard links to it may follow.
    pub(crate) linked: bool,
}

pub(crate) fn hello(out: &mut Vec<u8>) {
    message(out, Kind::Hello, |out| {
        out.extend(*b"snapwalk");
        out.extend(VERSION.to_le_bytes());
    });
}

/// A message that says nothing but its kind.
pub(crate) fn empty(out: &mut Vec<u8>, kind: Kind) {
    message(out, kind, |_| {});
}

pub(crate) fn hole(out: &mut Vec<u8>, length: u64) {
    message(out, Kind::Hole, |out| out.extend(length.to_le_bytes()));
}

/// `End` without, or `End`, `Lost` and `Fatal` with a text.
pub(crate) fn text(out: &mut Vec<u8>, kind: Kind, why: Option<&str>) {
    message(out, kind, |out| {
        if let Some(why) = why {
            put_long(out, text_of(why).as_bytes());
        }
    });
}

pub(crate) fn problem(out: &mut Vec<u8>, name: Option<&[u8]>, kind: ProblemKind, why: &str) {
    message(out, Kind::Problem, |out| {
        out.push(match kind {
            ProblemKind::LeftOut => 0,
            ProblemKind::Vanished => 1,
            ProblemKind::Warning => 2,
        });
        put_short(out, name.unwrap_or_default());
        put_long(out, text_of(why).as_bytes());
    });
}

/// As much of a text as a message may have.
pub(crate) fn text_of(why: &str) -> &str {
    let most = why.len().min(limits::WHY_BYTES_MAX);
    let end = (0..=most).rev().find(|end| why.is_char_boundary(*end));
    &why[..end.unwrap_or(0)]
}

pub(crate) fn told(out: &mut Vec<u8>, kind: Kind, telling: &Telling<'_>) {
    message(out, kind, |out| {
        out.push(
            u8::from(telling.entry.is_some())
                | u8::from(telling.witness.is_some()) << 1
                | u8::from(telling.linked) << 2,
        );
        put_short(out, telling.name.unwrap_or_default());
        if let Some(witness) = &telling.witness {
            put_witness(out, witness);
        }
        if let Some(entry) = telling.entry {
            put_entry(out, entry);
        }
    });
}

pub(crate) fn batch<'a>(out: &mut Vec<u8>, all: impl Iterator<Item = (&'a [u8], Found)>) {
    message(out, Kind::Batch, |out| {
        for (name, found) in all {
            put_short(out, name);
            match found.kind {
                FoundKind::File { size } => {
                    out.push(0);
                    out.extend(size.to_le_bytes());
                }
                FoundKind::Directory => out.push(1),
            }
            put_time(out, found.mtime);
            put_witness(out, &found.witness);
        }
    });
}

/// Adds a header, lets the payload be written, and then says how long it became.
pub(super) fn message(out: &mut Vec<u8>, kind: Kind, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.push(kind.number());
    let body = out.len();
    payload(out);
    let length = u32::try_from(out.len() - body).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_witness(out: &mut Vec<u8>, witness: &Witness) {
    out.extend(witness.inode.to_le_bytes());
    put_time(out, witness.ctime);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let attributes = &entry.attributes;
    out.extend(attributes.permissions.to_le_bytes());
    out.extend(attributes.uid.to_le_bytes());
    out.extend(attributes.gid.to_le_bytes());
    put_time(out, attributes.mtime);
    out.extend(attributes.flags.to_le_bytes());
    let count = u16::try_from(attributes.xattrs.len()).unwrap_or(u16::MAX);
    out.extend(count.to_le_bytes());
    for xattr in &attributes.xattrs {
        put_short(out, &xattr.name);
        put_long(out, &xattr.value);
    }
    match &entry.kind {
        EntryKind::File { size, links } => {
            out.push(0);
            out.extend(size.to_le_bytes());
            out.extend(links.to_le_bytes());
        }
        EntryKind::Directory => out.push(1),
        EntryKind::Symlink { target } => {
            out.push(2);
            put_long(out, target);
        }
        EntryKind::HardLink { to } => {
            out.push(3);
            put_long(out, to.as_bytes());
        }
        EntryKind::Fifo => out.push(4),
        EntryKind::Socket => out.push(5),
        EntryKind::CharDevice(number) => put_device(out, 6, *number),
        EntryKind::BlockDevice(number) => put_device(out, 7, *number),
    }
}

fn put_device(out: &mut Vec<u8>, kind: u8, number: DeviceNumber) {
    out.push(kind);
    out.extend(number.major.to_le_bytes());
    out.extend(number.minor.to_le_bytes());
}
