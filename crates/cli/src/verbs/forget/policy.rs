//! `forget` by a retention policy: each guest's archives by themselves.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use snapkeep_api::{GuestId, UnixTime};
use snapkeep_provider::retention::{self, Candidate, Policy, Reason, State, Verdict};
use snapkeep_provider::{ArchiveEntry, Catalogue, Listed};
use snapkeep_repo::{ErrorKind, SnapshotName};

use crate::args::forget::Forget;
use crate::failure::{Code, fault, usage};
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;

#[derive(Serialize)]
struct Done {
    dry_run: bool,
    /// In which days and weeks begin; none if this machine's has no name.
    time_zone: Option<String>,
    archives: Vec<Decided>,
}

#[derive(Serialize)]
struct Decided {
    archive: String,
    kept: bool,
    /// Why it is kept: the names of the rules, or what exempts it.
    reasons: Vec<String>,
    damaged: bool,
    /// Entries of the guest's files that are missing in it, or not whole.
    left_out: u64,
    caller_error: Option<String>,
    #[serde(skip)]
    counts: bool,
}

impl Done {
    fn line(&self, archive: &Decided) -> String {
        let what = match (archive.kept, self.dry_run) {
            (true, _) => format!("kept: {}", archive.reasons.join(", ")),
            (false, true) => "would be forgotten".to_owned(),
            (false, false) => "forgotten".to_owned(),
        };
        let damaged = if archive.damaged {
            " (found damaged: counts for nothing)"
        } else {
            ""
        };
        let partial = match archive.left_out {
            0 => String::new(),
            left_out if archive.counts => format!(" (partial: {left_out} left out)"),
            left_out => format!(" (partial: {left_out} left out; counts for nothing)"),
        };
        let failed = match archive.caller_error {
            Some(_) => " (its job failed after it was whole)",
            None => "",
        };
        format!("{}  {what}{damaged}{partial}{failed}", archive.archive)
    }
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        let kept = self.archives.iter().filter(|archive| archive.kept).count();
        let forgotten = self.archives.len() - kept;
        let would = if self.dry_run { " would be" } else { "" };
        let lines = self.archives.iter().map(|archive| self.line(archive));
        let last = format!("{kept} kept, {forgotten}{would} forgotten");
        lines.chain([last]).collect()
    }
}

