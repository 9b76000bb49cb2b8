//! Asks what an object is. The reply has no body, so that a refusal does not say what is wrong:
//! then something is asked whose refusal does.

use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use snapkeep_repo::FileName;

use crate::attempt::{Problem, is_past_end, noted};
use crate::fault::Trouble;
use crate::storage::S3Storage;

impl S3Storage {
    /// What an object is.
    pub(crate) async fn ask(&self, name: &FileName, path: &Path) -> Result<ObjectMeta, Trouble> {
        let meta = match self.store().head(path).await {
            Ok(meta) => meta,
            Err(error) => return Err(self.explained(path, error.into()).await),
        };
        match self.put_length(name) {
            Some(length) if length != meta.size => Err(Trouble::Wrong(format!(
                "says that it has {} bytes, and this run put {length}",
                meta.size
            ))),
            Some(_) | None => Ok(meta),
        }
    }

    /// The object's size, after a reply told one: that is no proof of it. It must fit.
    pub(crate) async fn sized(
        &self,
        name: &FileName,
        path: &Path,
        told: u64,
        fits: impl Fn(u64) -> bool,
    ) -> Result<u64, Trouble> {
        match self.ask(name, path).await?.size {
            size if fits(size) => Ok(size),
            size => Err(Trouble::Wrong(format!(
                "takes the object of {size} bytes for one of {told}"
            ))),
        }
    }

    /// Why an object was not told of, in the words of another refusal.
    pub(crate) async fn explained(&self, path: &Path, trouble: Trouble) -> Trouble {
        let Some(Problem::Refused(refusal)) = noted() else {
            return trouble;
        };
        let explained = match refusal.status {
            // Also a proxy answers so whose server is away.
            404 => {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(0..1)),
                    ..GetOptions::default()
                };
                match self.store().get_opts(path, options).await {
                    Err(other) if !is_past_end() => Some(other),
                    Ok(_) | Err(_) => {
                        return Trouble::Wrong(
                            "says that the object is not there, and it is".to_owned(),
                        );
                    }
                }
            }
            400 | 401 | 403 => {
                let options = PaginatedListOptions {
                    max_keys: Some(1),
                    ..PaginatedListOptions::default()
                };
                let list = self.store().list_paginated(Some(path.as_ref()), options);
                list.await.err()
            }
            _ => None,
        };
        explained.map_or(trouble, Trouble::from)
    }
}
