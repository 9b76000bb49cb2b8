//! `backup`: a virtual machine, or a container.

mod container;
mod vm;

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use snapkeep_repo::limits::GUEST_CONFIG_MAX;

use crate::args::{Backup, OfGuest};
use crate::failure::usage;
use crate::settings::Settings;

pub(super) use vm::FLEECING;

pub(super) fn run(settings: &Settings, backup: &Backup, json: bool) -> Result<ExitCode> {
    match backup {
        Backup::Vm(wanted) => vm::run(settings, wanted, json),
        Backup::Container(wanted) => container::run(settings, wanted, json),
    }
}

/// What goes for a guest of either kind.
struct Kept {
    guest_config: Option<Vec<u8>>,
    firewall_config: Option<Vec<u8>>,
    bandwidth_limit: Option<NonZeroU64>,
}

impl Kept {
    /// The flags first, then what the configuration says of the guest, then what it says of all.
    fn new(settings: &Settings, guest: &str, flags: &OfGuest) -> Result<Self> {
        let config = &settings.config;
        let of_guest = config.guests.get(guest).cloned().unwrap_or_default();
        let read = |whose, flag: &Option<PathBuf>, key: Option<PathBuf>| {
            let path = flag.clone().or(key);
            path.map(|path| config_file(whose, &path)).transpose()
        };
        let limit = flags.bandwidth_limit.or(of_guest.bandwidth_limit);
        Ok(Self {
            guest_config: read("guest", &flags.guest_config, of_guest.guest_config)?,
            firewall_config: read("firewall", &flags.firewall_config, of_guest.firewall_config)?,
            bandwidth_limit: limit.or(config.bandwidth_limit),
        })
    }
}

/// A configuration to keep with the archive, byte for byte.
fn config_file(whose: &str, path: &Path) -> Result<Vec<u8>> {
    let cannot = |why: &str| {
        usage(format!(
            "the {whose} configuration {}: {why}",
            path.display()
        ))
    };
    let most = GUEST_CONFIG_MAX as u64 + 1;
    let mut bytes = Vec::new();
    (File::open(path))
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|e| cannot(&e.to_string()))?;
    if bytes.len() > GUEST_CONFIG_MAX {
        return Err(cannot(&format!(
            "it has more than {GUEST_CONFIG_MAX} bytes"
        )));
    }
    Ok(bytes)
}
