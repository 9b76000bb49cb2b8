//! What a storage of Proxmox VE is configured with, as its plugin passes it (docs/BRIDGE.md).

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use snapkeep_api::{Error, ErrorKind, Result, StorageId, VmMechanism};
use snapkeep_bridge::ContainerMechanism;
use snapkeep_provider::{BitmapStorage, ChangeDetection, Namespace};

use crate::memory::MemoryFolder;
use crate::place::{self, Place, S3Settings};
use crate::settings::{Secret, usual_workers};

/// Where what is mounted appears, and notes of the storages' states are.
pub(crate) const RUN: &str = "/run/snapkeep";

/// A storage's configuration.
#[derive(Debug)]
pub(crate) struct StorageSettings {
    pub(crate) storage: StorageId,
    pub(crate) repository: PathBuf,
    pub(crate) namespace: Namespace,
    /// The storage ID with what tells it from another that had the same; `None` believes no bitmap.
    pub(crate) lineage: Option<StorageId>,
    /// Where heads are remembered; without it no bitmap is believed either.
    pub(crate) memory: Option<PathBuf>,
    pub(crate) secret: Option<Secret>,
    pub(crate) recovery_kit: Option<PathBuf>,
    pub(crate) mechanism: VmMechanism,
    pub(crate) accept_unverified_regions: bool,
    pub(crate) container_restore: ContainerMechanism,
    pub(crate) change_detection: ChangeDetection,
    pub(crate) workers: usize,
    pub(crate) run: PathBuf,
    pub(crate) s3: S3Settings,
}

#[derive(Deserialize)]
struct Raw {
    repository: PathBuf,
    namespace: Option<String>,
    identity: Option<String>,
    memory_folder: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    recovery_kit: Option<PathBuf>,
    vm_mechanism: Option<Mechanism>,
    accept_unverified_regions: Option<Number>,
    container_restore: Option<Container>,
    change_detection: Option<Detection>,
    workers: Option<Number>,
    run_folder: Option<PathBuf>,
    s3_credentials_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mechanism {
    Nbd,
    FileHandle,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Container {
    Directory,
    Tar,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Detection {
    Metadata,
    Data,
}

/// Perl writes a number as what it was last used as.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn value(&self, what: &str) -> Result<u64> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => (text.parse()).map_err(|_| {
                let what = format!("the setting {what} is {text:?}, which is no number");
                Error::new(ErrorKind::Invalid, what)
            }),
        }
    }
}

impl StorageSettings {
    /// Reads the settings of a storage; nothing that they name is looked at.
    pub(crate) fn new(storage: &str, settings: &Value) -> Result<Self> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, what);
        let raw = Raw::deserialize(settings)
            .map_err(|e| invalid(format!("the settings of storage {storage} are wrong: {e}")))?;
        let storage: StorageId = storage.parse()?;
        if !raw.repository.is_absolute() && !place::is_bucket(&raw.repository) {
            let what = format!(
                "the repository {} of storage {storage} is no absolute path",
                raw.repository.display()
            );
            return Err(invalid(what));
        }
        let secret = match (raw.passphrase_file, raw.key_file) {
            (Some(_), Some(_)) => {
                let what = format!("storage {storage} has a passphrase and a key: take one away");
                return Err(invalid(what));
            }
            (passphrase, key) => {
                (passphrase.map(Secret::PassphraseFile)).or(key.map(Secret::KeyFile))
            }
        };
        let flag = |number: Option<Number>, what| match number.map(|n| n.value(what)).transpose()? {
            None | Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(invalid(format!(
                "the setting {what} is {other}: give 0 or 1"
            ))),
        };
        let workers = (raw.workers.map(|n| n.value("workers"))).transpose()?;
        let workers = match workers {
            None => usual_workers(Some(&raw.repository)),
            Some(number) => (usize::try_from(number).ok())
                .filter(|number| (1..=64).contains(number))
                .ok_or_else(|| invalid(format!("{number} workers: give 1 to 64")))?,
        };
        let lineage = (raw.identity.filter(|identity| !identity.is_empty()))
            .map(|identity| format!("{storage}.{identity}").parse())
            .transpose()?;
        Ok(Self {
            repository: raw.repository,
            namespace: raw.namespace.as_deref().unwrap_or("main").parse()?,
            lineage,
            memory: raw.memory_folder,
            secret,
            recovery_kit: raw.recovery_kit,
            mechanism: match raw.vm_mechanism {
                None | Some(Mechanism::Nbd) => VmMechanism::Nbd,
                Some(Mechanism::FileHandle) => VmMechanism::FileHandle,
            },
            accept_unverified_regions: flag(
                raw.accept_unverified_regions,
                "accept_unverified_regions",
            )?,
            container_restore: match raw.container_restore {
                None | Some(Container::Directory) => ContainerMechanism::Directory,
                Some(Container::Tar) => ContainerMechanism::Tar,
            },
            change_detection: match raw.change_detection {
                None | Some(Detection::Metadata) => ChangeDetection::Metadata { audit: 0 },
                Some(Detection::Data) => ChangeDetection::Data,
            },
            workers,
            s3: S3Settings {
                credentials_file: raw.s3_credentials_file,
                ..S3Settings::default()
            },
            run: raw.run_folder.unwrap_or_else(|| RUN.into()),
            storage,
        })
    }
}

