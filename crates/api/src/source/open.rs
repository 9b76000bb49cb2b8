//! Opens either mechanism, and holds what a source must keep true before a provider sees it.

use crate::{
    BitmapMode, BlockSource, DeviceName, DirtyRegions, Error, ErrorKind, Region, Result,
    SnapshotAccess, Volume,
};

impl Volume {
    /// Opens the snapshot access for reading, and the list of what may be read.
    ///
    /// The regions it hands out are checked, whichever the mechanism: ascending, disjoint, inside
    /// the volume. Where no bitmap is reused, a file handle's regions must also cover the whole
    /// volume (a caller whose region list failed silently would otherwise make an empty backup look
    /// complete); an NBD export's leave out what its server says reads as zeroes.
    pub fn open(self, device: &DeviceName) -> Result<(Box<dyn BlockSource>, DirtyRegions)> {
        match self.access {
            SnapshotAccess::FileHandle { file, dirty } => {
                let whole = self.bitmap != BitmapMode::Reuse;
                let dirty: DirtyRegions =
                    Box::new(Checked::new(dirty, device.clone(), self.size, whole));
                let source = super::file::FileSource::new(file, device, self.size)?;
                Ok((Box::new(source), dirty))
            }
            #[cfg(feature = "nbd")]
            SnapshotAccess::Nbd { socket, bitmap } => {
                let bitmap = match self.bitmap {
                    BitmapMode::None | BitmapMode::New => None,
                    BitmapMode::Reuse => Some(bitmap.ok_or_else(|| {
                        Error::new(
                            ErrorKind::Protocol,
                            format!("device {device}: a bitmap is reused but none is named"),
                        )
                    })?),
                };
                let (source, dirty) =
                    super::nbd::NbdSource::open(device, self.size, socket, bitmap)?;
                let dirty = Checked::new(dirty, device.clone(), self.size, false);
                Ok((source, Box::new(dirty)))
            }
            #[cfg(not(feature = "nbd"))]
            SnapshotAccess::Nbd { .. } => Err(Error::new(
                ErrorKind::Unsupported,
                format!("device {device}: this build reads no NBD exports"),
            )),
        }
    }
}

/// Regions that are proven to be ascending, disjoint, inside the volume and, where that is
/// promised, to cover it.
pub(super) struct Checked {
    inner: DirtyRegions,
    device: DeviceName,
    size: u64,
    whole: bool,
    position: u64,
    over: bool,
}

impl Checked {
    pub(super) fn new(inner: DirtyRegions, device: DeviceName, size: u64, whole: bool) -> Self {
        Self {
            inner,
            device,
            size,
            whole,
            position: 0,
            over: false,
        }
    }

    fn error(&mut self, why: &str) -> Error {
        self.over = true;
        Error::new(
            ErrorKind::Protocol,
            format!("device {}: the list of dirty regions {why}", self.device),
        )
    }
}

impl Iterator for Checked {
    type Item = Result<Region>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let region = match self.inner.next() {
            Some(Ok(region)) => region,
            Some(Err(error)) => {
                self.over = true;
                let what = format!("device {}: its dirty regions cannot be listed", self.device);
                return Some(Err(Error::with_source(error.kind(), what, error)));
            }
            None if self.whole && self.position != self.size => {
                let why = format!("ends at {} of {} bytes", self.position, self.size);
                return Some(Err(self.error(&why)));
            }
            None => {
                self.over = true;
                return None;
            }
        };
        if region.offset() < self.position {
            return Some(Err(self.error("goes back or overlaps")));
        }
        if region.end() > self.size {
            return Some(Err(self.error("runs past the end of the volume")));
        }
        if self.whole && region.offset() != self.position {
            return Some(Err(self.error("leaves a gap although no bitmap is reused")));
        }
        self.position = region.end();
        Some(Ok(region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(regions: &[(u64, u64)], size: u64, whole: bool) -> Vec<Result<Region>> {
        let regions: Vec<_> = regions.iter().map(|&(o, l)| Region::new(o, l)).collect();
        let device = "d".parse().expect("a device name");
        Checked::new(Box::new(regions.into_iter()), device, size, whole).collect()
    }

    #[test]
    fn a_list_that_fails_silently_is_an_error_when_no_bitmap_is_reused() {
        assert!(check(&[], 10, true).iter().any(Result::is_err));
        assert!(check(&[(0, 9)], 10, true).iter().any(Result::is_err));
        assert!(
            check(&[(0, 4), (5, 5)], 10, true)
                .iter()
                .any(Result::is_err)
        );
        assert!(check(&[(0, 4), (4, 6)], 10, true).iter().all(Result::is_ok));
    }

    #[test]
    fn overlaps_and_regions_past_the_end_are_errors() {
        assert!(
            check(&[(4, 4), (2, 2)], 10, false)
                .iter()
                .any(Result::is_err)
        );
        assert!(
            check(&[(4, 4), (7, 2)], 10, false)
                .iter()
                .any(Result::is_err)
        );
        assert!(check(&[(8, 4)], 10, false).iter().any(Result::is_err));
        assert!(
            check(&[(2, 2), (8, 2)], 10, false)
                .iter()
                .all(Result::is_ok)
        );
        assert!(check(&[], 10, false).is_empty());
    }
}
