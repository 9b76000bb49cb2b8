//! `verify --without-key`: whether files are what was written, as far as checksums tell.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use snapkeep_api::SystemClock;
use snapkeep_repo::verify_without_key;

use super::{Damage, list};
use crate::args::verify::Verify;
use crate::failure::Code;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session;
use crate::settings::Settings;
use crate::signals::Stop;
use crate::units::{counted, human};

#[derive(Serialize)]
struct Judged {
    packs: u64,
    others: u64,
    bytes: u64,
    damage: Vec<Damage>,
    unread: Vec<Damage>,
    /// Not all if they are many.
    foreign: Vec<String>,
    foreign_count: u64,
    missing: Vec<Missing>,
}

#[derive(Serialize)]
struct Missing {
    writer: String,
    objects: u64,
}

impl Report for Judged {
    fn lines(&self) -> Vec<String> {
        let damage = (self.damage.iter())
            .map(|damage| format!("damaged: {}: {}", damage.object, damage.error));
        let foreign = (self.foreign.iter()).map(|name| format!("no file of a repository: {name}"));
        let more = self.foreign_count - self.foreign.len() as u64;
        let more = (more > 0).then(|| format!("and {more} more such files"));
        let missing = (self.missing.iter()).map(|missing| {
            format!(
                "{}: {} index objects are not there; the packs are read instead",
                missing.writer, missing.objects
            )
        });
        let sum = format!(
            "{}: {} and {} ({}) have their checksums; whether an archive has all that it needs, only \
             a key tells",
            match self.damage.len() {
                0 => "nothing is damaged".to_owned(),
                number => format!("DAMAGED: {}", counted(number as u64, "file")),
            },
            counted(self.packs, "pack"),
            counted(self.others, "other file"),
            human(self.bytes),
        );
        (damage
            .chain(foreign)
            .chain(more)
            .chain(missing)
            .chain([sum]))
        .collect()
    }
}

pub(super) fn run(settings: &Settings, wanted: &Verify, json: bool) -> Result<ExitCode> {
    let storage = session::place(settings)?.open()?;
    let stop = Stop::watch(settings.quiet)?;
    storage.obey(stop.cancel.clone());
    let clock = Arc::new(SystemClock::new());
    if let Some(limit) = wanted.bandwidth_limit {
        storage.pace(limit, Arc::clone(&clock) as _);
    }
    let progress = Arc::new(Progress::start("reading", None, settings.quiet, clock));
    let bar = Arc::clone(&progress);
    storage.observe(Some(Arc::new(move |read| bar.set(read))));
    let found = verify_without_key(&*storage, &());
    storage.observe(None);
    drop(progress);
    stop.cancel.check()?;
    let found = found?;
    let judged = Judged {
        packs: found.packs,
        others: found.others,
        bytes: found.bytes,
        damage: list(&found.damage),
        unread: list(&found.unread),
        foreign: found.foreign,
        foreign_count: found.foreign_count,
        missing: (found.missing.into_iter())
            .map(|(writer, objects)| Missing { writer, objects })
            .collect(),
    };
    for unread in &judged.unread {
        remark(&format!("{} was not read: {}", unread.object, unread.error));
    }
    report::result(&judged, json)?;
    Ok(if !judged.damage.is_empty() {
        Code::Damaged.into()
    } else if !judged.unread.is_empty() {
        Code::Partial.into()
    } else {
        ExitCode::SUCCESS
    })
}
