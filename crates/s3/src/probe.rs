//! What an endpoint can do, found out by trying when a repository is made. Nothing depends on it but
//! what people are told.

use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use snapkeep_repo::{ErrorKind, FileName, Random, Result, Storage, SystemRandom};

use crate::fault::Deed;
use crate::storage::S3Storage;

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// Whether an object can be put on the condition that there is none.
    pub conditional_put: bool,
    /// Whether an object is listed as soon as it is put.
    pub lists_at_once: bool,
    /// By how many seconds the storage's clock is ahead of the time that was given.
    pub clock_ahead: i64,
}

/// What the object holds.
const BYTES: &[u8] = b"This object was put by Snapkeep to see what the storage can do.\n";

impl S3Storage {
    /// Puts an object, tries what there is to try, and removes it. The time is in seconds since 1970.
    pub fn abilities(&self, now: i64) -> Result<Abilities> {
        let mut bytes = [0; 8];
        SystemRandom.fill(&mut bytes)?;
        let name: FileName = format!("probes/{:016x}", u64::from_le_bytes(bytes)).parse()?;
        self.put(&name, BYTES)?;
        let found = (|| {
            let clock_ahead = self.modified(&name)? - now;
            let mut lists_at_once = false;
            self.list(&"probes".parse()?, &mut |listed, _| {
                lists_at_once |= *listed == name;
                Ok(())
            })?;
            Ok(Abilities {
                conditional_put: self.refuses_second(&name)?,
                lists_at_once,
                clock_ahead,
            })
        })();
        let removed = self.remove(&name);
        match removed {
            // Whoever may only put and read makes a repository all the same; the object stays.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Locked) => {}
            removed => removed?,
        }
        found
    }

    /// Whether the object cannot be put again on the condition that there is none. Endpoints that do
    /// not know the condition ignore or refuse it.
    fn refuses_second(&self, name: &FileName) -> Result<bool> {
        let path = self.path(name)?;
        let subject = self.subject(Deed::Put, path.as_ref());
        let put = self.run(subject, async |_| {
            let options = PutOptions::from(PutMode::Create);
            let payload = PutPayload::from_static(BYTES);
            match self.store().put_opts(&path, payload, options).await {
                Ok(_) | Err(object_store::Error::NotImplemented { .. }) => Ok(false),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(true),
                Err(error) => Err(error.into()),
            }
        });
        match put {
            Err(error) if error.kind() == ErrorKind::Io => Ok(false),
            put => put,
        }
    }
}
