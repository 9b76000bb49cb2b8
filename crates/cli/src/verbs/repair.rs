//! `repair`: what is damaged, what that affects, what can be done, and doing it.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_repo::{
    Lost, RecoveryKit, RepairPlan, Repaired, Storage, apply_repair, plan_repair, rebuild_index,
    recover_config,
};

use super::verify::{Damage, list};
use crate::args::repair::Repair;
use crate::durable;
use crate::failure::{Code, usage};
use crate::progress::Progress;
use crate::report::{self, Report};
use crate::secrets;
use crate::session::{self, Session};
use crate::settings::{Secret, Settings};
use crate::units::counted;

#[derive(Serialize)]
struct Told {
    applied: bool,
    packs: Vec<Pack>,
    strange: Vec<Damage>,
    index: Vec<Damage>,
    attributes: Vec<Damage>,
    keys: Vec<Damage>,
    prunings: Vec<Damage>,
    others: Vec<Damage>,
    unread: Vec<Damage>,
    archives: Vec<Affected>,
    done: Option<Done>,
    /// Files that were moved away.
    moved: Vec<String>,
}

#[derive(Serialize)]
struct Pack {
    object: String,
    error: String,
    kept: u64,
    lost: u64,
}

#[derive(Serialize)]
struct Affected {
    archive: String,
    error: String,
    lost: Vec<Part>,
    more: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
enum Part {
    Record,
    Range {
        device: String,
        offset: u64,
        length: u64,
    },
    File {
        path: String,
    },
    Directory {
        path: String,
    },
    GuestConfig,
    FirewallConfig,
}

#[derive(Serialize)]
struct Done {
    copied: u64,
    packs: u64,
    index: u64,
    attributes: u64,
    keys: u64,
    prunings: u64,
    left: Vec<Damage>,
}

impl Part {
    fn new(lost: &Lost) -> Self {
        let text = |path: &[u8]| String::from_utf8_lossy(path).escape_debug().to_string();
        match lost {
            Lost::Record => Self::Record,
            Lost::Range {
                device,
                offset,
                length,
            } => Self::Range {
                device: device.clone(),
                offset: *offset,
                length: *length,
            },
            Lost::File(path) => Self::File { path: text(path) },
            Lost::Directory(path) => Self::Directory { path: text(path) },
            Lost::GuestConfig => Self::GuestConfig,
            Lost::FirewallConfig => Self::FirewallConfig,
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Record => "  all of it: its own record cannot be read".to_owned(),
            Self::Range {
                device,
                offset,
                length,
            } => format!("  {device}: {length} bytes from {offset}"),
            Self::File { path } => format!("  {path}"),
            Self::Directory { path } => format!("  {path}/: what is in it, or a part of that"),
            Self::GuestConfig => "  the guest's configuration".to_owned(),
            Self::FirewallConfig => "  the firewall's configuration".to_owned(),
        }
    }
}

impl Told {
    /// Lists of what is wrong.
    fn lists(&self) -> [&[Damage]; 7] {
        [
            &self.strange,
            &self.index,
            &self.attributes,
            &self.keys,
            &self.prunings,
            &self.others,
            &self.unread,
        ]
    }

    fn is_whole(&self) -> bool {
        let none = self.lists().iter().all(|list| list.is_empty());
        none && self.packs.is_empty() && self.archives.is_empty()
    }

    /// Whether `--apply` has something to do.
    fn is_repairable(&self) -> bool {
        let lists = [&self.index, &self.attributes, &self.keys, &self.prunings];
        !self.packs.is_empty() || lists.iter().any(|list| !list.is_empty())
    }

