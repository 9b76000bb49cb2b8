//! `restore vm`: disks of an archive to files, block devices or a folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::{ArchiveName, DeviceName, Provider, VmRestore};
use snapkeep_host::restore::{RestoreOptions, Restored, convert, restore_raw};

use crate::args::RestoreVm;
use crate::durable;
use crate::failure::{Code, fault, usage};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::session::{Session, VM};
use crate::settings::Settings;

#[derive(Serialize)]
struct Done {
    archive: String,
    disks: Vec<Disk>,
    guest_config: Option<String>,
    firewall_config: Option<String>,
}

#[derive(Serialize)]
struct Disk {
    device: String,
    path: String,
    format: String,
    size_bytes: u64,
    data_bytes: u64,
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        let disk = |disk: &Disk| {
            format!(
                "restored {} of {} to {}: {} bytes, {} of them data",
                disk.device, self.archive, disk.path, disk.size_bytes, disk.data_bytes
            )
        };
        let mut lines: Vec<_> = self.disks.iter().map(disk).collect();
        let configs = [
            ("guest's", &self.guest_config),
            ("firewall's", &self.firewall_config),
        ];
        for (whose, path) in configs {
            lines.extend(
                (path.iter()).map(|path| format!("restored the {whose} configuration to {path}")),
            );
        }
        lines
    }
}

pub(super) fn run(settings: &Settings, wanted: &RestoreVm, json: bool) -> Result<()> {
    let session = Session::open_to_read(settings)?;
    let name = session.archive_name(settings, &wanted.archive, VM)?;
    let log = Progress::start(
        format!("restoring {name}"),
        None,
        true,
        Arc::clone(&session.clock),
    );
    let archive = session
        .provider(settings, Arc::new(log))
        .open_archive(&name)?;
    let configs = if wanted.into.is_some() {
        // A backup without one keeps no bytes.
        let guest = Some(archive.guest_config()?).filter(|config| !config.is_empty());
        (guest, archive.firewall_config()?)
    } else {
        (None, None)
    };
    let mut vm = archive.restore_vm()?;
    let plan = plan(wanted, &name, vm.as_ref(), &configs)?;
    let options = RestoreOptions {
        workers: settings.workers,
        overwrite: wanted.overwrite,
        bandwidth_limit: wanted.bandwidth_limit.or(settings.config.bandwidth_limit),
        cancel: session.stop.cancel.clone(),
    };
    let mut disks = Vec::new();
    for (device, path) in plan.disks {
        let done = one(
            &session,
            settings,
            wanted,
            vm.as_mut(),
            &device,
            &path,
            &options,
        )
        .with_context(|| format!("cannot restore {device} of {name}"))?;
        disks.push(Disk {
            device: device.to_string(),
            path: path.display().to_string(),
            format: wanted.format.clone(),
            size_bytes: done.size,
            data_bytes: done.data,
        });
    }
    vm.finish()?;
    let mut written = Vec::new();
    for (path, config) in [plan.guest_config, plan.firewall_config]
        .into_iter()
        .zip([configs.0, configs.1])
    {
        written.push(match path.zip(config) {
            Some((path, config)) => Some(write(&path, &config, wanted.overwrite)?),
            None => None,
        });
    }
    let firewall_config = written.pop().flatten();
    let done = Done {
        archive: name.to_string(),
        disks,
        guest_config: written.pop().flatten(),
        firewall_config,
    };
    report::result(&done, json)
}

/// What goes where.
struct Plan {
    disks: Vec<(DeviceName, PathBuf)>,
    guest_config: Option<PathBuf>,
    firewall_config: Option<PathBuf>,
}

/// Decides what goes where, and refuses before anything is written if something is there.
fn plan(
    wanted: &RestoreVm,
    name: &ArchiveName,
    vm: &dyn VmRestore,
    configs: &(Option<Vec<u8>>, Option<Vec<u8>>),
) -> Result<Plan> {
    let devices = choose(&wanted.disks, name, vm)?;
    let Some(folder) = &wanted.into else {
        let path = (wanted.to.clone()).ok_or_else(|| usage("give --to or --into"))?;
        let [device] = &devices[..] else {
            let names: Vec<_> = devices.iter().map(DeviceName::as_str).collect();
            let what = format!(
                "{} disks do not fit into one file: name one with --disk, or give --into: {}",
                names.len(),
                names.join(", ")
            );
            return Err(usage(what));
        };
        let disks = vec![(device.clone(), path)];
        return Ok(Plan {
            disks,
            guest_config: None,
            firewall_config: None,
        });
    };
    let at = |file: &str| folder.join(file);
    let plan = Plan {
        disks: (devices.into_iter())
            .map(|device| (device.clone(), at(&format!("{device}.{}", wanted.format))))
            .collect(),
        guest_config: configs.0.as_ref().map(|_| at("guest.conf")),
        firewall_config: configs.1.as_ref().map(|_| at("firewall.conf")),
    };
    durable::make_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let paths = plan.disks.iter().map(|(_, path)| path);
    let there = (paths.chain(&plan.guest_config).chain(&plan.firewall_config))
        .find(|path| fs::symlink_metadata(path).is_ok());
    if let Some(path) = there.filter(|_| !wanted.overwrite) {
        let what = format!("{} exists; --overwrite replaces it", path.display());
        return Err(fault(Code::Failed, what));
    }
    Ok(plan)
}

/// The devices that were named, or all.
pub(in crate::verbs) fn choose(
    wanted: &[String],
    name: &ArchiveName,
    vm: &dyn VmRestore,
) -> Result<Vec<DeviceName>> {
    let volumes = vm.volumes();
    if wanted.is_empty() {
        return Ok(volumes.keys().cloned().collect());
    }
    let mut devices = Vec::new();
    for text in wanted {
        let Some(device) = volumes.keys().find(|device| device.as_str() == text) else {
            let names: Vec<_> = volumes.keys().map(DeviceName::as_str).collect();
            let what = format!(
                "archive {name} has no disk {text}; it has {}",
                names.join(", ")
            );
            return Err(fault(Code::NotFound, what));
        };
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

fn one(
    session: &Session,
    settings: &Settings,
    wanted: &RestoreVm,
    vm: &mut dyn VmRestore,
    device: &DeviceName,
    path: &Path,
    options: &RestoreOptions,
) -> Result<Restored> {
    let volume = vm.open_volume(device)?;
    let what = format!("restoring {device} to {}", path.display());
    let total = Some(volume.size());
    let clock = &session.clock;
    let progress = Progress::start(what, total, settings.quiet, Arc::clone(clock));
    let observer = |done| progress.set(done);
    let direct = wanted.format == "raw" && !wanted.qemu_img;
    let restored = if direct {
        restore_raw(&*volume, path, options, &**clock, &observer)
    } else {
        let format = &wanted.format;
        convert(
            volume.into(),
            device,
            path,
            format,
            options,
            clock,
            &observer,
        )
    };
    restored.map_err(|error| {
        // The library speaks of permission; whoever sits here gives it with a flag.
        if error.chain().ends_with("must be asked for") {
            return anyhow::Error::new(error).context("give --overwrite to replace what is there");
        }
        error.into()
    })
}

/// A whole file or none; the path, for the report.
fn write(path: &Path, bytes: &[u8], overwrite: bool) -> Result<String> {
    durable::write_whole(path, overwrite, |file| Ok(file.write_all(bytes)?))?;
    Ok(path.display().to_string())
}
