//! `backup container`: the files of a container.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::tree::TreeSource;
use snapkeep_api::{Cancel, IdMap, Outcome, Provider};
use snapkeep_host::container::limits::Timeouts;
use snapkeep_host::container::{
    Container, ContainerRequest, FinishedContainer, GuardProgram, Lxc, Mode as HostMode, Safety,
    back_up_container,
};
use snapkeep_provider::ChangeDetection;
use snapkeep_walk::exclude::STANDARD;
use snapkeep_walk::userns::Command;
use snapkeep_walk::{Options, Pull, Request};

use crate::args::container::{BackupContainer, Detection, LXC_PATH, Mode};
use crate::extraction::id_map;
use crate::failure::{Code, usage};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::human;

use super::Kept;

#[derive(Serialize)]
struct Done {
    archive: String,
    guest: String,
    /// How the container was kept from changing its files.
    mode: &'static str,
    size_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// Entries that should be in the archive and are not, or not whole.
    left_out: u64,
    /// How long the container stood still or was stopped.
    paused_milliseconds: u64,
    /// Why something of the backup was not taken back.
    left: Option<String>,
}

impl Done {
    fn new(guest: &str, finished: &FinishedContainer) -> Self {
        let stats = &finished.stats;
        Self {
            archive: finished.archive.to_string(),
            guest: guest.to_owned(),
            mode: finished.way.as_str(),
            size_bytes: stats.guest_size,
            read_bytes: stats.read,
            new_bytes: stats.new,
            stored_bytes: stats.stored,
            left_out: stats.left_out,
            paused_milliseconds: u64::try_from(finished.paused.as_millis()).unwrap_or(u64::MAX),
            left: finished.left.as_ref().map(snapkeep_api::Error::chain),
        }
    }

    fn code(&self) -> ExitCode {
        match (&self.left, self.left_out) {
            (Some(_), _) => Code::Failed.into(),
            (None, 0) => ExitCode::SUCCESS,
            (None, _) => Code::Partial.into(),
        }
    }
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "backed up {} to {}: {} ({}), read {}, new {}, stored {}, paused {} ms",
            self.guest,
            self.archive,
            human(self.size_bytes),
            self.mode,
            human(self.read_bytes),
            human(self.new_bytes),
            human(self.stored_bytes),
            self.paused_milliseconds
        )];
        if self.left_out > 0 {
            lines.push(format!(
                "the archive is partial: {} could not be read",
                match self.left_out {
                    1 => "1 entry".to_owned(),
                    number => format!("{number} entries"),
                }
            ));
        }
        if let Some(why) = &self.left {
            lines.push(format!(
                "something that the backup changed was not taken back; its guard and the next backup \
                 try again: {why}"
            ));
        }
        lines
    }
}

pub(super) fn run(settings: &Settings, wanted: &BackupContainer, json: bool) -> Result<ExitCode> {
    let Plan {
        guest,
        request,
        walk,
        detection,
    } = plan(settings, wanted)?;
    let session = Session::open(settings)?;
    let clock = &session.clock;
    let what = format!("backing up {guest}");
    let log = Progress::start(&what, None, settings.quiet, Arc::clone(clock));
    let log = Arc::new(log);
    let bar = Arc::clone(&log);
    let provider = (session.provider_reading(settings, Arc::clone(&log) as _, detection))
        .with_observer(Arc::new(move |read| bar.move_bar(read)));
    let start = clock.now();
    let mut job = provider.start_job(start)?;
    let cancel = &session.stop.cancel;
    cancel.check()?;
    let mut source = |root: &Path, idmap: Option<&IdMap>| walk.source(root, idmap, cancel);
    let done = back_up_container(&mut *job, &request, start, &mut source, &*log, cancel);
    let outcome = match &done {
        Ok(_) => Outcome::Success,
        Err(e) => Outcome::Failure(e.chain()),
    };
    let ended = job.finish(&outcome);
    let finished = done.with_context(|| format!("cannot back up container {guest}"))?;
    ended.with_context(|| format!("archive {} is complete", finished.archive))?;
    session.remember_made(&finished.archive);
    let done = Done::new(&guest, &finished);
    // The bar goes before the result comes.
    drop((provider, log));
    report::result(&done, json)?;
    Ok(session.code(done.code()))
}

/// What to back up of which container.
struct Plan {
    guest: String,
    request: ContainerRequest,
    walk: Walk,
    detection: ChangeDetection,
}