    /// Adds what was done, or is to be.
    fn add_end(&self, lines: &mut Vec<String>) {
        match &self.done {
            _ if self.is_whole() => lines.push("nothing is damaged".to_owned()),
            Some(done) => {
                lines.push(format!(
                    "repaired: {} copied; taken away: {}, {}, {}, {} and {} of prunings",
                    counted(done.copied, "chunk"),
                    counted(done.packs, "pack"),
                    counted(done.index, "index object"),
                    counted(done.attributes, "attribute"),
                    counted(done.keys, "key"),
                    counted(done.prunings, "file")
                ));
                let left = |left: &Damage| format!("left: {}: {}", left.object, left.error);
                lines.extend(done.left.iter().map(left));
            }
            None if !self.moved.is_empty() => {
                let more = "nothing else was done: --apply without --move-away repairs the rest";
                lines.extend(self.has_more().then(|| more.to_owned()));
            }
            None if self.is_repairable() => {
                lines.push("nothing was done: --apply repairs this".to_owned());
            }
            None => lines.push("nothing was done, and --apply has nothing to do".to_owned()),
        }
        if !self.is_repairable() && self.archives.iter().any(|archive| !archive.lost.is_empty()) {
            lines.push(
                "what is missing comes back by the next backup of a guest that still has it; archives \
                 that stay damaged are to be forgotten (`snapkeep forget`)"
                    .to_owned(),
            );
        }
    }

    /// Whether something is wrong beside what was moved away.
    fn has_more(&self) -> bool {
        let listed: usize = self.lists().iter().map(|list| list.len()).sum();
        listed + self.packs.len() + self.archives.len() > self.moved.len()
    }
}

impl Report for Told {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Pack {
            object,
            error,
            kept,
            lost,
        } in &self.packs
        {
            lines.push(format!("{object}: {error}"));
            lines.push(format!(
                "  {kept} of its chunks open and are copied to a new pack, {lost} are lost; then it is removed"
            ));
        }
        let strange = if self.moved.is_empty() {
            "nobody knows it: it stays, unless --move-away names it"
        } else {
            "nobody knows it"
        };
        let groups = [
            (&self.strange, strange),
            (
                &self.index,
                "its packs are indexed anew, and an empty one takes its place",
            ),
            (
                &self.attributes,
                "it is removed; its archive is protected instead, for it may have been",
            ),
            (&self.keys, "it is removed, if another key is there"),
            (
                &self.prunings,
                "another takes its place: it only told what may go",
            ),
            (
                &self.others,
                "nothing is to be done: the next backup of its guest makes it good, or nobody",
            ),
            (&self.unread, "the storage could not read it: try again"),
        ];
        for (group, healing) in groups {
            for damage in group {
                lines.push(format!("{}: {}", damage.object, damage.error));
                lines.push(format!("  {healing}"));
            }
        }
        for archive in &self.archives {
            if archive.lost.is_empty() {
                lines.push(format!("archive {}: nothing is lost", archive.archive));
                continue;
            }
            lines.push(format!(
                "archive {} stays, damaged, until a backup brings what it has lost:",
                archive.archive
            ));
            lines.extend(archive.lost.iter().map(Part::line));
            lines.extend((archive.more > 0).then(|| format!("  and {} more parts", archive.more)));
        }
        lines.extend(
            self.moved
                .iter()
                .map(|moved| format!("moved away: {moved}")),
        );
        self.add_end(&mut lines);
        lines
    }
}

#[derive(Serialize)]
struct Rebuilt {
    replaced: u64,
}

impl Report for Rebuilt {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "the index is written anew; replaced: {}",
            counted(self.replaced, "object")
        )]
    }
}

#[derive(Serialize)]
struct Recovered {
    applied: bool,
    repository: String,
    chunk_size: u32,
}

impl Report for Recovered {
    fn lines(&self) -> Vec<String> {
        let (made, apply) = if self.applied {
            ("made config again", "")
        } else {
            ("config can be made again", ": --apply does it")
        };
        vec![format!(
            "{made}: repository {}, chunks of {} bytes{apply}",
            self.repository, self.chunk_size
        )]
    }
}

