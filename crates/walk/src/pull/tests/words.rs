//! A walker that says what it is told to say.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use snapkeep_api::tree::{
    Attributes, Entry, EntryKind, Found, FoundKind, KnownTree, Timestamp, TreeSource, Witness,
};
use snapkeep_api::{Error, Result};

use super::Pull;
use crate::stream::{self, Kind, Telling};
use crate::testing::{Nothing, Tree, patient, request, sockets};

/// What a walker says, message by message.
#[derive(Clone, Default)]
pub(super) struct Words(pub(super) Vec<Vec<u8>>);

impl Words {
    /// The greeting and the root.
    pub(super) fn begin() -> Self {
        Self::default()
            .with(stream::hello)
            .told(Kind::Enter, None, Some(EntryKind::Directory))
    }

    pub(super) fn with(mut self, make: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut message = Vec::new();
        make(&mut message);
        self.0.push(message);
        self
    }

    pub(super) fn raw(self, kind: u8, length: u32, payload: &[u8]) -> Self {
        self.with(|out| {
            out.extend(length.to_le_bytes());
            out.push(kind);
            out.extend(payload);
        })
    }

    pub(super) fn told(self, kind: Kind, name: Option<&[u8]>, entry: Option<EntryKind>) -> Self {
        self.told_as(kind, name, entry, false)
    }

    pub(super) fn told_as(
        self,
        kind: Kind,
        name: Option<&[u8]>,
        entry: Option<EntryKind>,
        linked: bool,
    ) -> Self {
        let entry = entry.map(|kind| Entry {
            attributes: Attributes::default(),
            kind,
        });
        let telling = Telling {
            name,
            entry: entry.as_ref(),
            witness: None,
            linked,
        };
        self.with(|out| stream::told(out, kind, &telling))
    }

    pub(super) fn enter(self, name: &str) -> Self {
        self.told(
            Kind::Enter,
            Some(name.as_bytes()),
            Some(EntryKind::Directory),
        )
    }

    pub(super) fn entry(self, name: &str, kind: EntryKind) -> Self {
        self.told(Kind::Entry, Some(name.as_bytes()), Some(kind))
    }

    pub(super) fn fifo(self, name: &str) -> Self {
        self.entry(name, EntryKind::Fifo)
    }

    pub(super) fn file(self, name: &str, size: u64) -> Self {
        self.entry(name, EntryKind::File { size, links: 1 })
    }

    pub(super) fn data(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap();
        self.raw(Kind::Data.number(), length, bytes)
    }

    pub(super) fn empty(self, kind: Kind) -> Self {
        self.with(|out| stream::empty(out, kind))
    }

    pub(super) fn end(self) -> Self {
        self.with(|out| stream::text(out, Kind::End, None))
    }

    pub(super) fn ask(self, names: &[&str]) -> Self {
        let witness = Witness {
            inode: 1,
            ctime: Timestamp::default(),
        };
        let found = Found {
            kind: FoundKind::File { size: 1 },
            mtime: Timestamp::default(),
            witness,
        };
        let all = names.iter().map(|name| (name.as_bytes(), found));
        self.with(|out| stream::batch(out, all))
    }

    pub(super) fn leave(self) -> Self {
        self.empty(Kind::Leave)
    }

    pub(super) fn done(self) -> Self {
        self.leave().empty(Kind::Done)
    }

    /// Says it all and hangs up; what comes back is read away.
    pub(super) fn pull(&self, known: &mut dyn KnownTree) -> Result<Tree> {
        let (ours, theirs) = sockets();
        let mut theirs = UnixStream::from(theirs);
        thread::scope(|scope| {
            let mut reading = theirs.try_clone().unwrap();
            scope.spawn(move || {
                let mut room = [0; 4096];
                while reading.read(&mut room).is_ok_and(|read| read > 0) {}
            });
            scope.spawn(move || {
                for message in &self.0 {
                    // The reader may have had enough.
                    if theirs.write_all(message).is_err() {
                        break;
                    }
                }
                theirs.shutdown(std::net::Shutdown::Write)
            });
            let mut pull = Pull::new(ours, &request("/".as_ref()), patient())?;
            let tree = Tree::pull(&mut pull, known);
            if let Err(error) = &tree {
                // It stays an error.
                assert_eq!(pull.next(known).unwrap_err().chain(), error.chain());
            }
            tree
        })
    }

    pub(super) fn fault(&self) -> Error {
        self.pull(&mut Nothing).unwrap_err()
    }
}
