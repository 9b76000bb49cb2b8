//! Made-up disks, and snapshot access to them that fails where a provider must not read.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{BitmapMode, Error, ErrorKind, Region, Result, SnapshotAccess, Volume};

/// Granularity of the dirty bitmap, in bytes.
pub(super) const CLUSTER: usize = 64 << 10;
/// The same.
pub(super) const GRANULARITY: u64 = CLUSTER as u64;
/// What lies outside the dirty regions in a file handed out for a reused bitmap.
const POISON: u8 = 0xA5;

/// What goes wrong with the access to a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    None,
    /// Reads fail in the middle of the regions.
    Read,
    /// The list of regions fails in the middle.
    List,
    /// The list of regions ends too early, without an error.
    ListCut,
    /// The disk is smaller than announced.
    Size,
    /// A bitmap that is reused cannot be read.
    Bitmap,
    /// Discards fail.
    Discard,
}

impl Fault {
    /// Whether it is met only by who asks which regions to read.
    pub(super) fn is_of_a_list(self) -> bool {
        matches!(self, Self::List | Self::ListCut | Self::Bitmap)
    }
}

/// A disk, and what was written to it since its last backup.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) device: &'static str,
    pub(super) content: Vec<u8>,
    /// Whether it is spared what goes wrong with the others.
    pub(super) spared: bool,
    dirty: BTreeSet<u64>,
}

impl Disk {
    /// A disk with data that looks random, and every fourth cluster of zeroes.
    pub(super) fn new(device: &'static str, size: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut content = Vec::with_capacity(size + 8);
        while content.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let zero = content.len() as u64 / GRANULARITY % 4 == 3;
            content.extend(if zero { [0; 8] } else { state.to_le_bytes() });
        }
        content.truncate(size);
        Self {
            device,
            content,
            spared: false,
            dirty: BTreeSet::new(),
        }
    }

    /// What goes wrong with this disk.
    pub(super) fn fault(&self, fault: Fault) -> Fault {
        if self.spared { Fault::None } else { fault }
    }

    pub(super) fn size(&self) -> u64 {
        self.content.len() as u64
    }

    /// Fills a range with one byte, which becomes dirty.
    pub(super) fn fill(&mut self, offset: usize, length: usize, byte: u8) {
        self.content[offset..offset + length].fill(byte);
        let (first, end) = (offset as u64, (offset + length) as u64);
        self.dirty
            .extend(first / GRANULARITY..end.div_ceil(GRANULARITY));
    }

    /// The clusters that may be read.
    pub(super) fn readable(&self, bitmap: BitmapMode) -> BTreeSet<u64> {
        match bitmap {
            BitmapMode::Reuse => self.dirty.clone(),
            BitmapMode::None | BitmapMode::New => (0..self.size().div_ceil(GRANULARITY)).collect(),
        }
    }

    fn regions(&self, bitmap: BitmapMode) -> Vec<Result<Region>> {
        let region = |cluster: u64| {
            let start = cluster * GRANULARITY;
            Region::new(start, GRANULARITY.min(self.size() - start))
        };
        self.readable(bitmap).into_iter().map(region).collect()
    }

    /// Snapshot access by file handle to the disk as it is now.
    pub(super) fn volume(&self, bitmap: BitmapMode, fault: Fault) -> Result<(Volume, Trap)> {
        let fault = self.fault(fault);
        let reuse = bitmap == BitmapMode::Reuse;
        let regions = self.regions(bitmap);
        let failed =
            |e: std::io::Error| Error::with_source(ErrorKind::Source, "cannot make a disk", e);
        let file = self.file(reuse.then_some(&regions)).map_err(failed)?;
        if fault == Fault::Size {
            file.set_len(self.size() - 512).map_err(failed)?;
        }
        let trap = Trap {
            file: Arc::new(file.try_clone().map_err(failed)?),
            regions: regions.iter().flatten().copied().collect(),
            listed: Arc::default(),
            failed: Arc::default(),
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // A disk without dirty regions is never read at all.
        let file = if regions.is_empty() {
            File::options().write(true).open(path).map_err(failed)?
        } else if fault == Fault::Discard {
            File::open(path).map_err(failed)?
        } else {
            file
        };
        let volume = Volume {
            size: self.size(),
            bitmap,
            access: SnapshotAccess::FileHandle {
                file,
                dirty: Box::new(Regions {
                    list: regions,
                    next: 0,
                    fault,
                    trap: trap.clone(),
                }),
            },
        };
        Ok((volume, trap))
    }

    /// The disk as a file; outside of these regions, if any are given, with other bytes.
    fn file(&self, regions: Option<&Vec<Result<Region>>>) -> std::io::Result<File> {
        let file = File::from(memfd_create("snapkeep-conformance", MemfdFlags::CLOEXEC)?);
        let Some(regions) = regions else {
            file.write_all_at(&self.content, 0)?;
            return Ok(file);
        };
        let mut seen = vec![POISON; self.content.len()];
        for region in regions.iter().flatten() {
            let start = usize::try_from(region.offset()).map_err(std::io::Error::other)?;
            let end = usize::try_from(region.end()).map_err(std::io::Error::other)?;
            seen[start..end].copy_from_slice(&self.content[start..end]);
        }
        file.write_all_at(&seen, 0)?;
        Ok(file)
    }
}

