//! One member of an archive: what stands before its content, and how long it is. Both ways of
//! writing an archive take its layout from here.

use snapkeep_api::tree::{Attributes, DeviceNumber, EntryKind, TreeNode, TreePath, TreeReader};
use snapkeep_api::{Error, ErrorKind, Result};

use super::header::{BLOCK, Header, ID_MAX, NUMBER_MAX, TEXT_MAX};
use super::pax;
use crate::acl::{self, Acl};
use crate::runs::{self, Run};

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    /// Headers and the map of holes, whole blocks.
    pub(super) head: Vec<u8>,
    /// The parts of the file that follow, one after the other.
    pub(super) runs: Vec<Run>,
    /// Their bytes, without padding.
    pub(super) data: u64,
}

impl Member {
    /// The member of an entry at this path. A socket has none. For a hard link, `node` is what it
    /// is a name of, and `link` the name that comes before.
    pub(super) fn new(
        reader: &dyn TreeReader,
        path: &TreePath,
        node: &TreeNode,
        link: Option<&TreePath>,
    ) -> Result<Option<Self>> {
        let attributes = &node.entry.attributes;
        let mut parts = Parts::new(path, attributes);
        if let Some(to) = link {
            if node.entry.kind == EntryKind::Socket {
                return Ok(None);
            }
            parts.kind = b'1';
            parts.target = member_name(to);
            return parts.member(Vec::new(), 0).map(Some);
        }
        parts.xattrs(attributes);
        let mut data = 0;
        let mut runs = Vec::new();
        match &node.entry.kind {
            EntryKind::File { size, .. } => {
                runs = runs::of(reader, node, path, *size)?;
                data = runs.iter().map(|run| run.length).sum();
                if data < *size {
                    parts.sparse(&runs, *size);
                }
            }
            EntryKind::Directory => {
                parts.kind = b'5';
                if !path.is_root() {
                    parts.name.push(b'/');
                }
            }
            EntryKind::Symlink { target } => {
                parts.kind = b'2';
                parts.target.clone_from(target);
            }
            EntryKind::Fifo => parts.kind = b'6',
            EntryKind::CharDevice(number) => parts.device(b'3', *number),
            EntryKind::BlockDevice(number) => parts.device(b'4', *number),
            EntryKind::Socket => return Ok(None),
            EntryKind::HardLink { .. } => {
                let what = format!("{path} of the archive is a hard link to a hard link");
                return Err(Error::new(ErrorKind::Corrupt, what));
            }
        }
        parts.member(runs, data).map(Some)
    }

    /// All its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.head.len() as u64 + self.data.next_multiple_of(BLOCK as u64)
    }
}

/// What a member is made of, before it has its final form.
struct Parts<'a> {
    attributes: &'a Attributes,
    name: Vec<u8>,
    kind: u8,
    target: Vec<u8>,
    device: Option<(u32, u32)>,
    records: Vec<u8>,
    /// The size of a file with holes, and its map.
    sparse: Option<(u64, Vec<u8>)>,
}

impl<'a> Parts<'a> {
    fn new(path: &TreePath, attributes: &'a Attributes) -> Self {
        Self {
            attributes,
            name: member_name(path),
            kind: b'0',
            target: Vec::new(),
            device: None,
            records: Vec::new(),
            sparse: None,
        }
    }

    fn device(&mut self, kind: u8, number: DeviceNumber) {
        self.kind = kind;
        self.device = Some((number.major, number.minor));
    }

    fn xattrs(&mut self, attributes: &Attributes) {
        for xattr in &attributes.xattrs {
            let acl = match xattr.name.as_slice() {
                acl::ACCESS => Some(&b"SCHILY.acl.access"[..]),
                acl::DEFAULT => Some(&b"SCHILY.acl.default"[..]),
                _ => None,
            };
            // What is no ACL that we know stays what it is: bytes.
            match acl.zip(Acl::decode(&xattr.value)) {
                Some((key, acl)) => pax::push(&mut self.records, key, acl.text().as_bytes()),
                None => {
                    pax::push(
                        &mut self.records,
                        &pax::xattr_key(&xattr.name),
                        &xattr.value,
                    );
                }
            }
        }
    }

    fn sparse(&mut self, runs: &[Run], size: u64) {
        // The map ends where the file ends, also if that is a hole.
        let last = runs.last().is_none_or(|run| run.offset + run.length < size);
        let mut map = format!("{}\n", runs.len() + usize::from(last)).into_bytes();
        for run in runs {
            map.extend_from_slice(format!("{}\n{}\n", run.offset, run.length).as_bytes());
        }
        if last {
            map.extend_from_slice(format!("{size}\n0\n").as_bytes());
        }
        pad(&mut map);
        self.sparse = Some((size, map));
    }

    fn member(mut self, runs: Vec<Run>, data: u64) -> Result<Member> {
        let (size, map) = if let Some((real, map)) = &self.sparse {
            let records = &mut self.records;
            pax::push(records, b"GNU.sparse.major", b"1");
            pax::push(records, b"GNU.sparse.minor", b"0");
            pax::push(records, b"GNU.sparse.name", &self.name);
            pax::push(records, b"GNU.sparse.realsize", real.to_string().as_bytes());
            (data.checked_add(map.len() as u64), map.as_slice())
        } else {
            if self.name.len() > TEXT_MAX {
                pax::push(&mut self.records, b"path", &self.name);
            }
            (Some(data), &[][..])
        };
        let Some(size) = size else {
            let what = "a file is too large for a tar archive";
            return Err(Error::new(ErrorKind::Unsupported, what));
        };
        let Attributes {
            permissions,
            uid,
            gid,
            mtime,
            ..
        } = *self.attributes;
        if size > NUMBER_MAX {
            pax::push(&mut self.records, b"size", size.to_string().as_bytes());
        }
        if self.target.len() > TEXT_MAX {
            pax::push(&mut self.records, b"linkpath", &self.target);
        }
        for (key, id) in [(b"uid", uid), (b"gid", gid)] {
            if id > ID_MAX {
                pax::push(&mut self.records, key, id.to_string().as_bytes());
            }
        }
        let plain = mtime.nanos == 0 && u64::try_from(mtime.seconds).is_ok_and(|s| s <= NUMBER_MAX);
        if !plain {
            pax::push(&mut self.records, b"mtime", pax::time(mtime).as_bytes());
        }
        let header = Header {
            name: &self.name,
            permissions,
            uid,
            gid,
            size,
            mtime: mtime.seconds,
            kind: self.kind,
            target: &self.target,
            device: self.device,
        };
        let mut head = Vec::new();
        if !self.records.is_empty() {
            let records = Header {
                name: b"./PaxHeaders/records",
                permissions: 0o644,
                size: self.records.len() as u64,
                kind: b'x',
                target: b"",
                device: None,
                ..header
            };
            head.extend_from_slice(&records.encode());
            head.extend_from_slice(&self.records);
            pad(&mut head);
        }
        head.extend_from_slice(&header.encode());
        head.extend_from_slice(map);
        Ok(Member { head, runs, data })
    }
}

fn member_name(path: &TreePath) -> Vec<u8> {
    [b"./", path.as_bytes()].concat()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}
