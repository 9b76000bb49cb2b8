//! The mechanism `nbd`: an export over a Unix socket, named after the device.
//!
//! Where a bitmap is reused, only its own metadata context is asked for: QEMU answers a read, or
//! a `base:allocation` query, outside the dirty regions with an error. Where none is reused,
//! `base:allocation` tells the holes, if the server has it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snapkeep_nbd::{Address, Client, ClientOptions, Extent};

use crate::{BitmapName, BlockSource, DeviceName, DirtyRegions, Error, ErrorKind, Region, Result};

/// Connections to one export, if the server allows several.
const CONNECTIONS: usize = 4;
/// A server that has not answered for so long is taken for dead. QEMU breaks a snapshot whose
/// fleecing image cannot keep up after 45 seconds.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The metadata context that tells holes from data (proto.md, "base:allocation" metadata context).
const ALLOCATION: &str = "base:allocation";

pub(super) struct NbdSource {
    client: Arc<Client>,
    device: DeviceName,
}

impl NbdSource {
    pub(super) fn open(
        device: &DeviceName,
        size: u64,
        socket: PathBuf,
        bitmap: Option<BitmapName>,
    ) -> Result<(Box<dyn BlockSource>, DirtyRegions)> {
        let context = match &bitmap {
            Some(name) => format!("qemu:dirty-bitmap:{name}"),
            None => ALLOCATION.to_owned(),
        };
        let options = ClientOptions {
            export: device.as_str().to_owned(),
            contexts: vec![context.clone()],
            connections: CONNECTIONS,
            timeout: TIMEOUT,
        };
        let client = Client::connect(&Address::Unix(socket), &options).map_err(|e| {
            let what = format!("cannot open the NBD export of device {device}");
            Error::with_source(ErrorKind::Source, what, e)
        })?;
        if client.size() != size {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "device {device}: announced as {size} bytes, but its NBD export has {}",
                    client.size()
                ),
            ));
        }
        let client = Arc::new(client);
        let regions: DirtyRegions = if client.has_context(&context) {
            let wanted: fn(&Extent) -> bool = match bitmap {
                Some(_) => Extent::is_dirty,
                None => |extent| !extent.is_zero(),
            };
            Box::new(Regions::new(
                Arc::clone(&client),
                device.clone(),
                context,
                wanted,
            ))
        } else if let Some(name) = bitmap {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("device {device}: its NBD export does not have the dirty bitmap {name:?}"),
            ));
        } else {
            let whole = (size > 0).then(|| Region::new(0, size));
            Box::new(whole.into_iter())
        };
        Ok((
            Box::new(Self {
                client,
                device: device.clone(),
            }),
            regions,
        ))
    }
}

impl BlockSource for NbdSource {
    fn size(&self) -> u64 {
        self.client.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        self.client.read_at(offset, buffer).map_err(|e| {
            let what = format!(
                "cannot read {length} bytes at offset {offset} of device {}",
                self.device
            );
            Error::with_source(ErrorKind::Source, what, e)
        })
    }

    fn discard(&self, region: Region) -> Result<()> {
        if !self.client.can_trim() {
            let what = format!("the NBD export of device {} takes no discards", self.device);
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        self.client
            .trim(region.offset(), region.length())
            .map_err(|e| {
                let what = format!("cannot discard part of device {}", self.device);
                Error::with_source(ErrorKind::Source, what, e)
            })
    }
}

/// The wanted extents of one metadata context, asked for piece by piece.
struct Regions {
    client: Arc<Client>,
    device: DeviceName,
    context: String,
    wanted: fn(&Extent) -> bool,
    position: u64,
    queue: std::vec::IntoIter<Extent>,
    over: bool,
}

impl Regions {
    /// Block status is asked for this many bytes at a time.
    const STEP: u64 = 1 << 40;

    fn new(
        client: Arc<Client>,
        device: DeviceName,
        context: String,
        wanted: fn(&Extent) -> bool,
    ) -> Self {
        let queue = Vec::new().into_iter();
        Self {
            client,
            device,
            context,
            wanted,
            position: 0,
            queue,
            over: false,
        }
    }
}

impl Iterator for Regions {
    type Item = Result<Region>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.over {
                return None;
            }
            if let Some(extent) = self.queue.next() {
                self.position = extent.offset + extent.length;
                if (self.wanted)(&extent) {
                    return Some(Region::new(extent.offset, extent.length));
                }
                continue;
            }
            let left = self.client.size() - self.position;
            if left == 0 {
                self.over = true;
                return None;
            }
            match self
                .client
                .block_status(&self.context, self.position, left.min(Self::STEP))
            {
                Ok(extents) => self.queue = extents.into_iter(),
                Err(e) => {
                    self.over = true;
                    let what = format!(
                        "cannot learn the regions of device {} from {}",
                        self.device, self.context
                    );
                    return Some(Err(Error::with_source(ErrorKind::Source, what, e)));
                }
            }
        }
    }
}
