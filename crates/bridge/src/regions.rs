//! Lists of dirty regions, which arrive in parts.

use std::collections::BTreeMap;

use snapkeep_api::{DeviceName, Error, ErrorKind, Region, Result};

use crate::call::VmRegions;
use crate::limits;

/// The dirty regions of a guest's volumes.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    lists: BTreeMap<DeviceName, List>,
    /// In all lists.
    count: usize,
}

#[derive(Debug, Default)]
struct List {
    regions: Vec<Region>,
    whole: bool,
    /// A part of it could not be believed, so nothing of it can.
    refused: bool,
}

impl Regions {
    /// Adds a part. A list that cannot be believed is refused, and cannot be used from then on.
    pub(crate) fn add(&mut self, part: &VmRegions) -> Result<()> {
        let device = &part.device;
        if self.lists.len() == limits::VOLUMES_MAX && !self.lists.contains_key(device) {
            return Err(broken(device, ErrorKind::Protocol, "is one of too many"));
        }
        let list = self.lists.entry(device.clone()).or_default();
        let others = self.count - list.regions.len();
        let added = list.add(part, limits::REGIONS_MAX - others);
        if added.is_err() {
            *list = List {
                refused: true,
                ..List::default()
            };
        }
        self.count = others + list.regions.len();
        added
    }

    /// The whole list of a volume, once.
    pub(crate) fn take(
        &mut self,
        device: &DeviceName,
    ) -> Result<impl Iterator<Item = Result<Region>> + use<>> {
        let list = self.lists.get_mut(device).filter(|list| list.whole);
        let list =
            list.ok_or_else(|| broken(device, ErrorKind::Protocol, "did not come to its end"))?;
        let regions = std::mem::take(list).regions;
        self.count -= regions.len();
        Ok(regions.into_iter().map(Ok))
    }
}

impl List {
    /// Adds a part to at most so many regions.
    fn add(&mut self, part: &VmRegions, most: usize) -> Result<()> {
        let broken = |kind, why: &str| Err(broken(&part.device, kind, why));
        if self.refused {
            return broken(ErrorKind::Protocol, "goes on after it was refused");
        }
        if self.whole {
            return broken(ErrorKind::Protocol, "goes on after its end");
        }
        if part.regions.len() > limits::REGIONS_MESSAGE_MAX {
            let most = limits::REGIONS_MESSAGE_MAX;
            let why = format!("comes in parts of more than {most}");
            return broken(ErrorKind::Protocol, &why);
        }
        for region in &part.regions {
            let region = Region::new(region.0, region.1)?;
            let is_full = self.regions.len() == most;
            let last = self.regions.last_mut();
            match last.filter(|last| last.end() >= region.offset()) {
                Some(last) if last.end() == region.offset() => {
                    *last = Region::new(last.offset(), last.length() + region.length())?;
                }
                Some(_) => return broken(ErrorKind::Protocol, "goes back or overlaps"),
                None if is_full => {
                    let why = format!("has more than {} regions", limits::REGIONS_MAX);
                    return broken(ErrorKind::Unsupported, &why);
                }
                None => self.regions.push(region),
            }
        }
        self.whole = part.last;
        Ok(())
    }
}

fn broken(device: &DeviceName, kind: ErrorKind, why: &str) -> Error {
    let what = format!("volume {device}: its list of dirty regions {why}");
    Error::new(kind, what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::call::Call;

    fn part(regions: &[(u64, u64)], last: bool) -> VmRegions {
        let args = json!({"vmid": 1, "device": "d", "regions": regions, "last": last});
        match Call::parse("backup_vm_regions", args) {
            Ok(Call::BackupVmRegions(part)) => part,
            other => panic!("{other:?}"),
        }
    }

    fn taken(regions: &mut Regions) -> Result<Vec<(u64, u64)>> {
        let taken = regions.take(&"d".parse().unwrap())?;
        taken.map(|r| r.map(|r| (r.offset(), r.length()))).collect()
    }

    #[test]
    fn parts_become_one_list_and_neighbours_one_region() {
        let mut regions = Regions::default();
        regions
            .add(&part(&[(0, 4), (4, 4), (10, 2)], false))
            .unwrap();
        regions.add(&part(&[(12, 8), (30, 1)], false)).unwrap();
        regions.add(&part(&[], true)).unwrap();
        assert_eq!(taken(&mut regions).unwrap(), [(0, 8), (10, 10), (30, 1)]);
        assert_eq!(regions.count, 0);
    }

    #[test]
    fn a_list_without_an_end_or_out_of_order_is_not_used() {
        let mut regions = Regions::default();
        assert!(taken(&mut regions).is_err());
        regions.add(&part(&[(0, 4)], false)).unwrap();
        assert!(taken(&mut regions).is_err());
        for bad in [
            &[(8, 4), (0, 4)][..],
            &[(8, 4), (10, 4)],
            &[(0, 0)],
            &[(u64::MAX, 2)],
        ] {
            let mut regions = Regions::default();
            assert!(regions.add(&part(bad, true)).is_err(), "{bad:?}");
            assert!(taken(&mut regions).is_err(), "{bad:?}");
            // What comes then cannot make it whole.
            assert!(regions.add(&part(&[(64, 4)], true)).is_err(), "{bad:?}");
            assert!(taken(&mut regions).is_err(), "{bad:?}");
            assert_eq!(regions.count, 0);
        }
        let mut regions = Regions::default();
        regions.add(&part(&[(0, 4)], true)).unwrap();
        assert!(regions.add(&part(&[(4, 4)], true)).is_err());
        assert!(taken(&mut regions).is_err());
    }

    #[test]
    fn a_list_has_an_end() {
        let mut regions = Regions::default();
        let most = limits::REGIONS_MAX as u64;
        let all: Vec<(u64, u64)> = (0..most).map(|n| (n * 2, 1)).collect();
        for regions_of in all.chunks(limits::REGIONS_MESSAGE_MAX) {
            regions.add(&part(regions_of, false)).unwrap();
        }
        // What is part of the last one has room.
        regions.add(&part(&[(most * 2 - 1, 1)], false)).unwrap();
        let error = regions.add(&part(&[(most * 2 + 2, 1)], true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let too_many = vec![(0, 1); limits::REGIONS_MESSAGE_MAX + 1];
        assert!(Regions::default().add(&part(&too_many, true)).is_err());
    }
}
