//! Owners that the container does not have.

use std::fs;

use super::stat::Stat;

/// What the kernel shows instead of an owner or group that the map lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners {
    user: Stand,
    group: Stand,
}

/// What a number stands for that may be the kernel's way to say "none of yours".
#[derive(Clone, Copy, Debug)]
struct Stand {
    number: u32,
    means: Means,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Means {
    /// Every owner is in the map, so this one is.
    Itself,
    /// No owner of the container has this number.
    Nobody,
    Either,
}

impl Owners {
    /// As the map of this process has them.
    pub(super) fn new() -> Self {
        Self {
            user: Stand::read("/proc/self/uid_map", "/proc/sys/kernel/overflowuid"),
            group: Stand::read("/proc/self/gid_map", "/proc/sys/kernel/overflowgid"),
        }
    }

    /// What is to be said about an entry's owners; `foreign` if the kernel treats the owner as one.
    pub(super) fn warning(&self, stat: &Stat, foreign: bool) -> Option<String> {
        let is = |stand: Stand, number: u32, proven: bool| {
            number == stand.number
                && match stand.means {
                    Means::Itself => false,
                    Means::Nobody => true,
                    Means::Either => proven,
                }
        };
        if is(self.user, stat.uid, foreign) {
            Some("its owner is none of the container's and kept as `nobody`".to_owned())
        } else if is(self.group, stat.gid, false) {
            Some("its group is none of the container's and kept as `nogroup`".to_owned())
        } else {
            None
        }
    }
}

impl Stand {
    fn read(map: &str, number: &str) -> Self {
        let number = fs::read_to_string(number).ok();
        let number = number.and_then(|text| text.trim().parse().ok());
        // The kernel's default.
        let number = number.unwrap_or(65_534);
        let map = fs::read_to_string(map).unwrap_or_default();
        let means = means(&map, number);
        Self { number, means }
    }
}

fn means(map: &str, number: u32) -> Means {
    let mut mapped = 0;
    let mut has_number = false;
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        mapped += count;
        has_number |= (first..first.saturating_add(count)).contains(&u64::from(number));
    }
    // The last number is no owner.
    if mapped >= u64::from(u32::MAX) {
        Means::Itself
    } else if has_number {
        Means::Either
    } else {
        Means::Nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_what_nobody_can_be() {
        assert_eq!(
            means("         0          0 4294967295\n", 65_534),
            Means::Itself
        );
        assert_eq!(means("0 100000 65536\n", 65_534), Means::Either);
        assert_eq!(
            means("0 100000 1000\n 2000 102000 5\n", 65_534),
            Means::Nobody
        );
    }
}
