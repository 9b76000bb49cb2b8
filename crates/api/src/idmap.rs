//! Which users and groups of the machine are those of a container.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// Ranges of an ID map, of users or of groups: what Linux takes.
const ID_RANGES_MAX: usize = 340;

/// Whose numbers a range maps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdKind {
    /// User IDs.
    Users,
    /// Group IDs.
    Groups,
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "users",
            Self::Groups => "groups",
        })
    }
}

/// A range of IDs: `count` from `container` on, in the container, are those from `host` on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdRange {
    /// The first ID, as the container sees it.
    pub container: u32,
    /// The same, as the machine sees it.
    pub host: u32,
    /// How many; never zero.
    pub count: u32,
}

impl IdRange {
    /// The IDs of the container and of the machine, each with the end excluded.
    fn spans(self) -> [(u64, u64); 2] {
        [self.container, self.host]
            .map(|first| (first.into(), u64::from(first) + u64::from(self.count)))
    }

    /// A range that Linux takes.
    fn parse(container: &str, host: &str, count: &str) -> Result<Self, &'static str> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.then(|| text.parse::<u32>().ok()).flatten();
            number.ok_or("it needs three numbers below 4294967296")
        };
        let range = Self {
            container: number(container)?,
            host: number(host)?,
            count: number(count)?,
        };
        if range.count == 0 {
            return Err("its range is empty");
        }
        // The last number means "no user" to Linux.
        if (range.spans().iter()).any(|(_, end)| *end > u64::from(u32::MAX)) {
            return Err("it reaches beyond the last ID, 4294967294");
        }
        Ok(range)
    }
}

/// The ID map of an unprivileged container: it has its root user, and no ID twice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdMap {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

impl IdMap {
    /// A map of these ranges. `Invalid` if the container's root is not in it, or an ID is twice.
    pub fn new(users: Vec<IdRange>, groups: Vec<IdRange>) -> Result<Self> {
        for (kind, ranges) in [(IdKind::Users, &users), (IdKind::Groups, &groups)] {
            check(ranges).map_err(|why| {
                let what = format!("the ID map of {kind} cannot be used: {why}");
                Error::new(ErrorKind::Invalid, what)
            })?;
        }
        Ok(Self { users, groups })
    }

    /// The ranges of users.
    pub fn users(&self) -> &[IdRange] {
        &self.users
    }

    /// The ranges of groups.
    pub fn groups(&self) -> &[IdRange] {
        &self.groups
    }
}

/// `0:100000:65536`: container, host, count; the same for users and groups. Several are separated
/// by commas, and `u:` or `g:` before one is for users or groups alone.
impl FromStr for IdMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for part in text.split(',') {
            let fields: Vec<&str> = part.splitn(5, ':').collect();
            let (kind, range) = match fields.as_slice() {
                [container, host, count] => ("b", IdRange::parse(container, host, count)),
                [kind @ ("u" | "g"), container, host, count] => {
                    (*kind, IdRange::parse(container, host, count))
                }
                _ => (
                    "b",
                    Err("it is written as CONTAINER:HOST:COUNT, such as 0:100000:65536"),
                ),
            };
            let range = range
                .map_err(|why| Error::new(ErrorKind::Invalid, format!("ID map {part:?}: {why}")))?;
            add(kind, range, &mut users, &mut groups);
        }
        Self::new(users, groups)
    }
}

