//! The value of `security.capability`: what a program may do beyond its user's rights, and for
//! which user namespace that holds (`struct vfs_ns_cap_data` of Linux).

use crate::owners::Owners;

/// The name of the extended attribute.
pub const NAME: &[u8] = b"security.capability";

const REVISION: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const LENGTH_2: usize = 20;

/// Why a value has none for the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It is of a revision that is not known here; Linux sets only 2 and 3.
    Unknown,
    /// The root user that it is valid for is not mapped.
    Unmapped,
}

/// The value for the host. What a container sees as valid for its own root (revision 2) becomes
/// valid for that root as the host sees it (revision 3), unless the two are one; what is valid for
/// the root of a container inside the container (revision 3) follows the map, too.
pub fn outside(value: &[u8], owners: &Owners) -> Result<Vec<u8>, Unfit> {
    let word = |at: usize| value.get(at..at + 4).and_then(|four| four.try_into().ok());
    let head = word(0).map_or(0, u32::from_le_bytes);
    let root = match (head & REVISION, value.len()) {
        (REVISION_2, LENGTH_2) => 0,
        (REVISION_3, 24) => word(LENGTH_2).map_or(0, u32::from_le_bytes),
        _ => return Err(Unfit::Unknown),
    };
    let outside = owners.user(root).ok_or(Unfit::Unmapped)?;
    if outside == root {
        return Ok(value.to_vec());
    }
    let mut mapped = (head & !REVISION | REVISION_3).to_le_bytes().to_vec();
    mapped.extend_from_slice(&value[4..LENGTH_2]);
    mapped.extend_from_slice(&outside.to_le_bytes());
    Ok(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cap_net_raw=ep`, as setcap writes it.
    const RAW: [u8; 20] = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    fn shifted() -> Owners {
        Owners::mapped("0:100000:1000".parse().unwrap())
    }

    #[test]
    fn the_containers_own_become_those_of_its_root() {
        let mapped = outside(&RAW, &shifted()).unwrap();
        assert_eq!(mapped[..4], [1, 0, 0, 3]);
        assert_eq!(mapped[4..20], RAW[4..]);
        assert_eq!(mapped[20..], 100_000u32.to_le_bytes());
        assert_eq!(outside(&RAW, &Owners::same()).unwrap(), RAW);
    }

    #[test]
    fn those_of_a_nested_container_follow_the_map() {
        let mut nested = RAW.to_vec();
        nested[3] = 3;
        nested.extend(500u32.to_le_bytes());
        let mapped = outside(&nested, &shifted()).unwrap();
        assert_eq!(mapped[20..], 100_500u32.to_le_bytes());
        assert_eq!(outside(&nested, &Owners::same()).unwrap(), nested);
        nested.truncate(20);
        nested.extend(5000u32.to_le_bytes());
        assert_eq!(outside(&nested, &shifted()), Err(Unfit::Unmapped));
    }

    #[test]
    fn unknown_values_are_refused() {
        for bad in [&b""[..], b"\0\0\0\x02", &RAW[..19], &[0; 24]] {
            assert_eq!(outside(bad, &Owners::same()), Err(Unfit::Unknown));
        }
    }
}
