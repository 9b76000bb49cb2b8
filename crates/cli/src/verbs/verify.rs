//! `verify`: what is stored is read and proven, all of it or a part.

mod chosen;
mod journal;
mod keyless;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use serde::Serialize;
use snapkeep_api::Clock;
use snapkeep_repo::{
    Depth, ErrorKind, Follow, Random, Repository, SnapshotName, SystemRandom, keep_verification,
    verify_with,
};

use crate::args::verify::Verify;
use crate::failure::Code;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::units::{counted, human};

use journal::{Journal, Wanted};

#[derive(Serialize)]
struct Verified {
    /// `everything`, `metadata` or `sample`.
    mode: &'static str,
    /// Of a sample.
    seed: Option<u64>,
    packs: u64,
    packs_bytes: u64,
    /// Proven by a run that was interrupted.
    packs_before: u64,
    archives: u64,
    archives_before: u64,
    chunks: u64,
    damage: Vec<Damage>,
    unread: Vec<Damage>,
}

#[derive(Serialize)]
pub(super) struct Damage {
    pub(super) object: String,
    pub(super) error: String,
}

/// What was found, as it is told.
pub(super) fn list(found: &[snapkeep_repo::Damage]) -> Vec<Damage> {
    let damage = found.iter().map(|damage| Damage {
        object: damage.object.clone(),
        error: damage.error.chain(),
    });
    damage.collect()
}

impl Report for Verified {
    fn lines(&self) -> Vec<String> {
        let damage = (self.damage.iter())
            .map(|damage| format!("damaged: {}: {}", damage.object, damage.error));
        let before = (self.packs_before + self.archives_before > 0).then(|| {
            format!(
                "{} and {} were proven by a run that was interrupted",
                counted(self.packs_before, "pack"),
                counted(self.archives_before, "archive")
            )
        });
        let seed = (self.seed).map(|seed| format!("a sample; --seed {seed} repeats it"));
        let advice = (!self.damage.is_empty()).then(|| {
            "`snapkeep repair` tells what is lost and what can be healed; until that is done, later \
             backups may rely on what is damaged"
                .to_owned()
        });
        (damage
            .chain(before)
            .chain(seed)
            .chain([self.sum()])
            .chain(advice))
        .collect()
    }
}

impl Verified {
    /// What was found, what of it is well, and how closely that was looked at.
    fn sum(&self) -> String {
        let damaged = match self.damage.len() {
            0 => "nothing is damaged:".to_owned(),
            number => format!(
                "DAMAGED: {}, named above;",
                counted(number as u64, "object")
            ),
        };
        let unread = match self.unread.len() {
            0 => String::new(),
            number => format!(
                " {} could not be read (verify again once that is mended);",
                counted(number as u64, "object")
            ),
        };
        let whole = match self.archives {
            0 => "no archive was found whole".to_owned(),
            1 => "1 archive is whole".to_owned(),
            number => format!("{number} archives are whole"),
        };
        let packs = format!(
            "{} ({}) read",
            counted(self.packs, "pack"),
            human(self.packs_bytes)
        );
        let looked = match (self.mode, self.packs) {
            ("metadata", _) => "by their metadata, for no data was read".to_owned(),
            ("sample", _) => format!("as far as a sample shows, {packs}"),
            (_, 0) => "all that they need was read".to_owned(),
            (_, _) => packs,
        };
        let proven = counted(self.chunks, "chunk");
        format!("{damaged}{unread} {whole}; {looked}, {proven} proven")
    }
}