fn plan(settings: &Settings, wanted: &BackupContainer) -> Result<Plan> {
    let wrong = |e: snapkeep_api::Error| usage(e.chain());
    check(wanted)?;
    let guest = wanted.guest.clone().or_else(|| wanted.lxc.clone());
    let guest = guest.ok_or_else(|| usage("give --guest"))?;
    let kept = Kept::new(settings, &guest, &wanted.of_guest)?;
    let container = match (&wanted.lxc, &wanted.directory) {
        (Some(name), _) => {
            let path = wanted.lxc_path.as_deref().unwrap_or(Path::new(LXC_PATH));
            Container::Lxc(Lxc::new(path, name, None).map_err(wrong)?)
        }
        (None, Some(rootfs)) => Container::Directory {
            rootfs: std::path::absolute(rootfs)
                .with_context(|| format!("the folder {}", rootfs.display()))?,
            idmap: id_map(&wanted.idmap)?,
        },
        (None, None) => return Err(usage("give --lxc or --directory")),
    };
    let program = std::env::current_exe().context("cannot find this program")?;
    let request = ContainerRequest {
        guest: guest.parse().map_err(wrong)?,
        container,
        mode: match wanted.mode {
            Mode::Auto => HostMode::Auto,
            Mode::Snapshot => HostMode::Snapshot,
            Mode::Suspend => HostMode::Suspend,
            Mode::Stop => HostMode::Stop,
        },
        snapshot_hook: wanted.snapshot_hook.clone(),
        guest_config: kept.guest_config,
        firewall_config: kept.firewall_config,
        bandwidth_limit: kept.bandwidth_limit,
        safety: Safety {
            state_folder: settings.containers(),
            guard: GuardProgram {
                program: program.clone(),
                arguments: vec!["guard".into()],
            },
            timeouts: Timeouts::default(),
        },
    };
    let standard = STANDARD.iter().map(|pattern| pattern.as_bytes().to_vec());
    let standard = standard.filter(|_| !wanted.no_default_excludes);
    let given = wanted.exclude.iter().map(|p| p.as_bytes().to_vec());
    // As vzdump has them: the administrator's first.
    let exclude: Vec<_> = given.chain(standard).collect();
    snapkeep_walk::exclude::Patterns::new(&exclude).map_err(wrong)?;
    let sources = match &wanted.sources[..] {
        [] => vec![b"./".to_vec()],
        sources => sources.iter().map(|s| s.as_bytes().to_vec()).collect(),
    };
    Ok(Plan {
        guest,
        request,
        walk: Walk {
            program,
            sources,
            exclude,
            ask: wanted.change_detection != Detection::Data,
        },
        detection: match wanted.change_detection {
            Detection::Data => ChangeDetection::Data,
            Detection::Metadata => ChangeDetection::Metadata {
                audit: wanted.audit.unwrap_or_default(),
            },
        },
    })
}

/// Refuses flags that would have no effect, or fail late.
fn check(wanted: &BackupContainer) -> Result<()> {
    if wanted.audit.is_some() && wanted.change_detection == Detection::Data {
        let what = "--change-detection data reads all, so that --audit has nothing to add: leave \
                    out one of them";
        return Err(usage(what));
    }
    if let Some(hook) = wanted
        .snapshot_hook
        .as_ref()
        .filter(|hook| hook.is_relative())
    {
        let what = format!(
            "--snapshot-hook {} has to be an absolute path: it is run in the folder /",
            hook.display()
        );
        return Err(usage(what));
    }
    Ok(())
}

/// How the container's files are read.
struct Walk {
    program: PathBuf,
    sources: Vec<Vec<u8>>,
    exclude: Vec<Vec<u8>>,
    ask: bool,
}

impl Walk {
    /// Starts a walker as the container's root user. It begins in the tree's root, which that user
    /// may not be allowed to go to.
    fn source(
        &self,
        root: &Path,
        id_map: Option<&IdMap>,
        cancel: &Cancel,
    ) -> snapkeep_api::Result<Box<dyn TreeSource>> {
        let command = Command {
            program: self.program.clone(),
            arguments: vec!["walk".into()],
            directory: Some(root.to_owned()),
            id_map: id_map.cloned(),
        };
        let request = Request {
            directory: ".".into(),
            sources: self.sources.clone(),
            exclude: self.exclude.clone(),
            ask: self.ask,
        };
        let options = Options {
            cancel: cancel.clone(),
            ..Options::default()
        };
        Ok(Box::new(Pull::of(command.spawn()?, &request, options)?))
    }
}
