//! Writing files of an archive to a folder: what `restore container` and `extract` share.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::IdMap;
use snapkeep_tree::{
    Existing, ExtractOptions, ExtractReport, Owners, ProblemKind, Progress as Counters, Selection,
    extract,
};

use crate::args::container::Extraction;
use crate::failure::{Code, usage};
use crate::paced::Paced;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::Opened;

/// Time between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// Problems that are told on standard error.
const TOLD_MAX: usize = 100;

/// What came of an extraction.
#[derive(Debug, Serialize)]
pub(crate) struct Extracted {
    entries: u64,
    written_bytes: u64,
    problems: u64,
    /// The first thousand.
    named: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    path: String,
    what: &'static str,
    why: String,
}

impl Extracted {
    /// For people.
    pub(crate) fn line(&self) -> String {
        let problems = match self.problems {
            0 => String::new(),
            1 => ", 1 problem".to_owned(),
            number => format!(", {number} problems"),
        };
        format!(
            "{} entries, {} bytes of data{problems}",
            self.entries, self.written_bytes
        )
    }

    /// The exit code.
    pub(crate) fn code(&self) -> ExitCode {
        if self.problems == 0 {
            ExitCode::SUCCESS
        } else {
            Code::Partial.into()
        }
    }
}

/// What is told of an extraction to a folder.
#[derive(Serialize)]
struct Done {
    archive: String,
    folder: String,
    left_out: u64,
    #[serde(flatten)]
    extracted: Extracted,
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "restored {} to {}: {}",
            self.archive,
            self.folder,
            self.extracted.line()
        )]
    }
}

/// Ends what extracted to a folder, and tells what came of it.
pub(crate) fn end(
    opened: Opened,
    target: &Path,
    extracted: Extracted,
    json: bool,
) -> Result<ExitCode> {
    let done = Done {
        archive: opened.name.to_string(),
        folder: target.display().to_string(),
        left_out: opened.left_out,
        extracted,
    };
    opened.tell_left_out();
    opened.finish()?;
    report::result(&done, json)?;
    Ok(done.extracted.code())
}

/// The ID map that flags of this kind give, if they give one.
pub(crate) fn id_map(ranges: &[String]) -> Result<Option<IdMap>> {
    if ranges.is_empty() {
        return Ok(None);
    }
    let map = ranges.join(",").parse();
    map.map(Some)
        .map_err(|e: snapkeep_api::Error| usage(e.chain()))
}

/// Extracts what is selected, and tells what could not be restored.
pub(crate) fn run(
    session: &Session,
    settings: &Settings,
    opened: &Opened,
    target: &Path,
    selection: Selection,
    idmap: Option<IdMap>,
    how: &Extraction,
) -> Result<Extracted> {
    let mut owners = idmap.map_or_else(Owners::same, Owners::mapped);
    if let Some(id) = how.unmapped {
        owners = owners.with_unmapped(id);
    }
    let options = ExtractOptions {
        selection,
        existing: if how.overwrite {
            Existing::Replace
        } else {
            Existing::Refuse
        },
        owners,
        allow_devices: how.allow_devices,
        workers: settings.workers,
        durable: true,
    };
    let limit = how.bandwidth_limit.or(settings.config.bandwidth_limit);
    let cancel = &session.stop.cancel;
    let reader = Paced::new(
        Arc::clone(&opened.reader),
        limit,
        Arc::clone(&session.clock),
        cancel.clone(),
    );
    let what = format!("restoring {} to {}", opened.name, target.display());
    let clock = Arc::clone(&session.clock);
    let bar = Progress::start(what, None, settings.quiet, clock);
    let counters = Counters::default();
    let (done, over) = channel::<()>();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let over = over;
            while over.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                bar.set(counters.bytes());
            }
        });
        let report = extract(&reader, target, &options, &counters, cancel);
        drop(done);
        report
    });
    drop(bar);
    let report = report.with_context(|| {
        format!(
            "cannot restore archive {} to {}",
            opened.name,
            target.display()
        )
    })?;
    if report.closed_target {
        remark(&format!(
            "{} is closed to other users, whatever the archive says of it: without --idmap the \
             container's users and its set-user-ID programs are this host's; chmod opens it",
            target.display()
        ));
    }
    Ok(told(report))
}

fn told(report: ExtractReport) -> Extracted {
    let named: Vec<_> = (report.named.into_iter())
        .map(|problem| Problem {
            path: problem.path.to_string(),
            what: word(problem.kind),
            why: problem.why,
        })
        .collect();
    for problem in named.iter().take(TOLD_MAX) {
        remark(&format!(
            "warning: {}: {}: {}",
            problem.path, problem.what, problem.why
        ));
    }
    if named.len() > TOLD_MAX {
        remark("warning: more problems are not told one by one");
    }
    Extracted {
        entries: report.entries,
        written_bytes: report.bytes,
        problems: report.problems,
        named,
    }
}

fn word(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::NotMade => "not restored",
        ProblemKind::Kept => "what is there stays",
        ProblemKind::Owner => "owner not restored",
        ProblemKind::Permissions => "permissions not restored",
        ProblemKind::Xattr => "extended attribute not restored",
        ProblemKind::Time => "time not restored",
        ProblemKind::Flags => "inode flags not restored",
    }
}
