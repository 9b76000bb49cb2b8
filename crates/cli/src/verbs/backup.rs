//! `backup`: a virtual machine, or a container.

mod container;
mod vm;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use snapkeep_repo::limits::GUEST_CONFIG_MAX;

use crate::args::Backup;
use crate::failure::usage;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, backup: &Backup, json: bool) -> Result<ExitCode> {
    match backup {
        Backup::Vm(wanted) => vm::run(settings, wanted, json),
        Backup::Container(wanted) => container::run(settings, wanted, json),
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
