//! The mechanism `nbd`: an export over a Unix socket, named after the device.
//!
//! Where a bitmap is reused, only its own metadata context is asked for: QEMU answers a read, or
//! a `base:allocation` query, outside the dirty regions with an error. Where none is reused,
//! `base:allocation` tells the holes, if the server has it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use snapkeep_nbd::{Address, BASE_ALLOCATION, Client, ClientOptions, Extent};

use crate::{BitmapName, BlockSource, DeviceName, DirtyRegions, Error, ErrorKind, Region, Result};

/// Connections to one export, if the server allows several.
const CONNECTIONS: usize = 4;
/// A server that has not answered for so long is taken for dead. QEMU breaks a snapshot whose
/// fleecing image cannot keep up after 45 seconds.
const TIMEOUT: Duration = Duration::from_secs(120);

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
            None => BASE_ALLOCATION.to_owned(),
        };
        let options = ClientOptions {
            export: device.as_str().to_owned(),
            contexts: vec![context.clone()],
            connections: CONNECTIONS,
            timeout: TIMEOUT,
        };
        let client = Client::connect(&Address::Unix(socket), &options)
            .map_err(|e| failed(e, format!("cannot open the NBD export of device {device}")))?;
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
            let device = device.clone();
            let extents = Arc::clone(&client).all_extents(&context);
            Box::new(extents.filter_map(move |extent| match extent {
                Ok(extent) => wanted(&extent).then(|| Region::new(extent.offset, extent.length)),
                Err(e) => {
                    let what =
                        format!("cannot learn the regions of device {device} from {context}");
                    Some(Err(failed(e, what)))
                }
            }))
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
            failed(e, what)
        })
    }

    fn discard(&self, region: Region) -> Result<()> {
        if !self.client.can_trim() {
            let what = format!("the NBD export of device {} takes no discards", self.device);
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        self.client
            .trim(region.offset(), region.length())
            .map_err(|e| failed(e, format!("cannot discard part of device {}", self.device)))
    }

    fn interrupt(&self) {
        self.client.interrupt();
    }
}

/// An error of the client as one of the contract. A server that breaks the protocol has not merely
/// failed to read.
fn failed(error: snapkeep_nbd::Error, what: String) -> Error {
    let kind = if error.kind() == snapkeep_nbd::ErrorKind::Protocol {
        ErrorKind::Protocol
    } else {
        ErrorKind::Source
    };
    Error::with_source(kind, what, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_server_that_breaks_the_protocol_is_told_from_one_that_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let device = "drive-scsi0".parse().expect("a device name");
        let kind = || {
            let opened = NbdSource::open(&device, 512, socket.clone(), None);
            opened.err().map(|e| e.kind())
        };
        assert_eq!(kind(), Some(ErrorKind::Source));
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut client, _) = listener.accept().expect("a client");
                client.write_all(b"HTTP/1.1 400 Bad Request").expect("room");
            });
            assert_eq!(kind(), Some(ErrorKind::Protocol));
        });
    }
}
