//! `list`: the archives, oldest first within each guest.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use snapkeep_repo::{ArchiveAttributes, ErrorKind, Snapshot, SnapshotName};

use crate::args::List;
use crate::failure::{Code, fault};
use crate::report::{self, Report, remark};
use crate::session::{self, ANY, Session};
use crate::settings::Settings;
use crate::units::human;
use crate::verbs::attributes::Attributes;

#[derive(Serialize)]
struct Listed {
    archives: Vec<Entry>,
    /// Archives whose own record cannot be read.
    damaged: Vec<Damaged>,
    /// Archives that are there, and are listed once a pruning has copied what they need.
    late: Vec<String>,
    /// What this host remembers and is gone.
    rolled_back: Vec<String>,
}

/// An archive in a list, and at the head of `show`.
#[derive(Serialize)]
pub(super) struct Entry {
    archive: String,
    namespace: String,
    kind: String,
    guest: String,
    /// Seconds since the epoch.
    time: i64,
    /// The same in RFC 3339, UTC.
    time_utc: String,
    disks: usize,
    /// Entries of the file tree; null if there is none.
    entries: Option<u64>,
    /// How many of them are missing, or not whole; null if there is no file tree.
    left_out: Option<u64>,
    size_bytes: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    #[serde(flatten)]
    attributes: Attributes,
}

#[derive(Serialize)]
struct Damaged {
    archive: String,
    error: String,
}

impl Entry {
    /// `attributes` is what was found of them, nothing if there are none.
    pub(super) fn new(
        name: &str,
        snapshot: &Snapshot,
        attributes: Option<snapkeep_repo::Result<ArchiveAttributes>>,
    ) -> Self {
        let mut parts = name.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        let stats = snapshot.stats;
        Self {
            archive: name.to_owned(),
            namespace: part(),
            kind: part(),
            guest: part(),
            time: snapshot.time,
            time_utc: (Timestamp::from_second(snapshot.time))
                .map_or_else(|_| snapshot.time.to_string(), |time| time.to_string()),
            disks: snapshot.disks.len(),
            entries: snapshot.tree.as_ref().map(|tree| tree.entries),
            left_out: snapshot.tree.as_ref().map(|tree| tree.left_out),
            size_bytes: (snapshot.disks.iter().map(|disk| disk.size))
                .chain(snapshot.tree.as_ref().map(|tree| tree.size))
                .sum(),
            read_bytes: stats.read,
            new_bytes: stats.new,
            stored_bytes: stats.stored,
            attributes: Attributes::new(attributes),
        }
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{}  {} in {}{}, read {}, stored {}{}",
            self.archive,
            human(self.size_bytes),
            match self.entries {
                Some(1) => "1 entry".to_owned(),
                Some(entries) => format!("{entries} entries"),
                None => disks(self.disks),
            },
            match self.left_out {
                Some(left_out @ 1..) => format!(" ({left_out} left out)"),
                Some(0) | None => String::new(),
            },
            human(self.read_bytes),
            human(self.stored_bytes),
            self.attributes.mark()
        )
    }

    /// What is known of it beside, each on a line.
    pub(super) fn attribute_lines(&self) -> Vec<String> {
        self.attributes.lines()
    }
}

fn disks(number: usize) -> String {
    match number {
        1 => "1 disk".to_owned(),
        number => format!("{number} disks"),
    }
}

impl Report for Listed {
    fn lines(&self) -> Vec<String> {
        let damaged = (self.damaged.iter())
            .map(|archive| format!("{}  damaged: {}", archive.archive, archive.error));
        self.archives
            .iter()
            .map(Entry::line)
            .chain(damaged)
            .collect()
    }
}

