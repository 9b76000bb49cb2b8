//! Features: names that a program must know before it may read or write. Those of `init` are in
//! `config`; one that was added later is an empty file `features/CLASS-NAME`.

use super::config::Config;
use crate::storage::{FileName, Storage};
use crate::{Error, ErrorKind, Result, limits};

/// What every snapshot with a directory tree needs.
pub(crate) const TREES: &str = "trees-1";
/// What a repository needs of its writers once an archive has attributes.
pub(crate) const ATTRIBUTES: &str = "attributes-1";
/// What a repository has once a host got a key that may only write.
pub(crate) const WRITER_SLOT: &str = "writer-slot-1";
/// What a repository needs of its writers once packs are condemned.
const PRUNE: &str = "prune-1";
/// The features this program knows, of any class.
const KNOWN: [&str; 4] = [TREES, ATTRIBUTES, WRITER_SLOT, PRUNE];

/// What says so: an empty file.
pub(crate) fn writer_slot_file() -> FileName {
    format!("features/compatible-{WRITER_SLOT}")
        .parse()
        .expect("a constant name is valid")
}

/// What says that archives have attributes: an empty file.
pub(crate) fn attributes_file() -> FileName {
    read_only_compatible(ATTRIBUTES)
}

/// What says that packs are condemned: an empty file.
pub(crate) fn prune_file() -> FileName {
    read_only_compatible(PRUNE)
}

fn read_only_compatible(feature: &str) -> FileName {
    format!("features/read_only_compatible-{feature}")
        .parse()
        .expect("a constant name is valid")
}

/// Refuses a name that this program does not know. `object` is what needs it.
pub(crate) fn require(object: &str, feature: &str) -> Result<()> {
    if KNOWN.contains(&feature) {
        return Ok(());
    }
    let what = format!("{object} needs the feature {feature:?}, which this program does not know");
    Err(Error::new(ErrorKind::Version, what))
}

/// The names of what was added to a repository since it was made.
pub(crate) fn added(storage: &dyn Storage) -> Result<Vec<String>> {
    let mut added = Vec::new();
    storage.list(&"features".parse()?, &mut |file, _| {
        if added.len() >= limits::FEATURES_MAX {
            let what = "the folder features has more files than are allowed";
            return Err(Error::corrupt(what));
        }
        let name = file.as_str().strip_prefix("features/");
        added.push(name.unwrap_or_default().to_owned());
        Ok(())
    })?;
    Ok(added)
}

/// Refuses a repository that was given a feature without which it cannot be read, and says why
/// it may not be written to, if it may not. The names are those of [`added`].
pub(crate) fn check(config: &Config, added: &[String]) -> Result<Option<Error>> {
    let mut read_only = None;
    let mut to_write = |feature: &str| {
        let found = require("writing to the repository", feature);
        if let Err(error) = found {
            read_only.get_or_insert(error);
        }
    };
    config.read_only_compatible.iter().for_each(|f| to_write(f));
    for added in added {
        match added.split_once('-') {
            Some(("compatible", _)) => {}
            Some(("read_only_compatible", feature)) => to_write(feature),
            Some(("incompatible", feature)) => require("the repository", feature)?,
            _ => require("the repository", added)?,
        }
    }
    Ok(read_only)
}
