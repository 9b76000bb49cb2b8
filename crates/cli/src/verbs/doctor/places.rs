//! Where to look.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Monitor};

use super::super::backup::FLEECING;
use crate::args::Doctor;
use crate::provide::RUN;
use crate::settings::Settings;

/// Entries of that folder that are looked at: it has a few for each guest of the machine.
const ENTRIES_MAX: usize = 100_000;

/// The places to look at.
pub(super) struct Places {
    named: Vec<PathBuf>,
    configured: Vec<PathBuf>,
    /// Fleecing folders, by their true paths.
    pub(super) fleecing: Vec<PathBuf>,
    /// Where restores of Proxmox VE are mounted.
    pub(super) run: PathBuf,
    /// All other mounts are below it.
    pub(super) mounts: PathBuf,
}

impl Places {
    pub(super) fn new(settings: &Settings, wanted: &Doctor) -> Self {
        let config = &settings.config;
        let guests = || config.guests.values();
        let known = (config.fleecing.iter())
            .chain(guests().filter_map(|guest| guest.fleecing.as_ref()))
            .cloned()
            .chain([FLEECING.into()]);
        let fleecing: Vec<PathBuf> = match &wanted.fleecing[..] {
            [] => known.collect(),
            named => named.to_vec(),
        };
        // One that cannot be resolved is told when it is looked at.
        let real = |folder: PathBuf| folder.canonicalize().unwrap_or(folder);
        let fleecing: BTreeSet<PathBuf> = fleecing.into_iter().map(real).collect();
        Self {
            named: wanted.qmp.clone(),
            configured: guests().filter_map(|guest| guest.qmp.clone()).collect(),
            fleecing: fleecing.into_iter().collect(),
            run: real(wanted.run_folder.clone().unwrap_or_else(|| RUN.into())),
            mounts: real(wanted.mounts.clone().unwrap_or_else(|| "/".into())),
        }
    }

    /// The monitors: those that are named, or all that are known, of which Proxmox VE's are in this
    /// folder. Also what cannot be listed.
    pub(super) fn monitors(&self, of_proxmox: &Path) -> (Vec<Monitor>, Vec<Finding>) {
        if !self.named.is_empty() {
            let named = self.named.iter().cloned();
            let named = named.map(|socket| Monitor {
                socket,
                named: true,
            });
            return (named.collect(), Vec::new());
        }
        let (proxmox, unlisted) = match monitors_in(of_proxmox) {
            Ok(sockets) => (sockets, None),
            Err(e) => {
                let what = "the monitors of Proxmox VE cannot be listed";
                let error = Error::with_source(ErrorKind::Unavailable, what, e);
                (
                    Vec::new(),
                    Some(Finding::unseen("qemu", of_proxmox.display(), &error)),
                )
            }
        };
        let sockets = self.configured.iter().cloned().chain(proxmox);
        let sockets: BTreeSet<PathBuf> = sockets.collect();
        let monitors = sockets.into_iter().map(|socket| Monitor {
            socket,
            named: false,
        });
        (monitors.collect(), unlisted.into_iter().collect())
    }
}

/// The monitors of Proxmox VE's guests; none where it is not installed.
fn monitors_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut sockets = Vec::new();
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        let guest = name.to_str().and_then(|name| name.strip_suffix(".qmp"));
        if guest.is_some_and(|guest| guest.bytes().all(|byte| byte.is_ascii_digit())) {
            sockets.push(entry.path());
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitors_of_proxmox_ve_are_those_of_its_guests() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["100.qmp", "100.qga", "100.pid", "x.qmp", "100.qmp.old"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let sockets = monitors_in(folder.path()).unwrap();
        assert_eq!(sockets, [folder.path().join("100.qmp")]);
        let none = monitors_in(&folder.path().join("absent")).unwrap();
        assert_eq!(none, Vec::<PathBuf>::new());
    }
}