pub(super) fn run(settings: &Settings, list: &List, json: bool) -> Result<ExitCode> {
    let session = Session::open(settings)?;
    let groups = match &list.guest {
        None => vec![None],
        Some(guest) => (session::groups(settings, guest, ANY)?.into_iter())
            .map(Some)
            .collect(),
    };
    let repository = &session.repository;
    let mut listed = false;
    let mut found = Listed {
        archives: Vec::new(),
        damaged: Vec::new(),
        late: Vec::new(),
        rolled_back: (session.doubts.iter())
            .map(|doubt| doubt.what.clone())
            .chain((session.less_locked.iter()).map(|less| less.what.clone()))
            .collect(),
    };
    for group in groups {
        let names = repository.all_snapshots_of(group.as_deref())?;
        let mut attributes = repository.attributes_of(group.as_deref())?;
        // The newest of each guest comes last.
        let mut newest: BTreeMap<String, Option<SnapshotName>> = BTreeMap::new();
        // Nobody was told that they are there.
        let late = repository.late(&names)?;
        for (file, error) in repository.damaged_markers() {
            remark(&format!(
                "warning: {file} cannot be read, so archives may be listed that no backup \
                 finished; `snapkeep repair` mends that: {}",
                error.chain()
            ));
        }
        for name in names.iter().filter(|name| late.contains(*name)) {
            add_late(&mut found, &session, name)?;
        }
        for name in names.into_iter().filter(|name| !late.contains(name)) {
            let attributes = attributes.remove(&name);
            // What cannot be told is not forgotten.
            let forgotten = matches!(&attributes, Some(Ok(found)) if found.forgotten);
            let known = newest.entry(name.group().to_owned()).or_default();
            if !forgotten {
                *known = Some(name.clone());
            }
            if forgotten == list.forgotten {
                listed = true;
                add(&mut found, &session, &name, attributes)?;
            }
        }
        for (group, newest) in newest {
            // Whoever only looks need not be able to write to this host's state folder.
            drop(session.remember(&group, newest.as_ref()));
        }
    }
    if let (Some(guest), false) = (&list.guest, listed) {
        let (namespace, which) = (
            &settings.namespace,
            if list.forgotten { "forgotten " } else { "" },
        );
        let what =
            format!("there is no {which}archive of guest {guest} in the namespace {namespace}");
        return Err(fault(Code::NotFound, what));
    }
    report::result(&found, json)?;
    let told = (found.archives.iter()).all(|entry| entry.attributes.error().is_none());
    // What was forgotten for its damage is no news.
    Ok(if (found.damaged.is_empty() || list.forgotten) && told {
        ExitCode::SUCCESS
    } else {
        Code::Damaged.into()
    })
}

/// One that was taken back or made just as a sweep began is named: somebody waits for it. Of others
/// that are not listed something is gone.
fn add_late(found: &mut Listed, session: &Session, name: &SnapshotName) -> Result<()> {
    let repository = &session.repository;
    let is_forgotten = || {
        let attributes = repository.attributes(name);
        attributes.is_ok_and(|attributes| attributes.forgotten)
    };
    match repository.waits_for_sweep(name) {
        Ok(true) if !is_forgotten() => {
            remark(&format!(
                "archive {name} is there and not listed yet: it was taken back or made just as a \
                 pruning began; that one copies what it needs or, if it was killed, a `snapkeep \
                 prune` two days later"
            ));
            found.late.push(name.to_string());
        }
        Ok(_) => {}
        // It was removed since it was listed, or is damaged and could not be restored.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

/// One that is damaged does not hide the others.
fn add(
    found: &mut Listed,
    session: &Session,
    name: &SnapshotName,
    attributes: Option<snapkeep_repo::Result<ArchiveAttributes>>,
) -> Result<()> {
    match session.repository.any_snapshot(name) {
        Ok(snapshot) => {
            let entry = Entry::new(name.as_str(), &snapshot, attributes);
            found.archives.push(entry);
        }
        Err(e) if e.kind() == ErrorKind::Corrupt => found.damaged.push(Damaged {
            archive: name.to_string(),
            error: e.chain(),
        }),
        // It was removed since it was listed.
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    Ok(())
}
