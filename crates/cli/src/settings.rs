//! What a run goes by: flags first, then the environment, then the configuration file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use snapkeep_provider::Namespace;
use zeroize::Zeroizing;

use crate::args::Common;
use crate::config::Config;
use crate::failure::usage;
use crate::place::is_bucket;

/// Where what outlives a killed backup is kept, if no place is named.
const STATE: &str = "/var/lib/snapkeep";

/// The settings of every verb, from wherever they came.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) repository: Option<PathBuf>,
    pub(crate) secret: Option<Secret>,
    pub(crate) namespace: Namespace,
    pub(crate) workers: usize,
    pub(crate) quiet: bool,
    /// Where what outlives a killed backup is kept.
    pub(crate) state: PathBuf,
    pub(crate) config: Config,
}

/// What opens the repository, or where it is.
#[derive(Debug)]
pub(crate) enum Secret {
    RecoveryKit(PathBuf),
    KeyFile(PathBuf),
    PassphraseFile(PathBuf),
    Passphrase(Zeroizing<String>),
}

impl Settings {
    /// The same, but that nothing of a bucket is taken from this host's cache.
    pub(crate) fn without_cache(mut self) -> Self {
        self.config.s3.no_cache = true;
        self
    }

    pub(crate) fn new(common: &Common) -> Result<Self> {
        let mut config = Config::load(common.config.as_deref())?;
        config.s3.no_cache = common.no_cache;
        // Whoever names a secret closer to the command means that one, of whichever kind it is.
        let flags = [
            common.recovery_kit.clone().map(Secret::RecoveryKit),
            common.key_file.clone().map(Secret::KeyFile),
            common.passphrase_file.clone().map(Secret::PassphraseFile),
        ];
        let file = [
            config.key_file.clone().map(Secret::KeyFile),
            config.passphrase_file.clone().map(Secret::PassphraseFile),
        ];
        let secret = match flags.into_iter().flatten().next() {
            Some(secret) => Some(secret),
            None => from_environment()?.or_else(|| file.into_iter().flatten().next()),
        };
        let namespace = common.namespace.as_ref().or(config.namespace.as_ref());
        let namespace = (namespace.map_or("main", String::as_str).parse())
            .map_err(|e: snapkeep_api::Error| usage(e.chain()))?;
        let repository = common.repository.clone();
        let repository = repository.or_else(|| config.repository.clone());
        let workers = (common.workers.or(config.workers))
            .map_or_else(|| usual_workers(repository.as_deref()), usize::from);
        Ok(Self {
            repository,
            secret,
            namespace,
            workers,
            quiet: common.quiet,
            state: (common.state.clone().or_else(|| config.state.clone()))
                .unwrap_or_else(|| STATE.into()),
            config,
        })
    }

    /// Where this host remembers what repositories had.
    pub(crate) fn memory(&self) -> PathBuf {
        self.state.join("memory")
    }

    /// Where backups of containers note what they change, and `doctor` looks for it.
    pub(crate) fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }
}

/// Threads for a repository here, if none were named. Those that put packs into a bucket wait for
/// long; so many more keep the processors busy meanwhile.
pub(crate) fn usual_workers(repository: Option<&Path>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let far = repository.is_some_and(is_bucket);
    (2 * cores).clamp(2, 16) + if far { PUTTING } else { 0 }
}

/// Threads that put packs at once: as many as there is room for besides the open ones.
const PUTTING: usize = snapkeep_repo::limits::PACK_BUFFERS - 2;

fn from_environment() -> Result<Option<Secret>> {
    let path = |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let passphrase = match std::env::var("SNAPKEEP_PASSPHRASE") {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(usage("SNAPKEEP_PASSPHRASE is not UTF-8"));
        }
    };
    let found = [
        path("SNAPKEEP_RECOVERY_KIT").map(Secret::RecoveryKit),
        path("SNAPKEEP_KEY_FILE").map(Secret::KeyFile),
        path("SNAPKEEP_PASSPHRASE_FILE").map(Secret::PassphraseFile),
        passphrase.map(|text| Secret::Passphrase(Zeroizing::new(text))),
    ];
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    if found.len() > 1 {
        let what = "only one of SNAPKEEP_RECOVERY_KIT, SNAPKEEP_KEY_FILE, SNAPKEEP_PASSPHRASE_FILE and SNAPKEEP_PASSPHRASE may be set";
        return Err(usage(what));
    }
    Ok(found.pop())
}