pub(super) fn run(settings: &Settings, wanted: &Repair, json: bool) -> Result<ExitCode> {
    if wanted.config_file {
        return lost_config(settings, wanted, json);
    }
    let session = Session::open(settings)?;
    if wanted.rebuild_index {
        session.repository.may_read()?;
        let replaced = rebuild_index(&session.repository)?;
        report::result(&Rebuilt { replaced }, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let clock = Arc::clone(&session.clock);
    let progress = Arc::new(Progress::start("reading", None, settings.quiet, clock));
    let bar = Arc::clone(&progress);
    session
        .storage
        .observe(Some(Arc::new(move |read| bar.set(read))));
    let plan = plan_repair(&session.repository, &());
    session.storage.observe(None);
    drop(progress);
    session.stop.cancel.check()?;
    let plan = plan?;
    let mut moved = Vec::new();
    let mut done = None;
    if let Some(folder) = &wanted.into {
        durable::make_folder(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for object in &wanted.move_away {
            moved.push(take_away(&session, &plan, object, folder)?);
        }
    } else if wanted.apply {
        done = Some(apply_repair(&session.repository, &plan)?);
    }
    let left = match &done {
        Some(_) => plan.lossy() + plan.others.len() + plan.strange.len() > 0,
        None => plan.damage_count() > moved.len(),
    };
    let failed = done.as_ref().is_some_and(|done| !done.left.is_empty());
    report::result(&told(&plan, done, moved), json)?;
    Ok(if left || failed {
        Code::Damaged.into()
    } else if !plan.unread.is_empty() {
        Code::Partial.into()
    } else {
        ExitCode::SUCCESS
    })
}

fn told(plan: &RepairPlan, done: Option<Repaired>, moved: Vec<String>) -> Told {
    Told {
        applied: done.is_some(),
        packs: (plan.packs.iter())
            .map(|pack| Pack {
                object: pack.object.to_string(),
                error: pack.error.chain(),
                kept: pack.kept,
                lost: pack.lost,
            })
            .collect(),
        strange: list(&plan.strange),
        index: list(&plan.index),
        attributes: (plan.attributes.iter())
            .map(|damage| Damage {
                object: damage.object.to_string(),
                error: damage.error.chain(),
            })
            .collect(),
        keys: list(&plan.slots),
        prunings: list(&plan.prunings),
        others: list(&plan.others),
        unread: list(&plan.unread),
        archives: (plan.archives.iter())
            .map(|archive| Affected {
                archive: archive.archive.to_string(),
                error: archive.error.chain(),
                lost: archive.lost.iter().map(Part::new).collect(),
                more: archive.more,
            })
            .collect(),
        done: done.map(|done| Done {
            copied: done.copied,
            packs: done.packs,
            index: done.index,
            attributes: done.attributes,
            keys: done.slots,
            prunings: done.prunings,
            left: list(&done.left),
        }),
        moved,
    }
}

/// Moves a file out of the repository; where it is then.
fn take_away(session: &Session, plan: &RepairPlan, object: &str, folder: &Path) -> Result<String> {
    let path = folder.join(object.replace('/', "-"));
    let mut written = Ok(());
    let mut keep = |bytes: &[u8]| {
        written = durable::write_whole(&path, false, |file| Ok(file.write_all(bytes)?));
        match &written {
            Ok(()) => Ok(()),
            Err(error) => {
                let what = format!("{object} is not moved away: {error}");
                Err(snapkeep_repo::Error::new(
                    snapkeep_repo::ErrorKind::Io,
                    what,
                ))
            }
        }
    };
    let taken = session.repository.take_away(plan, object, &mut keep);
    written?;
    taken?;
    Ok(path.display().to_string())
}

fn lost_config(settings: &Settings, wanted: &Repair, json: bool) -> Result<ExitCode> {
    let Some(Secret::RecoveryKit(path)) = &settings.secret else {
        return Err(usage(
            "a lost config is made again from the recovery kit: name it by --recovery-kit or SNAPKEEP_RECOVERY_KIT",
        ));
    };
    let kit: RecoveryKit =
        (secrets::read(path)?.parse()).with_context(|| format!("cannot use {}", path.display()))?;
    let storage: Arc<dyn Storage> = session::place(settings)?.open()?;
    let config = recover_config(&storage, &kit, wanted.apply)?;
    let recovered = Recovered {
        applied: wanted.apply,
        repository: config.repository,
        chunk_size: config.chunk_size,
    };
    report::result(&recovered, json)?;
    Ok(ExitCode::SUCCESS)
}
