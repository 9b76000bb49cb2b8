//! Exports of the server under test, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Client, ClientOptions, Errno, Export, ExportError, Extent, Result,
    Server, ServerOptions,
};
use tempfile::TempDir;

pub(crate) const MIB: usize = 1024 * 1024;

/// Eight MiB, of which at first the second half is a hole.
pub(crate) struct Memory {
    pub(crate) bytes: Mutex<Vec<u8>>,
    read_only: bool,
}

impl Memory {
    fn new(read_only: bool) -> Arc<Self> {
        let mut bytes = vec![0; 8 * MIB];
        for (index, byte) in bytes[..4 * MIB].iter_mut().enumerate() {
            *byte = u8::try_from(index * 31 % 251).unwrap();
        }
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            read_only,
        })
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap();
    start..start + length
}

impl Export for Memory {
    fn size(&self) -> u64 {
        u64::try_from(8 * MIB).unwrap()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn can_trim(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[range(offset, buffer.len())]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> Result<(), ExportError> {
        self.bytes.lock().unwrap()[range(offset, buffer.len())].copy_from_slice(buffer);
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        let length = usize::try_from(length).unwrap();
        self.bytes.lock().unwrap()[range(offset, length)].fill(0);
        Ok(())
    }

    /// Pages of zeroes are holes.
    fn extents(&self, _: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        const PAGE: u64 = 4096;
        let bytes = self.bytes.lock().unwrap();
        let mut extents = Vec::new();
        let (mut position, end) = (offset, offset + length);
        while position < end {
            let next = end.min((position / PAGE + 1) * PAGE);
            let page = &bytes[range(position, usize::try_from(next - position).unwrap())];
            let hole = page.iter().all(|byte| *byte == 0);
            extents.push(Extent {
                offset: position,
                length: next - position,
                flags: if hole { Extent::HOLE | Extent::ZERO } else { 0 },
            });
            position = next;
        }
        Ok(extents)
    }
}

/// An export on which everything fails: reads below 4096 by a panic.
struct Broken;

impl Export for Broken {
    fn size(&self) -> u64 {
        64 << 20
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn can_trim(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, _: &mut [u8]) -> Result<(), ExportError> {
        assert!(offset >= 4096, "as the test wants it");
        Err(ExportError::new(Errno::Io, "the disk is broken"))
    }

    fn extents(&self, _: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        // A gap in the middle.
        let half = length / 2;
        let extent = |offset, length| Extent {
            offset,
            length,
            flags: 0,
        };
        Ok(vec![extent(offset, half), extent(offset + half + 1, half)])
    }
}

/// A server of `disk`, which can be written, `locked`, which cannot, and `broken`, with its log.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) disk: Arc<Memory>,
    pub(crate) locked: Arc<Memory>,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) folder: TempDir,
}

pub(crate) fn serve() -> Served {
    serve_with(ServerOptions::default(), false)
}

pub(crate) fn serve_with(mut options: ServerOptions, tcp: bool) -> Served {
    let folder = TempDir::new().unwrap();
    let address = if tcp {
        Address::Tcp("127.0.0.1:0".parse().unwrap())
    } else {
        Address::Unix(folder.path().join("s"))
    };
    let (disk, locked) = (Memory::new(false), Memory::new(true));
    let exports: BTreeMap<String, Arc<dyn Export>> = BTreeMap::from([
        ("disk".to_owned(), Arc::clone(&disk) as _),
        ("locked".to_owned(), Arc::clone(&locked) as _),
        ("broken".to_owned(), Arc::new(Broken) as _),
    ]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    options.log = Some(Arc::new(move |line: &str| {
        lines.lock().unwrap().push(line.to_owned());
    }));
    Served {
        server: Server::bind(address, exports, options).unwrap(),
        disk,
        locked,
        log,
        folder,
    }
}

impl Served {
    pub(crate) fn connect(&self, export: &str) -> Client {
        let options = ClientOptions {
            export: export.to_owned(),
            contexts: vec![BASE_ALLOCATION.to_owned()],
            ..ClientOptions::default()
        };
        Client::connect(self.server.address(), &options).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn uri(&self, export: &str) -> String {
        self.server.address().uri(export)
    }
}
