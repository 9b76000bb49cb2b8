//! POSIX ACLs: the value of the extended attributes `system.posix_acl_access` and
//! `system.posix_acl_default` (`struct posix_acl_xattr_header`, version 2), and their text.

use std::fmt::Write as _;

use crate::owners::Owners;

/// The attribute with who may do what.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute with what new entries of a folder get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const ENTRY: usize = 8;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An ACL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acl(Vec<Line>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Line {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// Takes an attribute's value apart; `None` if it is no ACL.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (lines, rest) = value.strip_prefix(&VERSION)?.as_chunks::<ENTRY>();
        let lines = lines.iter().map(|line| {
            let [t0, t1, p0, p1, id @ ..] = *line;
            let line = Line {
                tag: u16::from_le_bytes([t0, t1]),
                permissions: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes(id),
            };
            let known = matches!(line.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER);
            (known && line.permissions <= 7).then_some(line)
        });
        let acl = Self(lines.collect::<Option<_>>()?);
        rest.is_empty().then_some(acl)
    }

    /// An attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_vec();
        for line in &self.0 {
            value.extend(line.tag.to_le_bytes());
            value.extend(line.permissions.to_le_bytes());
            value.extend(line.id.to_le_bytes());
        }
        value
    }

    /// The short text form with numbers for users and groups, lines separated by commas.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Line {
            tag,
            permissions,
            id,
        } in &self.0
        {
            let name = match *tag {
                USER | USER_OBJ => "user",
                GROUP | GROUP_OBJ => "group",
                MASK => "mask",
                _ => "other",
            };
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name);
            text.push(':');
            if matches!(*tag, USER | GROUP) {
                // Writing into a string cannot fail.
                write!(text, "{id}").ok();
            }
            text.push(':');
            for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
                text.push(if permissions & bit == 0 { '-' } else { letter });
            }
        }
        text
    }

    /// The ACL without the lines of those whom its container did not have, and whether there were any:
    /// the kernel shows them without an ID.
    #[must_use]
    pub fn of_known(&self) -> (Self, bool) {
        let is_known = |line: &&Line| !matches!(line.tag, USER | GROUP) || line.id != NO_ID;
        let known = Self(self.0.iter().filter(is_known).copied().collect());
        let some_were = known.0.len() < self.0.len();
        (known, some_were)
    }

    /// The ACL for the host; `None` if one of its users or groups is not mapped.
    pub fn outside(&self, owners: &Owners) -> Option<Self> {
        let lines = self.0.iter().map(|line| {
            let id = match line.tag {
                USER => owners.user(line.id)?,
                GROUP => owners.group(line.id)?,
                _ => NO_ID,
            };
            Some(Line { id, ..*line })
        });
        let mut lines: Vec<Line> = lines.collect::<Option<_>>()?;
        // Linux refuses lines of one tag that are not in order of their IDs.
        lines.sort_by_key(|line| (line.tag, line.id));
        Some(Self(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_those_whom_the_container_did_not_have_are_not_known() {
        let (known, some_were) = acl().of_known();
        assert!(!some_were && known == acl());
        let mut foreign = acl();
        foreign.0[1].id = NO_ID;
        let (known, some_were) = foreign.of_known();
        assert!(some_were);
        assert_eq!(known.0.len(), acl().0.len() - 1);
        assert!(known.0.iter().all(|line| line.tag != USER || line.id == 2));
    }

    fn acl() -> Acl {
        let line = |tag, permissions, id| Line {
            tag,
            permissions,
            id,
        };
        Acl(vec![
            line(USER_OBJ, 7, NO_ID),
            line(USER, 6, 1),
            line(USER, 5, 2),
            line(GROUP_OBJ, 4, NO_ID),
            line(GROUP, 1, 4_000_000_000),
            line(MASK, 7, NO_ID),
            line(OTHER, 0, NO_ID),
        ])
    }

    #[test]
    fn its_text_has_numbers() {
        let text =
            "user::rwx,user:1:rw-,user:2:r-x,group::r--,group:4000000000:--x,mask::rwx,other::---";
        assert_eq!(acl().text(), text);
    }

    #[test]
    fn its_value_is_taken_apart_and_put_together() {
        let value = acl().encode();
        assert_eq!(Acl::decode(&value), Some(acl()));
        for bad in [&value[..value.len() - 1], b"", &value[1..]] {
            assert_eq!(Acl::decode(bad), None);
        }
        let mut bad = value;
        bad[4] = 3;
        assert_eq!(Acl::decode(&bad), None);
    }

    #[test]
    fn mapped_ids_stay_in_order() {
        let map = "u:0:9:1,u:1:20:1,u:2:10:1,g:0:0:4000000001"
            .parse()
            .unwrap();
        let mapped = acl().outside(&Owners::mapped(map)).unwrap();
        assert!(
            mapped
                .text()
                .starts_with("user::rwx,user:10:r-x,user:20:rw-,group::r--")
        );
        let map = "u:0:0:2,g:0:0:4000000001".parse().unwrap();
        assert_eq!(acl().outside(&Owners::mapped(map)), None);
    }
}
