//! Owners: from those that a container sees to those of the target.

use snapkeep_api::{IdMap, IdRange};

/// What a container's owners are in the target of a restore.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owners {
    map: Option<IdMap>,
    unmapped: Option<u32>,
}

impl Owners {
    /// The same numbers.
    pub fn same() -> Self {
        Self::default()
    }

    /// What this map says they are.
    pub fn mapped(map: IdMap) -> Self {
        Self {
            map: Some(map),
            unmapped: None,
        }
    }

    /// Users and groups that are in no range become this one.
    #[must_use]
    pub fn with_unmapped(mut self, host: u32) -> Self {
        self.unmapped = Some(host);
        self
    }

    /// Whether there is a map: the tree is then that of a user namespace.
    pub fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// What a user is, if it is anything.
    pub fn user(&self, container: u32) -> Option<u32> {
        self.host(container, self.map.as_ref().map(IdMap::users))
    }

    /// What a group is, if it is anything.
    pub fn group(&self, container: u32) -> Option<u32> {
        self.host(container, self.map.as_ref().map(IdMap::groups))
    }

    fn host(&self, container: u32, ranges: Option<&[IdRange]>) -> Option<u32> {
        // The last number is nobody's: the kernel takes it for "leave it as it is".
        if container == u32::MAX {
            return self.unmapped;
        }
        let Some(ranges) = ranges else {
            return Some(container);
        };
        let mapped = ranges.iter().find_map(|range| {
            let within = container.checked_sub(range.container)?;
            let within = (within < range.count).then_some(within)?;
            range.host.checked_add(within)
        });
        mapped.or(self.unmapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_mapped_by_their_range() {
        let map = "u:0:100000:1000,u:1000:1000:1,g:0:200000:10"
            .parse()
            .unwrap();
        let owners = Owners::mapped(map);
        let users = [0, 999, 1000, 1001, u32::MAX].map(|id| owners.user(id));
        assert_eq!(
            users,
            [Some(100_000), Some(100_999), Some(1000), None, None]
        );
        assert_eq!([owners.group(9), owners.group(10)], [Some(200_009), None]);
        let owners = owners.with_unmapped(65_534);
        assert_eq!(
            [owners.user(999), owners.user(1001)],
            [Some(100_999), Some(65_534)]
        );
        assert_eq!(
            [7, u32::MAX].map(|id| Owners::same().user(id)),
            [Some(7), None]
        );
    }
}
