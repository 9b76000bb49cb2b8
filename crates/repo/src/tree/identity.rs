//! What two nodes of a tree have in common without reading their content.

use super::{Content, NodeKind, Place, TreeNode};

/// Different kinds of content have different identities.
#[derive(Clone, Copy)]
enum Form {
    Extents = 1,
    ExtentNode,
    Empty,
    Inline,
    Node,
}

impl TreeNode {
    /// Equal in two nodes of trees of one repository only if two files' contents, or all that is
    /// in two directories, are equal. Equal contents can have different ones. `None` for the other
    /// kinds.
    pub fn identity(&self) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("snapkeep 1 identity of content");
        let mut begin = |form: Form, bytes: &[u8]| {
            hasher.update(&[form as u8]);
            hasher.update(bytes);
        };
        match &self.kind {
            NodeKind::File(file) => {
                let size = file.size.to_le_bytes();
                match &file.content {
                    Content::Extents(extents) => {
                        begin(Form::Extents, &size);
                        for extent in extents {
                            hasher.update(&extent.offset.to_le_bytes());
                            hasher.update(extent.chunk.as_bytes());
                            hasher.update(&extent.within.to_le_bytes());
                            hasher.update(&extent.length.to_le_bytes());
                        }
                    }
                    Content::Node(id) => {
                        begin(Form::ExtentNode, &size);
                        hasher.update(id.as_bytes());
                    }
                }
            }
            NodeKind::Directory(directory) => match &directory.place {
                Place::Nowhere => begin(Form::Empty, b""),
                Place::Inline(body) => begin(Form::Inline, body),
                Place::Node(id) => begin(Form::Node, id.as_bytes()),
            },
            NodeKind::Symlink { .. }
            | NodeKind::HardLink { .. }
            | NodeKind::Fifo
            | NodeKind::Socket
            | NodeKind::CharDevice { .. }
            | NodeKind::BlockDevice { .. } => return None,
        }
        Some(*hasher.finalize().as_bytes())
    }
}