pub(super) fn run(settings: &Settings, wanted: &Verify, json: bool) -> Result<ExitCode> {
    if wanted.without_key {
        return keyless::run(settings, wanted, json);
    }
    let session = Session::open(settings)?;
    session.repository.may_read()?;
    if let Some(limit) = wanted.bandwidth_limit {
        session.storage.pace(limit, Arc::clone(&session.clock));
    }
    let (journal, depth) = begin(&session, settings, wanted)?;
    let archives = chosen::archives(&session, settings, wanted, depth)?;
    let clock = Arc::clone(&session.clock);
    let progress = Arc::new(Progress::start("verifying", None, settings.quiet, clock));
    let bar = Arc::clone(&progress);
    session
        .storage
        .observe(Some(Arc::new(move |read| bar.set(read))));
    let follower = Follower {
        repository: &session.repository,
        clock: &*session.clock,
        depth,
        journal: journal.as_ref(),
        quiet: settings.quiet,
        not_kept: AtomicU64::new(0),
    };
    let found = verify_with(&session.repository, depth, archives.as_deref(), &follower);
    session.storage.observe(None);
    drop(progress);
    follower.tell_not_kept();
    // Whoever was stopped has proven nothing: what could not be read then is not damage.
    session.stop.cancel.check()?;
    let found = found?;
    if let Some(journal) = journal {
        journal.end();
    }
    let (mode, seed) = match depth {
        Depth::Everything => ("everything", None),
        Depth::Metadata => ("metadata", None),
        Depth::Sample { seed, .. } => ("sample", Some(seed)),
    };
    let verified = Verified {
        mode,
        seed,
        packs: found.packs,
        packs_bytes: found.bytes,
        packs_before: found.packs_before,
        archives: found.snapshots,
        archives_before: found.snapshots_before,
        chunks: found.chunks,
        damage: list(&found.damage),
        unread: list(&found.unread),
    };
    for unread in &verified.unread {
        remark(&format!(
            "{} is not proven: {}",
            unread.object, unread.error
        ));
    }
    report::result(&verified, json)?;
    let too_new = |damage: &snapkeep_repo::Damage| damage.error.kind() == ErrorKind::Version;
    Ok(if !verified.damage.is_empty() {
        Code::Damaged.into()
    } else if found.unread.iter().any(too_new) {
        Code::Locked.into()
    } else if !verified.unread.is_empty() {
        Code::Partial.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// What a run that was interrupted had proven, and how closely this one looks.
fn begin(
    session: &Session,
    settings: &Settings,
    wanted: &Verify,
) -> Result<(Option<Journal>, Depth)> {
    let mut random = [0; 8];
    SystemRandom.fill(&mut random)?;
    let fresh = || u64::from_le_bytes(random);
    let chosen = (wanted
        .archives
        .iter()
        .map(|archive| format!("archive {archive}")))
    .chain(wanted.guests.iter().map(|guest| format!("guest {guest}")))
    .chain(wanted.older_than.map(|days| format!("older than {days}")));
    let goal = Wanted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        repository: session.repository.config().repository.clone(),
        metadata: wanted.metadata,
        sample: wanted.sample,
        seed: wanted.seed,
        chosen: chosen.collect(),
        begun: session.clock.now().0,
    };
    let folder = settings.state.join("verify");
    let seed = wanted.seed;
    let (journal, seed) = match Journal::open(&folder, goal, wanted.anew, fresh) {
        Ok((journal, goal)) => (Some(journal), goal.seed),
        Err(error) => {
            remark(&format!(
                "if this is interrupted, the next run begins anew: {}: {error}",
                folder.display()
            ));
            (None, seed.or(wanted.sample.map(|_| fresh())))
        }
    };
    let depth = match (wanted.sample, seed) {
        (Some(share), Some(seed)) => Depth::Sample { share, seed },
        _ if wanted.metadata => Depth::Metadata,
        _ => Depth::Everything,
    };
    Ok((journal, depth))
}

/// Keeps what is found as soon as it is.
struct Follower<'a> {
    repository: &'a Repository,
    clock: &'a dyn Clock,
    depth: Depth,
    journal: Option<&'a Journal>,
    quiet: bool,
    /// Archives with which what was found could not be kept.
    not_kept: AtomicU64,
}

impl Follower<'_> {
    /// The first was told when it was found: on a full disk it is all of them.
    fn tell_not_kept(&self) {
        let others = self.not_kept.load(Ordering::Relaxed).saturating_sub(1);
        if others > 0 {
            remark(&format!(
                "nor could it be written down with {}",
                counted(others, "more archive")
            ));
        }
    }
}

impl Follow for Follower<'_> {
    fn begun(&self, packs: u64, bytes: u64) {
        if packs > 0 && !self.quiet {
            remark(&format!(
                "to be read: {} of {}",
                counted(packs, "pack"),
                human(bytes)
            ));
        }
    }

    fn was_proven(&self, object: &str) -> bool {
        self.journal.is_some_and(|journal| journal.has(object))
    }

    fn proven(&self, object: &str) {
        if let Some(journal) = self.journal {
            journal.add(object);
        }
    }

    /// What was found is told all the same if the repository cannot be written to.
    fn judged(&self, archive: &SnapshotName, found: &snapkeep_repo::Result<()>) {
        let program = concat!("snapkeep ", env!("CARGO_PKG_VERSION"));
        let time = self.clock.now().0;
        let kept = keep_verification(self.repository, archive, found, self.depth, time, program);
        if let Err(error) = kept
            && self.not_kept.fetch_add(1, Ordering::Relaxed) == 0
        {
            let is = match found {
                Ok(()) => "whole",
                Err(e) if e.kind() == ErrorKind::Corrupt => "damaged",
                Err(_) => "not proven",
            };
            let chain = error.chain();
            remark(&format!(
                "archive {archive} is {is}, but `snapkeep list` will not show it, for that could not be \
                 written down with it: {chain}"
            ));
        }
        if found.is_ok() {
            self.proven(archive.as_str());
        }
    }
}
