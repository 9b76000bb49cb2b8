//! Entries of the contract as the repository's, and back.

use snapkeep_api::tree::{
    Attributes, DeviceNumber, Entry, EntryKind, Timestamp, TreePath, Witness, Xattr,
};
use snapkeep_api::{Error, ErrorKind, Result};
use snapkeep_repo as repo;

/// The attributes, as they are stored.
pub(crate) fn to_attributes(attributes: Attributes) -> repo::Attributes {
    let Attributes {
        permissions,
        uid,
        gid,
        mtime,
        flags,
        xattrs,
    } = attributes;
    let xattrs = xattrs
        .into_iter()
        .map(|Xattr { name, value }| (name, value));
    repo::Attributes {
        mode: permissions,
        uid,
        gid,
        mtime: to_time(mtime),
        flags,
        xattrs: xattrs.collect(),
    }
}

pub(crate) fn to_time(time: Timestamp) -> repo::Timestamp {
    let Timestamp { seconds, nanos } = time;
    repo::Timestamp { seconds, nanos }
}

pub(crate) fn to_witness(witness: Witness) -> repo::Witness {
    repo::Witness {
        inode: witness.inode,
        ctime: to_time(witness.ctime),
    }
}

/// What an entry is, as it is stored; `None` for a folder and a file, which have content.
pub(crate) fn to_kind(kind: EntryKind) -> Option<repo::NodeKind> {
    Some(match kind {
        EntryKind::File { .. } | EntryKind::Directory => return None,
        EntryKind::Symlink { target } => repo::NodeKind::Symlink { target },
        EntryKind::HardLink { to } => repo::NodeKind::HardLink {
            path: to.as_bytes().to_vec(),
        },
        EntryKind::Fifo => repo::NodeKind::Fifo,
        EntryKind::Socket => repo::NodeKind::Socket,
        EntryKind::CharDevice(DeviceNumber { major, minor }) => {
            repo::NodeKind::CharDevice { major, minor }
        }
        EntryKind::BlockDevice(DeviceNumber { major, minor }) => {
            repo::NodeKind::BlockDevice { major, minor }
        }
    })
}

/// An entry that was stored; `Corrupt` if it cannot be one.
pub(crate) fn from_node(node: &repo::TreeNode) -> Result<Entry> {
    let kind = match &node.kind {
        repo::NodeKind::File(file) => EntryKind::File {
            size: file.size,
            links: file.links,
        },
        repo::NodeKind::Directory(_) => EntryKind::Directory,
        repo::NodeKind::Symlink { target } => EntryKind::Symlink {
            target: target.clone(),
        },
        repo::NodeKind::HardLink { path } => EntryKind::HardLink {
            to: TreePath::new(path.clone()).map_err(corrupt)?,
        },
        repo::NodeKind::Fifo => EntryKind::Fifo,
        repo::NodeKind::Socket => EntryKind::Socket,
        repo::NodeKind::CharDevice { major, minor } => {
            let (major, minor) = (*major, *minor);
            EntryKind::CharDevice(DeviceNumber { major, minor })
        }
        repo::NodeKind::BlockDevice { major, minor } => {
            let (major, minor) = (*major, *minor);
            EntryKind::BlockDevice(DeviceNumber { major, minor })
        }
    };
    let attributes = &node.attributes;
    let xattrs = attributes.xattrs.iter().cloned();
    let entry = Entry {
        attributes: Attributes {
            permissions: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: Timestamp {
                seconds: attributes.mtime.seconds,
                nanos: attributes.mtime.nanos,
            },
            flags: attributes.flags,
            xattrs: xattrs.map(|(name, value)| Xattr { name, value }).collect(),
        },
        kind,
    };
    entry.check().map_err(corrupt)?;
    Ok(entry)
}

/// What the archive has cannot be.
pub(crate) fn corrupt(error: Error) -> Error {
    let what = "an entry of the archive cannot be what it is";
    Error::with_source(ErrorKind::Corrupt, what, error)
}
