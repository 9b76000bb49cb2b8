//! `backup vm`: the disks of a running QEMU, as they are at one instant.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::{BitmapMode, DeviceName, Outcome, Provider};
use snapkeep_host::{Finished, Qemu, VmRequest, back_up_vm};

use crate::args::BackupVm;
use crate::failure::{Code, usage};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::human;

use super::Kept;

/// Where old data goes that a guest overwrites during a backup, if no place is named: a file
/// system that outlives a restart is seldom one in memory.
pub(crate) const FLEECING: &str = "/var/tmp";

#[derive(Serialize)]
struct Done {
    archive: String,
    guest: String,
    disks: Vec<Disk>,
    size_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// How long the guest stood still.
    paused_milliseconds: u64,
    /// Why something of the backup is still in QEMU.
    left_in_qemu: Option<String>,
}

#[derive(Serialize)]
struct Disk {
    device: String,
    /// Whether only what changed was read.
    incremental: bool,
}

impl Done {
    fn new(guest: &str, finished: &Finished) -> Self {
        let stats = &finished.stats;
        let disks = finished.bitmaps.iter().map(|(device, mode)| Disk {
            device: device.to_string(),
            incremental: *mode == BitmapMode::Reuse,
        });
        Self {
            archive: finished.archive.to_string(),
            guest: guest.to_owned(),
            disks: disks.collect(),
            size_bytes: stats.guest_size,
            read_bytes: stats.read,
            new_bytes: stats.new,
            stored_bytes: stats.stored,
            paused_milliseconds: u64::try_from(finished.paused.as_millis()).unwrap_or(u64::MAX),
            left_in_qemu: finished.left.as_ref().map(snapkeep_api::Error::chain),
        }
    }
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        let how = |disk: &Disk| {
            let how = if disk.incremental {
                "incremental"
            } else {
                "full"
            };
            format!("{} {how}", disk.device)
        };
        let disks: Vec<_> = self.disks.iter().map(how).collect();
        let mut lines = vec![format!(
            "backed up {} to {}: {} in {}, read {}, new {}, stored {}, paused {} ms",
            self.guest,
            self.archive,
            human(self.size_bytes),
            disks.join(", "),
            human(self.read_bytes),
            human(self.new_bytes),
            human(self.stored_bytes),
            self.paused_milliseconds
        )];
        if let Some(why) = &self.left_in_qemu {
            lines.push(format!(
                "something of the backup is still in QEMU, until the next one takes it back: {why}"
            ));
        }
        lines
    }
}

pub(super) fn run(settings: &Settings, wanted: &BackupVm, json: bool) -> Result<ExitCode> {
    let Plan {
        qmp,
        nbd_server,
        mut request,
    } = plan(settings, wanted)?;
    let session = Session::open(settings)?;
    // What bitmaps are relative to may be what was rolled back.
    request.incremental &= session.doubts.is_empty();
    let clock = &session.clock;
    let what = format!("backing up {}", wanted.guest);
    let log = Progress::start(&what, None, settings.quiet, Arc::clone(clock));
    let log = Arc::new(log);
    let bar = Arc::clone(&log);
    let provider = (session.provider(settings, Arc::clone(&log) as _))
        .with_observer(Arc::new(move |read| bar.move_bar(read)));
    let mut qemu = Qemu::connect(&qmp, Arc::clone(clock))?;
    if let Some(socket) = nbd_server {
        qemu = qemu.with_nbd_server(&socket);
    }
    let start = clock.now();
    let mut job = provider.start_job(start)?;
    session.stop.cancel.check()?;
    let done = back_up_vm(&mut qemu, &mut *job, request, start, &*log);
    let outcome = match &done {
        Ok(_) => Outcome::Success,
        Err(e) => Outcome::Failure(e.chain()),
    };
    let ended = job.finish(&outcome);
    let finished = done.with_context(|| format!("cannot back up guest {}", wanted.guest))?;
    ended.with_context(|| format!("archive {} is complete", finished.archive))?;
    session.remember_made(&finished.archive);
    let done = Done::new(&wanted.guest, &finished);
    // The bar goes before the result comes.
    drop((provider, log));
    report::result(&done, json)?;
    Ok(session.code(if done.left_in_qemu.is_none() {
        ExitCode::SUCCESS
    } else {
        Code::Failed.into()
    }))
}

/// What to ask of which QEMU.
struct Plan {
    qmp: PathBuf,
    nbd_server: Option<PathBuf>,
    request: VmRequest,
}

/// What to ask of which QEMU: the flags first, then what the configuration says of the guest, then
/// what it says of all.
fn plan(settings: &Settings, wanted: &BackupVm) -> Result<Plan> {
    let config = &settings.config;
    let of_guest = config
        .guests
        .get(&wanted.guest)
        .cloned()
        .unwrap_or_default();
    let qmp = wanted.qmp.clone().or(of_guest.qmp).ok_or_else(|| {
        usage(format!(
            "no monitor of guest {0} is named: give --qmp, or the configuration's key qmp in [guests.{0}]",
            wanted.guest
        ))
    })?;
    let wrong = |e: snapkeep_api::Error| usage(e.chain());
    let disks = match (&wanted.disks[..], of_guest.disks) {
        ([], None) => None,
        ([], Some(disks)) => Some(disks),
        (disks, _) => Some(disks.to_vec()),
    };
    let devices = |disks: Vec<String>| {
        let parse = |disk: &String| disk.parse::<DeviceName>();
        disks.iter().map(parse).collect::<Result<_, _>>()
    };
    let fleecing = (wanted.fleecing.clone().or(of_guest.fleecing))
        .or_else(|| config.fleecing.clone())
        .unwrap_or_else(|| PathBuf::from(FLEECING));
    let kept = Kept::new(settings, &wanted.guest, &wanted.of_guest)?;
    let request = VmRequest {
        guest: wanted.guest.parse().map_err(wrong)?,
        disks: disks.map(devices).transpose().map_err(wrong)?,
        fleecing_folder: fleecing,
        incremental: !wanted.full,
        guest_config: kept.guest_config.unwrap_or_default(),
        firewall_config: kept.firewall_config,
        bandwidth_limit: kept.bandwidth_limit,
    };
    Ok(Plan {
        qmp,
        nbd_server: wanted.nbd_server.clone().or(of_guest.nbd_server),
        request,
    })
}