/// What the kit keeps of a disk that it handed out.
#[derive(Clone)]
pub(super) struct Trap {
    file: Arc<File>,
    regions: Vec<Region>,
    /// Whether the list was taken to its end.
    listed: Arc<AtomicBool>,
    /// Whether the list was taken to where it fails.
    failed: Arc<AtomicBool>,
}

impl Trap {
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn was_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Bytes of the regions in clusters that still hold something: a discard leaves zeroes.
    pub(super) fn kept(&self) -> Result<u64> {
        let mut kept = 0;
        let mut cluster = vec![0; CLUSTER];
        for region in &self.regions {
            cluster.fill(0);
            // What the disk's own fault cut off is not there any more.
            self.file
                .read_at(&mut cluster, region.offset())
                .map_err(|e| {
                    Error::with_source(ErrorKind::Source, "cannot look at a disk again", e)
                })?;
            let length = usize::try_from(region.length()).unwrap_or(CLUSTER);
            if cluster.iter().take(length).any(|&byte| byte != 0) {
                kept += region.length();
            }
        }
        Ok(kept)
    }
}

/// A list of regions that springs its disk's trap on the way.
struct Regions {
    list: Vec<Result<Region>>,
    next: usize,
    fault: Fault,
    trap: Trap,
}

impl Regions {
    fn cut_file(&self, length: u64) -> Result<()> {
        let failed = |e| Error::with_source(ErrorKind::Source, "cannot cut a disk", e);
        self.trap.file.set_len(length).map_err(failed)
    }
}

impl Iterator for Regions {
    type Item = Result<Region>;

    fn next(&mut self) -> Option<Self::Item> {
        let middle = self.next == self.list.len() / 2;
        let Some(region) = self.list.get(self.next).cloned() else {
            self.trap.listed.store(true, Ordering::Relaxed);
            return None;
        };
        if middle && self.fault.is_of_a_list() {
            self.trap.failed.store(true, Ordering::Relaxed);
        }
        let cut = match (self.fault, &region) {
            (Fault::Read, Ok(region)) if middle => self.cut_file(region.offset()),
            (Fault::List | Fault::Bitmap, _) if middle => {
                Err(Error::new(ErrorKind::Source, "the list of regions failed"))
            }
            (Fault::ListCut, _) if middle => return None,
            // What lies behind the last region cannot be read.
            (Fault::None, _) if self.next == 0 => match self.list.last() {
                Some(Ok(last)) => self.cut_file(last.end()),
                Some(Err(_)) | None => Ok(()),
            },
            _ => Ok(()),
        };
        self.next += 1;
        Some(cut.and(region))
    }
}
