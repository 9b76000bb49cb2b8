//! Directory nodes and their entries.
//!
//! ```text
//! 1, –     length of the name, and the name
//! 1        1 file, 2 directory, 3 symbolic link, 4 hard link, 5 fifo, 6 socket, 7 character
//!          device, 8 block device
//! 2, 4, 4  permissions, owner, group
//! 8, 4     time of modification: seconds, nanoseconds
//! 4        inode flags
//! 2, –     number of extended attributes; each: length of name 1, name, length of value 4, value
//! –        file: size 8, links 4, number of extents 1 and the extents, or 255 and an identity
//! –        directory: 0 empty; 1, length 4 and its node; 2 and the identity of its node
//! –        symbolic link, hard link: length 4 and target or path
//! –        device: major 4, minor 4
//! ```

use super::{Role, SHORT, end, extent, open};
use crate::format::bytes::{Bytes, length_u32};
use crate::format::id::ChunkId;
use crate::limits;
use crate::tree::{
    Attributes, Content, NodeKind, Place, Timestamp, TreeDirectory, TreeFile, TreeNode, check_name,
    check_node,
};

/// Stands where the number of extents would, if they lie in nodes.
const IN_NODES: u8 = 255;

/// A decoded directory node.
#[derive(Debug)]
pub(crate) struct DirectoryNode {
    pub(crate) level: u8,
    pub(crate) items: Items,
}

/// The items of a directory node: never none, in order of names.
#[derive(Debug)]
pub(crate) enum Items {
    Entries(Vec<TreeNode>),
    /// The first name below each node.
    Children(Vec<(Vec<u8>, ChunkId)>),
}

impl DirectoryNode {
    pub(crate) fn len(&self) -> usize {
        match &self.items {
            Items::Entries(entries) => entries.len(),
            Items::Children(children) => children.len(),
        }
    }

    fn name(&self, number: usize) -> Option<&[u8]> {
        match &self.items {
            Items::Entries(entries) => entries.get(number).map(|entry| &entry.name[..]),
            Items::Children(children) => children.get(number).map(|(name, _)| &name[..]),
        }
    }

    /// The first name in the node or below it.
    pub(crate) fn first(&self) -> &[u8] {
        self.name(0).unwrap_or_default()
    }

    /// The last name in the node.
    pub(crate) fn last(&self) -> &[u8] {
        self.name(self.len() - 1).unwrap_or_default()
    }
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("a name was checked to be short"));
    out.extend_from_slice(bytes);
}

/// Adds an entry that was checked.
pub(crate) fn encode(node: &TreeNode, out: &mut Vec<u8>) {
    put_short(out, &node.name);
    out.push(match &node.kind {
        NodeKind::File(_) => 1,
        NodeKind::Directory(_) => 2,
        NodeKind::Symlink { .. } => 3,
        NodeKind::HardLink { .. } => 4,
        NodeKind::Fifo => 5,
        NodeKind::Socket => 6,
        NodeKind::CharDevice { .. } => 7,
        NodeKind::BlockDevice { .. } => 8,
    });
    let a = &node.attributes;
    out.extend_from_slice(&a.mode.to_le_bytes());
    out.extend_from_slice(&a.uid.to_le_bytes());
    out.extend_from_slice(&a.gid.to_le_bytes());
    out.extend_from_slice(&a.mtime.seconds.to_le_bytes());
    out.extend_from_slice(&a.mtime.nanos.to_le_bytes());
    out.extend_from_slice(&a.flags.to_le_bytes());
    put_u16(out, a.xattrs.len());
    for (name, value) in &a.xattrs {
        put_short(out, name);
        out.extend_from_slice(&length_u32(value.len()).to_le_bytes());
        out.extend_from_slice(value);
    }
    match &node.kind {
        NodeKind::File(file) => {
            out.extend_from_slice(&file.size.to_le_bytes());
            out.extend_from_slice(&file.links.to_le_bytes());
            match &file.content {
                Content::Extents(extents) => {
                    out.push(u8::try_from(extents.len()).expect("only a few lie in an entry"));
                    for extent in extents {
                        extent::encode(extent, out);
                    }
                }
                Content::Node(id) => {
                    out.push(IN_NODES);
                    out.extend_from_slice(&id.0);
                }
            }
        }
        NodeKind::Directory(directory) => put_place(&directory.place, out),
        NodeKind::Symlink { target: text } | NodeKind::HardLink { path: text } => {
            out.extend_from_slice(&length_u32(text.len()).to_le_bytes());
            out.extend_from_slice(text);
        }
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        NodeKind::Fifo | NodeKind::Socket => {}
    }
}

fn put_u16(out: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("a checked length fits");
    out.extend_from_slice(&length.to_le_bytes());
}

/// Adds where a node lies.
pub(crate) fn put_place(place: &Place, out: &mut Vec<u8>) {
    match place {
        Place::Nowhere => out.push(0),
        Place::Inline(body) => {
            out.push(1);
            out.extend_from_slice(&length_u32(body.len()).to_le_bytes());
            out.extend_from_slice(body);
        }
        Place::Node(id) => {
            out.push(2);
            out.extend_from_slice(&id.0);
        }
    }
}