impl StorageSettings {
    /// Where the repository is.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        Place::new(&self.repository, &self.s3)
    }

    /// What bitmaps are believed by, where both parts of it are known.
    pub(crate) fn bitmap_storage(&self) -> Option<BitmapStorage> {
        let (id, folder) = self.lineage.clone().zip(self.memory.clone())?;
        let memory = Arc::new(MemoryFolder::new(folder));
        Some(BitmapStorage { id, memory })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_is_enough() {
        let settings = StorageSettings::new("store", &json!({"repository": "/srv/r"})).unwrap();
        assert_eq!(settings.namespace.to_string(), "main");
        assert_eq!(settings.mechanism, VmMechanism::Nbd);
        assert!(settings.lineage.is_none() && settings.secret.is_none());
        assert!(!settings.accept_unverified_regions);
    }

    #[test]
    fn numbers_may_be_text_and_the_identity_is_part_of_the_lineage() {
        let given = json!({"repository": "/srv/r", "workers": "3", "identity": "0123456789abcdef",
                           "vm_mechanism": "file-handle", "accept_unverified_regions": "1", "new": "?"});
        let settings = StorageSettings::new("store", &given).unwrap();
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.mechanism, VmMechanism::FileHandle);
        assert!(settings.accept_unverified_regions);
        assert_eq!(
            settings.lineage.as_ref().unwrap().as_str(),
            "store.0123456789abcdef"
        );
        assert!(settings.bitmap_storage().is_none(), "nothing is remembered");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_name() {
        for (given, word) in [
            (json!({}), "repository"),
            (json!({"repository": "r"}), "absolute"),
            (json!({"repository": "/r", "namespace": "A/.."}), "A/.."),
            (json!({"repository": "/r", "workers": "many"}), "many"),
            (json!({"repository": "/r", "workers": 65}), "65"),
            (json!({"repository": "/r", "vm_mechanism": "fast"}), "fast"),
            (
                json!({"repository": "/r", "accept_unverified_regions": 2}),
                "accept_unverified_regions",
            ),
            (
                json!({"repository": "/r", "passphrase_file": "/p", "key_file": "/k"}),
                "take one away",
            ),
            (json!({"repository": "/r", "identity": "a/b"}), "a/b"),
        ] {
            let error = StorageSettings::new("store", &given).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{given}");
            assert!(error.chain().contains(word), "{}", error.chain());
        }
        assert!(StorageSettings::new("../x", &json!({"repository": "/r"})).is_err());
    }
}