/// As it is parsed.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = self.users == self.groups;
        let kinds: &[(&str, &[IdRange])] = if both {
            &[("", &self.users)]
        } else {
            &[("u:", &self.users), ("g:", &self.groups)]
        };
        let mut separator = "";
        for (kind, ranges) in kinds {
            for range in *ranges {
                let IdRange {
                    container,
                    host,
                    count,
                } = range;
                write!(f, "{separator}{kind}{container}:{host}:{count}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// Adds the ranges of a value of `lxc.idmap`, such as `u 0 100000 65536`; the error says what is
/// wrong with it.
pub fn add_lxc_range(
    value: &str,
    users: &mut Vec<IdRange>,
    groups: &mut Vec<IdRange>,
) -> Result<(), &'static str> {
    const FORM: &str =
        "it is written as \"u CONTAINER HOST COUNT\", with g for groups and b for both";
    let fields: Vec<&str> = value.split_ascii_whitespace().take(5).collect();
    let [kind @ ("u" | "g" | "b"), container, host, count] = fields.as_slice() else {
        return Err(FORM);
    };
    let range = IdRange::parse(container, host, count)?;
    if users.len().max(groups.len()) >= ID_RANGES_MAX {
        return Err("there are more ranges than Linux takes, 340");
    }
    add(kind, range, users, groups);
    Ok(())
}

fn add(kind: &str, range: IdRange, users: &mut Vec<IdRange>, groups: &mut Vec<IdRange>) {
    if kind != "g" {
        users.push(range);
    }
    if kind != "u" {
        groups.push(range);
    }
}

fn check(ranges: &[IdRange]) -> Result<(), String> {
    if ranges.len() > ID_RANGES_MAX {
        return Err(format!(
            "it has {} ranges, Linux takes {ID_RANGES_MAX}",
            ranges.len()
        ));
    }
    if ranges.iter().all(|range| range.container != 0) {
        return Err("the container's root (0) is not in it".to_owned());
    }
    for (side, name) in ["of the container", "of the machine"]
        .into_iter()
        .enumerate()
    {
        let mut spans: Vec<_> = ranges.iter().map(|range| range.spans()[side]).collect();
        spans.sort_unstable();
        if let Some(pair) = spans.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            return Err(format!("the ID {} {name} is in it twice", pair[1].0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_it_is_written() {
        let map: IdMap = "0:100000:65536".parse().unwrap();
        let range = IdRange {
            container: 0,
            host: 100_000,
            count: 65536,
        };
        assert_eq!(map.users(), [range]);
        assert_eq!(map.groups(), [range]);
        let map: IdMap = "u:0:100000:1000,g:0:200000:1000,1000:1000:1"
            .parse()
            .unwrap();
        for text in ["0:100000:65536", "u:0:1:5,u:7:9:1,g:0:2:5"] {
            assert_eq!(text.parse::<IdMap>().unwrap().to_string(), text);
        }
        assert_eq!(map.to_string().parse::<IdMap>().unwrap(), map);
        assert_eq!(map.users().len(), 2);
        assert_eq!(map.groups()[0].host, 200_000);
    }

    #[test]
    fn maps_that_linux_or_a_container_cannot_have_are_refused() {
        for (bad, word) in [
            ("", "CONTAINER:HOST:COUNT"),
            ("0:1", "CONTAINER:HOST:COUNT"),
            ("x:0:1:1", "CONTAINER:HOST:COUNT"),
            ("0:1:2:3:4", "CONTAINER:HOST:COUNT"),
            ("0:100000:0", "empty"),
            ("0:+1:2", "three numbers"),
            ("0:-1:2", "three numbers"),
            ("0:4294967296:1", "three numbers"),
            ("0:4294967295:1", "beyond"),
            ("0:4294967290:6", "beyond"),
            ("1:100000:10", "root (0) is not in it"),
            ("u:0:100000:10", "groups cannot be used"),
            ("g:0:100000:10", "users cannot be used"),
            (
                "0:100000:10,9:200000:10",
                "9 of the container is in it twice",
            ),
            (
                "0:100000:10,10:100009:10",
                "100009 of the machine is in it twice",
            ),
        ] {
            let error = bad.parse::<IdMap>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(word), "{bad}: {}", error.chain());
        }
        let many: Vec<String> = (0..341).map(|n| format!("{n}:{}:1", n * 2)).collect();
        assert!(many.join(",").parse::<IdMap>().is_err());
        assert!("0:4294967289:6".parse::<IdMap>().is_ok());
    }

    #[test]
    fn lines_of_lxc_are_understood() {
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        for line in ["u 0 100000 1000", "g  0\t100000 1000", "b 1000 1000 1"] {
            add_lxc_range(line, &mut users, &mut groups).unwrap();
        }
        assert_eq!((users.len(), groups.len()), (2, 2));
        for bad in ["", "u 0 1", "u 0 1 2 3", "x 0 1 2", "u 0 1 0", "u a b c"] {
            assert!(
                add_lxc_range(bad, &mut users, &mut groups).is_err(),
                "{bad}"
            );
        }
    }
}
