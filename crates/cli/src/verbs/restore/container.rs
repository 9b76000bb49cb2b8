//! `restore container`: a whole file tree, to a folder, a tar archive or a new container.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_tree::Selection;
use snapkeep_tree::tar::write_tar;

use crate::args::container::RestoreContainer;
use crate::durable;
use crate::extraction;
use crate::failure::usage;
use crate::paced::Paced;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::Opened;

use super::lxc;

pub(super) fn run(settings: &Settings, wanted: &RestoreContainer, json: bool) -> Result<ExitCode> {
    check(wanted, json)?;
    let how = &wanted.how;
    let idmap = extraction::id_map(&how.idmap)?;
    let session = Session::open_to_read(settings)?;
    let opened = Opened::open(&session, settings, &wanted.archive)?;
    if let Some(tar) = &wanted.tar {
        return to_tar(&session, settings, opened, wanted, tar, json);
    }
    if let Some(name) = &wanted.lxc {
        return lxc::run(&session, settings, opened, wanted, name, idmap, json);
    }
    let Some(target) = &wanted.to else {
        return Err(usage("give --to, --tar or --lxc"));
    };
    let all = Selection::all();
    let extracted = extraction::run(&session, settings, &opened, target, all, idmap, how)?;
    extraction::end(opened, target, extracted, json)
}

/// Refuses flags that would have no effect, before anything is asked for or opened.
fn check(wanted: &RestoreContainer, json: bool) -> Result<()> {
    let to_lxc = wanted.allow_unsafe || wanted.allow_privileged || wanted.lxc_path.is_some();
    if wanted.lxc.is_none() && to_lxc {
        let what =
            "--lxc-path, --allow-unsafe and --allow-privileged are for a new container: give --lxc";
        return Err(usage(what));
    }
    let how = &wanted.how;
    if wanted.lxc.is_some() && how.overwrite {
        return Err(usage(
            "a new container has nothing to overwrite: remove the other one first",
        ));
    }
    let Some(tar) = &wanted.tar else {
        return Ok(());
    };
    if !how.idmap.is_empty() || how.unmapped.is_some() {
        let what =
            "a tar archive has the container's own owners: --idmap and --unmapped are for folders";
        return Err(usage(what));
    }
    if how.allow_devices {
        let what = "a tar archive has all devices: --allow-devices is for folders";
        return Err(usage(what));
    }
    if json && tar == Path::new("-") {
        let what = "the tar archive is what is printed, so --json has no place";
        return Err(usage(what));
    }
    Ok(())
}

#[derive(Serialize)]
struct Tarred {
    archive: String,
    path: String,
    members: u64,
    size_bytes: u64,
    /// Sockets, which a tar archive cannot hold.
    sockets: u64,
    /// Entries with inode flags, which a tar archive cannot hold.
    flags_lost: u64,
    /// What is missing in the archive.
    left_out: u64,
}

impl Report for Tarred {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "wrote {} to {}: {} members, {} bytes",
            self.archive, self.path, self.members, self.size_bytes
        )]
    }
}

fn to_tar(
    session: &Session,
    settings: &Settings,
    opened: Opened,
    wanted: &RestoreContainer,
    path: &Path,
    json: bool,
) -> Result<ExitCode> {
    let limit = wanted.how.bandwidth_limit;
    let limit = limit.or(settings.config.bandwidth_limit);
    let cancel = &session.stop.cancel;
    let clock = &session.clock;
    let reader = Arc::clone(&opened.reader);
    let reader = Paced::new(reader, limit, Arc::clone(clock), cancel.clone());
    let write = |out: &mut dyn Write| {
        write_tar(&reader, &Selection::all(), out, cancel)
            .with_context(|| format!("cannot write archive {} as tar", opened.name))
    };
    let standard_output = path == Path::new("-");
    let report = if standard_output {
        write(&mut io::stdout().lock())?
    } else {
        let what = format!("writing {} to {}", opened.name, path.display());
        let _bar = Progress::start(what, None, settings.quiet, Arc::clone(clock));
        durable::write_whole(path, wanted.how.overwrite, |file: &mut File| write(file))?
    };
    for socket in &report.socket_paths {
        remark(&format!(
            "warning: {socket} is left out: a tar archive cannot hold a socket"
        ));
    }
    if report.flags_lost > 0 {
        remark(&format!(
            "warning: {} entries have inode flags, which a tar archive cannot hold",
            report.flags_lost
        ));
    }
    let done = Tarred {
        archive: opened.name.to_string(),
        path: path.display().to_string(),
        members: report.members,
        size_bytes: report.bytes,
        sockets: report.sockets,
        flags_lost: report.flags_lost,
        left_out: opened.left_out,
    };
    opened.tell_left_out();
    opened.finish()?;
    if !standard_output {
        report::result(&done, json)?;
    }
    Ok(ExitCode::SUCCESS)
}
