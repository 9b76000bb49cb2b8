//! The program as Proxmox VE's plugin starts it: the bridge over a repository.

mod archives;
pub(crate) mod names;
mod settings;
mod status;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use serde_json::{Value, json};
use snapkeep_api::{ArchiveName, Cancel, Error, ErrorKind, Provider, Result, SystemClock, TaskLog};
use snapkeep_bridge::{Backend, ContainerMechanism, Hello, StorageCall, serve};
use snapkeep_provider::{Catalogue, Options, RepositoryProvider};
use snapkeep_repo::{KeyFile, Protect, Repository, SystemRandom};

use crate::failure::{Code, fault, usage};
use crate::making;
use crate::place::Place;
use crate::secrets::{self, NewSecret};
use crate::session;
use crate::settings::Secret;
pub(crate) use settings::RUN;
use settings::StorageSettings;

/// Serves the Perl side, which is at the other end of standard input.
pub(crate) fn run() -> anyhow::Result<()> {
    let socket =
        (io::stdin().as_fd().try_clone_to_owned()).context("the provider has no standard input")?;
    // Whoever ends the task sends its signals to all of its processes. The task decides when this
    // one ends: by the end of the conversation.
    let ignored = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
        signal_hook::consts::SIGQUIT,
    ]);
    let _ignored = ignored.context("cannot ignore signals")?;
    Ok(serve(
        UnixStream::from(socket),
        Arc::new(Program::default()),
    )?)
}

/// What this program brings to the bridge.
#[derive(Default)]
struct Program {
    settings: OnceLock<StorageSettings>,
    /// Once it is open.
    repository: Mutex<Option<Arc<Repository>>>,
}

impl Program {
    fn settings(&self) -> Result<&StorageSettings> {
        let what = "no settings were given";
        (self.settings.get()).ok_or_else(|| Error::new(ErrorKind::Protocol, what))
    }

    fn repository(&self, cancel: &Cancel) -> Result<Arc<Repository>> {
        let mut opened = (self.repository.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = &*opened {
            return Ok(Arc::clone(repository));
        }
        let settings = self.settings()?;
        let place = settings.place().map_err(|e| told(&e))?;
        let open = || {
            let storage = place.open()?;
            storage.obey(cancel.clone());
            session::repository(&storage, settings.secret.as_ref(), || {
                let what = "it is encrypted: the storage needs its passphrase or its key";
                Err(fault(Code::Locked, what))
            })
        };
        let repository = open().map_err(|e| {
            let what = format!("cannot open the repository {place}");
            told(&e.context(what))
        })?;
        let repository = Arc::new(repository);
        *opened = Some(Arc::clone(&repository));
        Ok(repository)
    }

    /// Makes the repository that the storage names, encrypted.
    fn create(&self, cancel: &Cancel) -> anyhow::Result<()> {
        let settings = self.settings()?;
        let place = settings.place()?;
        if let Place::Folder(folder) = &place {
            let above = folder.parent().unwrap_or(folder);
            if !above.is_dir() {
                let what = format!(
                    "cannot make a repository in {place}: there is no folder {} (is its storage mounted?)",
                    above.display()
                );
                return Err(usage(what));
            }
        }
        making::check_empty(&place, None)?;
        let protect = match &settings.secret {
            Some(Secret::PassphraseFile(path)) => {
                Protect::Passphrase(secrets::passphrase_in(path)?)
            }
            Some(Secret::KeyFile(path)) => {
                let key: KeyFile = (secrets::read(path)?.parse())
                    .with_context(|| format!("cannot use {}", path.display()))?;
                Protect::KeyFile(key)
            }
            Some(Secret::RecoveryKit(_) | Secret::Passphrase(_)) | None => {
                let what = format!(
                    "a new repository in {place} needs a passphrase or a key for the storage \
                     (`snapkeep init --no-encryption` makes one that needs none)"
                );
                return Err(usage(what));
            }
        };
        let kit = (settings.recovery_kit.as_ref())
            .ok_or_else(|| usage("no place for the recovery kit is named"))?;
        let kit = NewSecret::claim(kit).context(
            "the recovery kit has no place (if an earlier repository's kit is there, copy it to a \
             safe place and remove it)",
        )?;
        making::make(&place, &protect, kit, None, None, cancel)?;
        Ok(())
    }

    fn checked(&self, cancel: &Cancel) -> Result<Value> {
        let repository = self.repository(cancel)?;
        let encrypted = (repository.is_encrypted()).map_err(|e| told(&anyhow::Error::new(e)))?;
        Ok(json!({"repository": repository.config().repository, "encrypted": u8::from(encrypted)}))
    }
}

impl Backend for Program {
    fn program(&self) -> String {
        concat!("snapkeep ", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn greet(&self, hello: &Hello) -> Result<()> {
        let settings = StorageSettings::new(&hello.storage, &hello.settings)?;
        (self.settings.set(settings))
            .map_err(|_| Error::new(ErrorKind::Protocol, "settings were given before"))
    }

    fn provider(&self, log: Arc<dyn TaskLog>, cancel: Cancel) -> Result<Box<dyn Provider>> {
        let settings = self.settings()?;
        let repository = self.repository(&cancel)?;
        let options = Options {
            namespace: settings.namespace.clone(),
            storage: settings.bitmap_storage(),
            workers: settings.workers,
            mechanism: settings.mechanism,
            accept_unverified_regions: settings.accept_unverified_regions,
            change_detection: settings.change_detection,
        };
        let (random, clock) = (Arc::new(SystemRandom), Arc::new(SystemClock::new()));
        let provider = RepositoryProvider::new(repository, random, clock, log, options);
        Ok(Box::new(provider.with_cancel(cancel)))
    }

    fn shown_name(&self, name: &ArchiveName) -> Result<String> {
        names::shown(name)
    }

    fn archive_name(&self, shown: &str) -> Result<ArchiveName> {
        names::path(&self.settings()?.namespace, shown)
    }

    fn storage(&self, call: StorageCall, log: Arc<dyn TaskLog>, cancel: Cancel) -> Result<Value> {
        let settings = self.settings()?;
        match call {
            StorageCall::Check => self.checked(&cancel),
            StorageCall::Create => {
                self.create(&cancel).map_err(|e| told(&e))?;
                self.checked(&cancel)
            }
            StorageCall::Status => Ok(status::status(settings)),
            call @ (StorageCall::List { .. }
            | StorageCall::Get { .. }
            | StorageCall::SetNotes { .. }
            | StorageCall::SetProtected { .. }
            | StorageCall::Free { .. }) => {
                let repository = self.repository(&cancel)?;
                let catalogue = Catalogue::new(repository, settings.namespace.clone());
                archives::answer(&catalogue, &settings.namespace, call, &*log)
            }
        }
    }

    fn container_restore(&self) -> ContainerMechanism {
        (self.settings.get()).map_or(ContainerMechanism::Directory, |settings| {
            settings.container_restore
        })
    }

    fn run_folder(&self) -> PathBuf {
        (self.settings.get()).map_or_else(|| RUN.into(), |settings| settings.run.clone())
    }
}

/// An error of the command line as one of the contract.
fn told(error: &anyhow::Error) -> Error {
    let kind = match Code::of(error) {
        Code::NotFound => ErrorKind::NotFound,
        Code::Damaged => ErrorKind::Corrupt,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Usage | Code::Locked => ErrorKind::Invalid,
        Code::Failed | Code::Partial | Code::Different | Code::Left => ErrorKind::Target,
    };
    Error::new(kind, format!("{error:#}"))
}
