//! `note`, `protect` and `unprotect`: what is said of archives after their commit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use snapkeep_repo::{
    ArchiveAttributes, AttributeChange, VerificationMode, VerificationState, limits,
};

use crate::args::{Named, Note};
use crate::failure::usage;
use crate::report::{self, Report};
use crate::session::{ANY, Session};
use crate::settings::Settings;

/// Attributes of an archive, in a list and in `show`.
#[derive(Serialize)]
pub(super) struct Attributes {
    notes: Option<String>,
    /// Also if it cannot be told.
    protected: bool,
    verification: Option<Verified>,
    /// Why the backup's caller took it for failed.
    caller_error: Option<String>,
    /// Whether the log of the backup was kept.
    log: bool,
    /// Why nothing is known of all this.
    unreadable: Option<String>,
}

#[derive(Serialize)]
struct Verified {
    damaged: bool,
    /// In RFC 3339, UTC.
    time_utc: String,
    problem: Option<String>,
    /// How closely it looked: `everything`, `metadata` or `sample`.
    mode: VerificationMode,
    /// When all of it was last read and found good.
    everything_utc: Option<String>,
}

fn utc(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

impl Attributes {
    pub(super) fn new(found: Option<snapkeep_repo::Result<ArchiveAttributes>>) -> Self {
        let (found, error) = match found.transpose() {
            Ok(found) => (found.unwrap_or_default(), None),
            Err(e) => (ArchiveAttributes::default(), Some(e.chain())),
        };
        Self {
            notes: found.notes,
            protected: found.protected || error.is_some(),
            verification: found.verification.map(|verification| Verified {
                damaged: verification.state == VerificationState::Damaged,
                time_utc: utc(verification.time),
                mode: verification.mode,
                everything_utc: verification.good_by_everything().map(utc),
                problem: verification.problem,
            }),
            caller_error: found.caller_error,
            log: found.task_log.is_some(),
            unreadable: error,
        }
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// What stands behind an archive in a list.
    pub(super) fn mark(&self) -> String {
        let mut mark = String::new();
        if let Some(error) = self.error() {
            mark.push_str(", its notes and its protection cannot be read: ");
            mark.push_str(error);
            return mark;
        }
        if self.protected {
            mark.push_str(", protected");
        }
        match &self.verification {
            Some(Verified { damaged: true, .. }) => mark.push_str(", found damaged"),
            Some(Verified {
                damaged: false,
                mode,
                everything_utc,
                ..
            }) => {
                mark.push_str(match (mode, everything_utc) {
                    (VerificationMode::Everything, _) | (_, Some(_)) => ", verified",
                    (VerificationMode::Sample, None) => ", a sample verified",
                    (VerificationMode::Metadata, None) => ", its metadata verified",
                });
            }
            None => {}
        }
        if self.caller_error.is_some() {
            mark.push_str(", its job failed");
        }
        if let Some(first) = self.notes.as_deref().and_then(|notes| notes.lines().next()) {
            mark.push_str(": ");
            mark.push_str(&plain(first));
        }
        mark
    }

    /// All of it, for `show`.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(found) = &self.verification {
            let problem = found.problem.as_deref().map(plain);
            let looked = match found.mode {
                VerificationMode::Everything => "verified",
                VerificationMode::Sample => "a sample verified",
                VerificationMode::Metadata => "its metadata verified",
            };
            lines.push(match (found.damaged, problem) {
                (false, _) => format!("  {looked} at {}", found.time_utc),
                (true, None) => format!("  found damaged at {}", found.time_utc),
                (true, Some(problem)) => {
                    format!("  found damaged at {}: {problem}", found.time_utc)
                }
            });
            let whole = found.everything_utc.iter();
            let before = whole.filter(|time| found.damaged || **time != found.time_utc);
            lines.extend(before.map(|time| format!("  all of it was found good at {time}")));
        }
        let error = self.caller_error.as_deref().map(plain);
        lines.extend(error.map(|error| format!("  its job failed: {error}")));
        let notes = self.notes.iter().flat_map(|notes| notes.lines());
        lines.extend(notes.map(|line| format!("  note: {}", plain(line))));
        lines
    }
}

/// Text of somebody else's on a terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(shown).collect()
}

#[derive(Serialize)]
struct Noted {
    archive: String,
    notes: Option<String>,
}

impl Report for Noted {
    fn lines(&self) -> Vec<String> {
        let done = match self.notes {
            Some(_) => "has new notes",
            None => "has no notes",
        };
        vec![format!("{} {done}", self.archive)]
    }
}

pub(super) fn note(settings: &Settings, note: &Note, json: bool) -> Result<()> {
    let notes = match (&note.text, &note.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => notes_in(file)?,
        (None, None) => String::new(),
    };
    let session = Session::open(settings)?;
    let (name, _) = session.archive(settings, &note.archive, ANY)?;
    let change = AttributeChange {
        notes: Some(notes.clone()),
        ..AttributeChange::default()
    };
    session
        .repository
        .change_attributes(&name.as_str().parse()?, &change)?;
    let noted = Noted {
        archive: name.to_string(),
        notes: Some(notes).filter(|notes| !notes.is_empty()),
    };
    report::result(&noted, json)
}

fn notes_in(file: &Path) -> Result<String> {
    let mut text = Vec::new();
    // One byte more shows that it is too long.
    let limit = limits::NOTES_MAX as u64 + 1;
    (File::open(file))
        .and_then(|opened| opened.take(limit).read_to_end(&mut text))
        .with_context(|| format!("cannot read the notes in {}", file.display()))?;
    String::from_utf8(text)
        .map_err(|_| usage(format!("the notes in {} are not UTF-8", file.display())))
}

#[derive(Serialize)]
struct Protected {
    archives: Vec<String>,
    protected: bool,
}

impl Report for Protected {
    fn lines(&self) -> Vec<String> {
        let done = if self.protected {
            "is protected"
        } else {
            "is not protected"
        };
        (self.archives.iter())
            .map(|archive| format!("{archive} {done}"))
            .collect()
    }
}

pub(super) fn protect(
    settings: &Settings,
    named: &Named,
    protected: bool,
    json: bool,
) -> Result<()> {
    let session = Session::open(settings)?;
    let mut archives = Vec::new();
    for archive in &named.archives {
        let (name, _) = session.archive(settings, archive, ANY)?;
        (session.repository).protect(&name.as_str().parse()?, protected)?;
        archives.push(name.to_string());
    }
    let done = Protected {
        archives,
        protected,
    };
    report::result(&done, json)
}