pub(super) fn run(settings: &Settings, wanted: &Forget, json: bool) -> Result<ExitCode> {
    let policies = Policies::new(settings, wanted)?;
    let (zone, time_zone) = zone(settings, wanted)?;
    let guests = (wanted.guest.iter())
        .map(|guest| {
            guest
                .parse()
                .map_err(|e: snapkeep_api::Error| usage(e.chain()))
        })
        .collect::<Result<Vec<GuestId>>>()?;
    if guests.is_empty() && !wanted.all_guests && !wanted.configured {
        return Err(usage("of which guests? --guest GUEST, or --all-guests"));
    }
    let session = Session::open(settings)?;
    let repository = &session.repository;
    let catalogue = Catalogue::new(Arc::clone(repository), settings.namespace.clone());
    let listed = list(&catalogue, settings, wanted, &guests)?;
    if let Some((file, error)) = repository.damaged_markers().into_iter().next() {
        let what = format!(
            "nothing is forgotten: {file} cannot be read, so an archive that no backup finished \
             might count; `snapkeep repair` mends that"
        );
        return Err(anyhow::Error::from(error).context(what));
    }
    let groups = retention::candidates(&listed);
    let facts: BTreeMap<&str, &ArchiveEntry> = (listed.archives.iter())
        .map(|entry| (entry.name.as_str(), entry))
        .collect();
    let now = session.clock.now();
    let (mut archives, mut ahead, mut unread) = (Vec::new(), 0, false);
    for (group, candidates) in &groups {
        let policy = policies.of(group);
        if never_whole(candidates, &policy) {
            remark(&format!(
                "of {group} no archive is whole, so none that lacks files is forgotten: exclude \
                 what cannot be read, or let them count with --count-partial"
            ));
        }
        let verdicts = retention::decide(candidates, &policy, &zone, now);
        for (candidate, verdict) in candidates.iter().zip(verdicts) {
            let known = facts.get(candidate.name.as_str());
            let decided = decided(candidate, &verdict, known.copied(), &policy);
            ahead += usize::from(is(&verdict, Reason::Future));
            unread |= candidate.state == State::Unreadable;
            archives.push(decided);
        }
    }
    let mut done = Done {
        dry_run: wanted.dry_run,
        time_zone,
        archives,
    };
    if ahead > 0 {
        remark(&of_the_future(ahead, now));
    }
    if !wanted.dry_run {
        carry_out(&session, &mut done)?;
    }
    report::result(&done, json)?;
    for damaged in &listed.damaged {
        remark(&damaged.error.chain());
    }
    Ok(if unread {
        Code::Damaged.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// The archives of the guests that are meant. Each guest that is named must have some.
fn list(
    catalogue: &Catalogue,
    settings: &Settings,
    wanted: &Forget,
    guests: &[GuestId],
) -> Result<Listed> {
    let kind = wanted.kind.map(Into::into);
    if guests.is_empty() {
        return Ok(catalogue.list(kind, None)?);
    }
    let mut all = Listed::default();
    let mut guests: Vec<_> = guests.iter().collect();
    guests.sort_unstable();
    guests.dedup();
    for guest in guests {
        let listed = catalogue.list(kind, Some(guest))?;
        if listed.archives.is_empty() && listed.damaged.is_empty() {
            let what = format!(
                "there is no archive of guest {guest} in the namespace {}: nothing was forgotten",
                settings.namespace
            );
            return Err(fault(Code::NotFound, what));
        }
        all.archives.extend(listed.archives);
        all.damaged.extend(listed.damaged);
    }
    Ok(all)
}

/// Which policy is each guest's.
enum Policies<'a> {
    Same(Policy),
    Configured(&'a Settings),
}

impl<'a> Policies<'a> {
    fn new(settings: &'a Settings, wanted: &Forget) -> Result<Self> {
        if wanted.keep_none {
            if wanted.guest.is_empty() {
                let what = "--keep-none forgets everything of guests: name them with --guest";
                return Err(usage(what));
            }
            return Ok(Self::Same(Policy::Nothing));
        }
        if !wanted.configured {
            let policy = wanted.keep.policy().map_err(|why| {
                usage(format!(
                    "this {why}: name archives, or say what to keep, such as --keep-daily 7; \
                     --keep-none forgets all of a guest"
                ))
            })?;
            return Ok(Self::Same(policy));
        }
        let config = &settings.config;
        let any = config.retention.is_some()
            || (config.guests.values()).any(|guest| guest.retention.is_some());
        if !any {
            let what =
                "the configuration has no retention: neither [retention], nor that of a guest";
            return Err(usage(what));
        }
        Ok(Self::Configured(settings))
    }

    /// That of a group: a namespace, kind and guest. What the configuration says was looked at
    /// when it was read.
    fn of(&self, group: &str) -> Policy {
        let config = match self {
            Self::Same(policy) => return policy.clone(),
            Self::Configured(settings) => &settings.config,
        };
        let guest = group.rsplit('/').next().unwrap_or_default();
        let own = (config.guests.get(guest)).and_then(|guest| guest.retention.as_ref());
        let keep = own.or(config.retention.as_ref());
        keep.and_then(|keep| keep.policy().ok())
            .unwrap_or(Policy::All)
    }
}

/// The time zone, and its name if it has one.
fn zone(settings: &Settings, wanted: &Forget) -> Result<(TimeZone, Option<String>)> {
    let named = (wanted.time_zone.as_ref()).or(settings.config.time_zone.as_ref());
    let zone = match named {
        Some(name) => TimeZone::get(name).map_err(|e| {
            usage(format!(
                "the time zone {name:?} is not known here: {e} (the package tzdata has their rules)"
            ))
        })?,
        None => TimeZone::try_system().unwrap_or_else(|e| {
            remark(&format!(
                "this machine's time zone cannot be told, so days are those of UTC: {e}"
            ));
            TimeZone::UTC
        }),
    };
    let name = zone.iana_name().map(str::to_owned);
    Ok((zone, name))
}

fn is(verdict: &Verdict, reason: Reason) -> bool {
    matches!(verdict, Verdict::Kept(reasons) if reasons.contains(&reason))
}

fn of_the_future(ahead: usize, now: UnixTime) -> String {
    let now =
        Timestamp::from_second(now.0).map_or_else(|_| now.0.to_string(), |time| time.to_string());
    let archives = match ahead {
        1 => "1 archive is of a later time".to_owned(),
        ahead => format!("{ahead} archives are of later times"),
    };
    format!(
        "{archives} than the clock here shows ({now}): that is kept and counts for nothing; which \
         clock is wrong?"
    )
}

/// Whether a guest has no whole archive, but several that lack files, which rules keep therefore.
fn never_whole(candidates: &[Candidate], policy: &Policy) -> bool {
    let counts = |candidate: &Candidate| candidate.state == State::Whole;
    let partial = (candidates.iter()).filter(|candidate| candidate.state == State::Partial);
    let rules = matches!(policy, Policy::Rules(rules) if !rules.count_partial);
    rules && partial.count() > 1 && !candidates.iter().any(counts)
}

fn decided(
    candidate: &Candidate,
    verdict: &Verdict,
    known: Option<&ArchiveEntry>,
    policy: &Policy,
) -> Decided {
    let reasons = match verdict {
        Verdict::Kept(reasons) => reasons.iter().copied().map(word).collect(),
        Verdict::Forgotten => Vec::new(),
    };
    Decided {
        archive: candidate.name.to_string(),
        kept: *verdict != Verdict::Forgotten,
        reasons,
        damaged: candidate.state == State::Damaged,
        left_out: known.map_or(0, |entry| entry.left_out),
        counts: candidate.state != State::Partial
            || matches!(policy, Policy::Rules(rules) if rules.count_partial),
        caller_error: known.and_then(|entry| entry.caller_error.clone()),
    }
}

fn word(reason: Reason) -> String {
    match reason {
        Reason::Protected => "protected".to_owned(),
        Reason::Unreadable => "unreadable".to_owned(),
        Reason::Undated => "undated".to_owned(),
        Reason::Future => "future".to_owned(),
        Reason::All => "all".to_owned(),
        Reason::Rule(rule) => rule.to_string(),
    }
}

/// Forgets, of each guest the oldest first: whatever ends this, the rest is what the next run
/// forgets.
fn carry_out(session: &Session, done: &mut Done) -> Result<()> {
    let all = done.archives.iter().filter(|archive| !archive.kept).count();
    let doomed = (done.archives.iter_mut()).filter(|archive| !archive.kept);
    let mut names = Vec::new();
    for (before, archive) in doomed.enumerate() {
        let name: SnapshotName = archive.archive.parse()?;
        names.push(name.clone());
        match session.repository.forget(&name) {
            Ok(()) => {}
            // Another host has forgotten and pruned it.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // Somebody has protected it since it was listed.
            Err(e) if e.kind() == ErrorKind::Protected => {
                archive.kept = true;
                archive.reasons = vec![word(Reason::Protected)];
            }
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("cannot forget archive {name}; {before} of {all} are forgotten")
                });
            }
        }
    }
    session.remember_without(&names)
}
