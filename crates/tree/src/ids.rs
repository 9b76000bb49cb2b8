//! Owners: from those that a container sees to those of the host.

use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::ID_RANGES_MAX;

/// IDs that follow each other, inside a container and outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdRange {
    /// The first, as the container sees it.
    pub inside: u32,
    /// The first, as the host sees it.
    pub outside: u32,
    /// How many, 1 or more.
    pub count: u32,
}

/// What the IDs of a container are outside of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdMap {
    ranges: Option<Vec<IdRange>>,
    unmapped: Option<u32>,
}

/// The maps of users and of groups.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owners {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl IdMap {
    /// Each ID is the same outside.
    pub fn same() -> Self {
        Self::default()
    }

    /// A map of these ranges; `Invalid` if they overlap inside, or wrap around.
    pub fn new(mut ranges: Vec<IdRange>) -> Result<Self> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the ID map {why}")));
        if ranges.is_empty() || ranges.len() > ID_RANGES_MAX {
            return invalid("has no range, or more than 340");
        }
        ranges.sort_by_key(|range| range.inside);
        let ends = |start: u32, count: u32| start.checked_add(count);
        for range in &ranges {
            let ends = ends(range.inside, range.count).zip(ends(range.outside, range.count));
            if range.count == 0 || ends.is_none() {
                return invalid("has a range that is empty or wraps around");
            }
        }
        if ranges
            .windows(2)
            .any(|two| two[0].inside + two[0].count > two[1].inside)
        {
            return invalid("has ranges that overlap");
        }
        let ranges = Some(ranges);
        Ok(Self {
            ranges,
            unmapped: None,
        })
    }

    /// An ID that is in no range becomes this one outside.
    #[must_use]
    pub fn with_unmapped(mut self, outside: u32) -> Self {
        self.unmapped = Some(outside);
        self
    }

    /// What an ID is outside, if it is anything.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        // The last value is no ID: the kernel takes it for "leave it".
        let valid = (inside != u32::MAX).then_some(inside)?;
        let Some(ranges) = &self.ranges else {
            return Some(valid);
        };
        let after = ranges.partition_point(|range| range.inside <= inside);
        let range = after.checked_sub(1).map(|at| ranges[at]);
        let mapped = range.and_then(|range| {
            let within = inside - range.inside;
            (within < range.count).then(|| range.outside + within)
        });
        mapped.or(self.unmapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange {
            inside,
            outside,
            count,
        }
    }

    #[test]
    fn ids_are_mapped_by_their_range() {
        let map = IdMap::new(vec![range(1000, 1000, 1), range(0, 100_000, 1000)]).unwrap();
        let outside = [0, 999, 1000, 1001, u32::MAX].map(|id| map.outside(id));
        assert_eq!(
            outside,
            [Some(100_000), Some(100_999), Some(1000), None, None]
        );
        let map = map.with_unmapped(65_534);
        assert_eq!(
            [map.outside(999), map.outside(1001)],
            [Some(100_999), Some(65_534)]
        );
        assert_eq!(IdMap::same().outside(7), Some(7));
        assert_eq!(IdMap::same().outside(u32::MAX), None);
    }

    #[test]
    fn maps_that_cannot_be_are_refused() {
        for bad in [
            vec![],
            vec![range(0, 0, 0)],
            vec![range(1, 0, u32::MAX)],
            vec![range(0, 0, 2), range(1, 9, 1)],
        ] {
            assert!(IdMap::new(bad).is_err());
        }
    }
}
