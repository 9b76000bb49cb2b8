//! What a tree may hold: one set of rules for what is written and what is read.

use super::{Attributes, Content, Extent, NodeKind, TreeFile, TreeNode};
use crate::format::tree::{HEADER, extent};
use crate::limits;

/// The longest entries fit in a node: a directory or hard link with a name, its attributes, of
/// which a hard link has no extended ones, and what its kind has.
const _: () = {
    let plain = 1 + limits::TREE_NAME_MAX + 1 + 2 + 4 + 4 + 8 + 4 + 4 + 2;
    let xattrs = limits::XATTRS_TOTAL_MAX + limits::XATTRS_MAX * (1 + 4);
    assert!(limits::SYMLINK_MAX <= limits::TREE_INLINE_MAX);
    assert!(limits::EXTENTS_INLINE * extent::LENGTH + 8 + 4 < limits::TREE_INLINE_MAX);
    assert!(HEADER + plain + xattrs + 1 + 4 + limits::TREE_INLINE_MAX <= limits::TREE_NODE_MAX);
    assert!(HEADER + plain + 4 + limits::TREE_PATH_MAX <= limits::TREE_NODE_MAX);
};

type Checked = Result<(), &'static str>;

/// Fails unless this is a name of an entry that is not the root.
pub(crate) fn check_name(name: &[u8]) -> Checked {
    let proper = !name.is_empty() && name.len() <= limits::TREE_NAME_MAX;
    if !proper || name.iter().any(|b| matches!(b, 0 | b'/')) || matches!(name, b"." | b"..") {
        return Err("has a name that no entry can have");
    }
    Ok(())
}

/// Fails unless everything but the name is as it must be.
pub(crate) fn check_node(node: &TreeNode) -> Checked {
    check_attributes(&node.attributes)?;
    match &node.kind {
        NodeKind::File(file) => check_file(file),
        NodeKind::Symlink { target } => {
            let proper = (1..=limits::SYMLINK_MAX).contains(&target.len());
            if !proper || target.contains(&0) {
                return Err("has a target that no symbolic link can have");
            }
            Ok(())
        }
        NodeKind::HardLink { path } => {
            if !node.attributes.xattrs.is_empty() || node.attributes.flags != 0 {
                return Err("is a hard link with what only the first name has");
            }
            if path.len() > limits::TREE_PATH_MAX {
                return Err("is a hard link to a longer path than is allowed");
            }
            let mut depth = 0;
            path.split(|b| *b == b'/').try_for_each(|name| {
                depth += 1;
                if depth > limits::TREE_DEPTH_MAX {
                    return Err("is a hard link to a deeper path than is allowed");
                }
                check_name(name).map_err(|_| "is a hard link to what is no path")
            })
        }
        NodeKind::Directory(_)
        | NodeKind::Fifo
        | NodeKind::Socket
        | NodeKind::CharDevice { .. }
        | NodeKind::BlockDevice { .. } => Ok(()),
    }
}

/// Fails unless the attributes are as they must be.
pub(crate) fn check_attributes(attributes: &Attributes) -> Checked {
    if attributes.mode > 0o7777 {
        return Err("has more than 12 bits of permissions");
    }
    if attributes.mtime.nanos > 999_999_999 {
        return Err("has a time of more nanoseconds than a second has");
    }
    let xattrs = &attributes.xattrs;
    if xattrs.len() > limits::XATTRS_MAX {
        return Err("has more extended attributes than are allowed");
    }
    let mut total = 0;
    for (name, value) in xattrs {
        let proper = (1..=limits::XATTR_NAME_MAX).contains(&name.len()) && !name.contains(&0);
        if !proper || value.len() > limits::XATTR_VALUE_MAX {
            return Err("has an extended attribute of an impossible name or size");
        }
        total += name.len() + value.len();
    }
    if total > limits::XATTRS_TOTAL_MAX {
        return Err("has larger extended attributes than are allowed");
    }
    if !xattrs.is_sorted_by(|(one, _), (two, _)| one < two) {
        return Err("has extended attributes that are not in order");
    }
    Ok(())
}

/// Fails unless a file can have so many names.
pub(crate) fn check_links(links: u32) -> Checked {
    if links == 0 {
        return Err("is a file that had no name");
    }
    Ok(())
}

fn check_file(file: &TreeFile) -> Checked {
    check_links(file.links)?;
    if file.size > limits::FILE_SIZE_MAX {
        return Err("is a larger file than there can be");
    }
    match &file.content {
        Content::Node(_) => Ok(()),
        Content::Extents(extents) if extents.len() > limits::EXTENTS_INLINE => {
            Err("has more extents than are allowed in an entry")
        }
        Content::Extents(extents) => check_extents(extents, 0, file.size),
    }
}

/// Fails unless extents lie between these offsets, in order, each in what can be a chunk.
pub(crate) fn check_extents(extents: &[Extent], from: u64, to: u64) -> Checked {
    let mut reached = from;
    for extent in extents {
        let within = u64::from(extent.within) + u64::from(extent.length);
        if extent.length == 0 || within > limits::CHUNK_MAX as u64 {
            return Err("has an extent that fits in no chunk");
        }
        let end = extent.offset.checked_add(u64::from(extent.length));
        match end {
            Some(end) if extent.offset >= reached && end <= to => reached = end,
            _ => return Err("has extents that overlap, or lie behind the file's end"),
        }
    }
    Ok(())
}
