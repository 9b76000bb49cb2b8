//! Which users outside of a container its users are.

use std::fmt;

use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits;

/// The map of a container's users and groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdMap {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// Numbers that follow each other, inside and outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

impl IdMap {
    /// Reads the parts of a map: `0:100000:65536` for users and groups alike (inside, outside, how
    /// many), or what LXC has after `lxc.idmap =`: `u 0 100000 65536`, `g 0 100000 65536`, and `b`
    /// for both. `Invalid` if a part cannot be, overlaps with another, or if the container would have
    /// no root user.
    pub fn parse<T: AsRef<str>>(parts: &[T]) -> Result<Self> {
        let mut map = Self {
            users: Vec::new(),
            groups: Vec::new(),
        };
        for part in parts {
            let part = part.as_ref();
            let (kind, range) = read(part)
                .ok_or_else(|| invalid(format!("the ID map `{}` is none", shown(part))))?;
            if kind != Kind::Groups {
                map.users.push(range);
            }
            if kind != Kind::Users {
                map.groups.push(range);
            }
        }
        for (what, ranges) in [("user", &map.users), ("group", &map.groups)] {
            check(what, ranges)?;
        }
        Ok(map)
    }

    /// What is written to `uid_map`.
    pub(super) fn users(&self) -> String {
        text(&self.users)
    }

    /// What is written to `gid_map`.
    pub(super) fn groups(&self) -> String {
        text(&self.groups)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Users,
    Groups,
    Both,
}

fn read(part: &str) -> Option<(Kind, Range)> {
    let (kind, numbers) = match part.trim().split_once(char::is_whitespace) {
        None => (Kind::Both, part.trim().split(':').collect::<Vec<_>>()),
        Some((kind, numbers)) => {
            let kind = match kind {
                "u" => Kind::Users,
                "g" => Kind::Groups,
                "b" => Kind::Both,
                _ => return None,
            };
            (kind, numbers.split_whitespace().collect())
        }
    };
    let [inside, outside, count] = numbers[..] else {
        return None;
    };
    let range = Range {
        inside: inside.parse().ok()?,
        outside: outside.parse().ok()?,
        count: count.parse().ok()?,
    };
    // The largest number stands for none.
    let fits = |first: u32| first.checked_add(range.count).is_some();
    (range.count > 0 && fits(range.inside) && fits(range.outside)).then_some((kind, range))
}

fn check(what: &str, ranges: &[Range]) -> Result<()> {
    let overlaps = |a: u32, b: u32, first: &Range, second: &Range| {
        a < b.saturating_add(second.count) && b < a.saturating_add(first.count)
    };
    // Before each is held against each.
    if ranges.len() > limits::MAP_RANGES_MAX || text(ranges).len() > limits::MAP_BYTES_MAX {
        return Err(invalid(format!("the {what} map has too many parts")));
    }
    for (place, one) in ranges.iter().enumerate() {
        for other in &ranges[..place] {
            if overlaps(one.inside, other.inside, one, other)
                || overlaps(one.outside, other.outside, one, other)
            {
                let message = format!("the {what} map's parts `{other}` and `{one}` overlap");
                return Err(invalid(message));
            }
        }
    }
    if !ranges.iter().any(|range| range.inside == 0) {
        return Err(invalid(format!("the {what} map has no root")));
    }
    Ok(())
}

fn text(ranges: &[Range]) -> String {
    let lines: Vec<_> = ranges.iter().map(Range::to_string).collect();
    lines.join("\n") + "\n"
}

fn shown(part: &str) -> String {
    part.chars()
        .take(100)
        .flat_map(char::escape_debug)
        .collect()
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_lxc_and_as_we_write_it() {
        let map = IdMap::parse(&["0:100000:65536"]).unwrap();
        assert_eq!(map.users(), "0 100000 65536\n");
        assert_eq!(map.groups(), map.users());
        let lines = [
            "u 0 100000 1000",
            "g 0 100000 65536",
            " u  1000 1000 1 ",
            "u 1001 101001 64535",
        ];
        let map = IdMap::parse(&lines).unwrap();
        assert_eq!(
            map.users(),
            "0 100000 1000\n1000 1000 1\n1001 101001 64535\n"
        );
        assert_eq!(map.groups(), "0 100000 65536\n");
        assert_eq!(
            IdMap::parse(&["b 0 1 2"]).unwrap(),
            IdMap::parse(&["0:1:2"]).unwrap()
        );
    }

    #[test]
    fn a_map_that_cannot_be_is_refused() {
        let many: Vec<_> = (0..341).map(|n| format!("{n}:{n}:1")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for bad in [
            &[][..],
            &[""],
            &["0:1"],
            &["0:1:2:3"],
            &["0:1:0"],
            &["-1:1:1"],
            &["0:4294967295:1"],
            &["x 0 1 2"],
            &["u 0 1 2"],
            &["1:1:10"],
            &["0:1:10", "9:100:1"],
            &["0:1:10", "100:10:5"],
            &many,
        ] {
            let error = IdMap::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn a_map_that_the_kernel_would_not_take_in_one_write_is_refused() {
        let long: Vec<_> = (0..300)
            .map(|n| format!("{}:{}:1", n * 10, 1_000_000_000 + n))
            .collect();
        assert!(IdMap::parse(&long).is_err());
        assert!(IdMap::parse(&long[..100]).is_ok());
    }
}
