//! `config` that was lost, made again.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::format::bytes::unhex;
use crate::format::config::Config;
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::keys::{Keys, RecoveryKit};
use crate::storage::{FileName, Storage, read_and_open};
use crate::{Error, ErrorKind, Result, limits};

/// Makes the `config` of a repository again from its recovery kit and its snapshots, and puts it if
/// that is wanted. `Exists` if there is one that is whole, `WrongKey` if the kit opens no snapshot.
/// Where no archive has a disk to tell it, the chunk size is the usual one.
pub fn recover_config(storage: &Arc<dyn Storage>, kit: &RecoveryKit, put: bool) -> Result<Config> {
    let file: FileName = "config".parse()?;
    match read_and_open(&**storage, &file, limits::CONFIG_MAX, Config::decode) {
        Ok(_) => {
            let what = "there is a config, and it is whole";
            return Err(Error::new(ErrorKind::Exists, what));
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
        Err(error) => return Err(error),
    }
    let keys = Keys::new(Zeroizing::new(kit.0));
    let mut names = Vec::new();
    storage.list(&"snapshots".parse()?, &mut |file, _| {
        let text = file.as_str().strip_prefix("snapshots/").unwrap_or_default();
        names.extend(text.parse::<SnapshotName>());
        Ok(())
    })?;
    let mut said: Option<(String, Option<u32>)> = None;
    for name in &names {
        let file = name.file();
        let opened = read_and_open(&**storage, &file, limits::SEALED_MAX, |sealed| {
            envelope::open(&keys, Kind::Snapshot, &file, sealed)
        });
        let snapshot = match opened {
            Ok(body) => serde_json::from_slice::<Snapshot>(&body),
            Err(error) if error.kind() == ErrorKind::Corrupt => continue,
            Err(error) => return Err(error),
        };
        let Ok(snapshot) = snapshot else { continue };
        let disk = snapshot.disks.first().map(|disk| disk.chunk_size);
        match &mut said {
            None => said = Some((snapshot.repository, disk)),
            Some((repository, _)) if *repository != snapshot.repository => {
                let what =
                    format!("archive {name} is of another repository than the one before it");
                return Err(Error::corrupt(what));
            }
            Some((_, size)) => *size = size.or(disk),
        }
        if said.as_ref().is_some_and(|(_, size)| size.is_some()) {
            break;
        }
    }
    let Some((repository, chunk_size)) = said else {
        let what = "the recovery kit opens none of the repository's snapshots, if there are any";
        return Err(Error::new(ErrorKind::WrongKey, what));
    };
    let id = unhex(&repository)
        .ok_or_else(|| Error::corrupt("a snapshot names no proper repository"))?;
    let chunk_size = chunk_size.map_or(limits::CHUNK_DEFAULT, |size| size as usize);
    let config = Config::new(id, chunk_size)?;
    if put {
        // Where objects are locked, a feature says so, and a storage knows it once it was listed.
        features::added(&**storage)?;
        storage.put(&file, &config.encode(&keys)?)?;
    }
    Ok(config)
}