/// Takes where a node lies.
pub(crate) fn take_place(bytes: &mut Bytes<'_>) -> Result<Place, &'static str> {
    match bytes.u8().ok_or(SHORT)? {
        0 => Ok(Place::Nowhere),
        1 => {
            let length = bytes.u32().ok_or(SHORT)? as usize;
            if length > limits::TREE_INLINE_MAX {
                return Err("has a larger node in an entry than is allowed");
            }
            Ok(Place::Inline(bytes.take(length).ok_or(SHORT)?.into()))
        }
        2 => Ok(Place::Node(ChunkId(bytes.array().ok_or(SHORT)?))),
        _ => Err("has a node in an unknown place"),
    }
}

/// Decodes a directory node. The empty name is allowed for the only entry of a tree's first node.
pub(crate) fn decode(body: &[u8], is_root: bool) -> Result<DirectoryNode, &'static str> {
    let (level, count, mut bytes) = open(Role::Directory, body)?;
    if is_root && (level, count) != (0, 1) {
        return Err("is not that of a tree's root");
    }
    // An entry has at least 30 bytes, a child more.
    let mut entries = Vec::with_capacity(if level == 0 {
        count.min(body.len() / 30)
    } else {
        0
    });
    let mut children = Vec::with_capacity(if level > 0 {
        count.min(body.len() / 30)
    } else {
        0
    });
    let mut last: &[u8] = &[];
    for _ in 0..count {
        let length = usize::from(bytes.u8().ok_or(SHORT)?);
        let name = bytes.take(length).ok_or(SHORT)?;
        if is_root {
            if !name.is_empty() {
                return Err("is not that of a tree's root");
            }
        } else {
            check_name(name)?;
            if name <= last {
                return Err("has names that are not in order");
            }
            last = name;
        }
        if level > 0 {
            let id = ChunkId(bytes.array().ok_or(SHORT)?);
            children.push((name.to_owned(), id));
        } else {
            let node = take_entry(name, &mut bytes)?;
            check_node(&node)?;
            entries.push(node);
        }
    }
    end(bytes)?;
    let items = if level > 0 {
        Items::Children(children)
    } else {
        Items::Entries(entries)
    };
    Ok(DirectoryNode { level, items })
}

/// Takes what follows the name.
fn take_entry(name: &[u8], bytes: &mut Bytes<'_>) -> Result<TreeNode, &'static str> {
    let kind = bytes.u8().ok_or(SHORT)?;
    let attributes = take_attributes(bytes)?;
    let kind = take_kind(kind, bytes)?;
    Ok(TreeNode {
        name: name.to_owned(),
        attributes,
        kind,
    })
}

fn take_attributes(bytes: &mut Bytes<'_>) -> Result<Attributes, &'static str> {
    let mut attributes = Attributes {
        mode: bytes.u16().ok_or(SHORT)?,
        uid: bytes.u32().ok_or(SHORT)?,
        gid: bytes.u32().ok_or(SHORT)?,
        mtime: Timestamp {
            seconds: bytes.array().map(i64::from_le_bytes).ok_or(SHORT)?,
            nanos: bytes.u32().ok_or(SHORT)?,
        },
        flags: bytes.u32().ok_or(SHORT)?,
        xattrs: Vec::new(),
    };
    for _ in 0..bytes.u16().ok_or(SHORT)? {
        let length = usize::from(bytes.u8().ok_or(SHORT)?);
        let name = bytes.take(length).ok_or(SHORT)?.to_owned();
        let length = bytes.u32().ok_or(SHORT)? as usize;
        let value = bytes.take(length).ok_or(SHORT)?.to_owned();
        attributes.xattrs.push((name, value));
    }
    Ok(attributes)
}

fn take_kind(kind: u8, bytes: &mut Bytes<'_>) -> Result<NodeKind, &'static str> {
    let text = |bytes: &mut Bytes<'_>| {
        let length = bytes.u32().ok_or(SHORT)? as usize;
        bytes.take(length).map(<[u8]>::to_owned).ok_or(SHORT)
    };
    Ok(match kind {
        1 => NodeKind::File(TreeFile {
            size: bytes.u64().ok_or(SHORT)?,
            links: bytes.u32().ok_or(SHORT)?,
            content: take_content(bytes)?,
        }),
        2 => NodeKind::Directory(TreeDirectory::new(take_place(bytes)?)),
        3 => NodeKind::Symlink {
            target: text(bytes)?,
        },
        4 => NodeKind::HardLink { path: text(bytes)? },
        5 => NodeKind::Fifo,
        6 => NodeKind::Socket,
        7 | 8 => {
            let (major, minor) = (bytes.u32().ok_or(SHORT)?, bytes.u32().ok_or(SHORT)?);
            if kind == 7 {
                NodeKind::CharDevice { major, minor }
            } else {
                NodeKind::BlockDevice { major, minor }
            }
        }
        _ => return Err("has an entry of an unknown type"),
    })
}

fn take_content(bytes: &mut Bytes<'_>) -> Result<Content, &'static str> {
    match bytes.u8().ok_or(SHORT)? {
        IN_NODES => Ok(Content::Node(ChunkId(bytes.array().ok_or(SHORT)?))),
        count if usize::from(count) > limits::EXTENTS_INLINE => {
            Err("has more extents than are allowed in an entry")
        }
        count => (0..count)
            .map(|_| extent::take(bytes))
            .collect::<Result<_, _>>()
            .map(Content::Extents),
    }
}
