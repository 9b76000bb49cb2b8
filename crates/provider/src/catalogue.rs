//! The archives of a namespace, for a caller that lists them and sets what can be set of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::{ArchiveName, Error, ErrorKind, GuestId, GuestKind, Result, UnixTime};
use snapkeep_repo::{
    ArchiveAttributes, AttributeChange, ErrorKind as Kind, Repository, Snapshot, SnapshotName,
    Verification,
};

use crate::error;
use crate::names::{Namespace, group};

/// The archives of one namespace. Forgotten ones are not among them.
#[derive(Clone, Debug)]
pub struct Catalogue {
    repository: Arc<Repository>,
    namespace: Namespace,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Listed {
    /// Archives, of each guest oldest first.
    pub archives: Vec<ArchiveEntry>,
    /// Archives whose own record cannot be read.
    pub damaged: Vec<DamagedArchive>,
}

/// An archive whose own record cannot be read.
#[derive(Debug)]
pub struct DamagedArchive {
    /// Its name.
    pub name: ArchiveName,
    /// What is wrong.
    pub error: Error,
}

/// An archive.
#[derive(Clone, Debug)]
pub struct ArchiveEntry {
    /// Its name.
    pub name: ArchiveName,
    /// The kind of its guest.
    pub kind: GuestKind,
    /// Its guest.
    pub guest: String,
    /// When its backup began.
    pub time: UnixTime,
    /// Bytes of its disks or files.
    pub size: u64,
    /// Bytes that the repository grew by.
    pub stored: u64,
    /// Text for people.
    pub notes: Option<String>,
    /// Whether it may be neither forgotten nor pruned. Also if that cannot be told.
    pub protected: bool,
    /// Whether the repository can be read only with a secret.
    pub encrypted: bool,
    /// What the last verification found.
    pub verification: Option<Verification>,
    /// Why the caller took its backup for failed.
    pub caller_error: Option<String>,
    /// Entries of a container that are missing, or not whole.
    pub left_out: u64,
    /// Whether the log of its backup was kept.
    pub has_task_log: bool,
    /// Why nothing is known of its notes and the like, if they cannot be read.
    pub problem: Option<String>,
}

impl Catalogue {
    /// The archives of this namespace of a repository.
    pub fn new(repository: Arc<Repository>, namespace: Namespace) -> Self {
        Self {
            repository,
            namespace,
        }
    }

    /// All archives, or those of guests of one kind, or with one name, or both.
    pub fn list(&self, kind: Option<GuestKind>, guest: Option<&GuestId>) -> Result<Listed> {
        let namespace = self.namespace.to_string();
        let groups = match (kind, guest) {
            (Some(kind), Some(guest)) => vec![group(&self.namespace, kind, guest)],
            (None, Some(guest)) => [GuestKind::Qemu, GuestKind::Lxc]
                .map(|kind| group(&self.namespace, kind, guest))
                .into(),
            (Some(GuestKind::Qemu), None) => vec![format!("{namespace}/vm")],
            (Some(GuestKind::Lxc), None) => vec![format!("{namespace}/ct")],
            (None, None) => vec![namespace],
        };
        let encrypted = self.encrypted()?;
        let mut listed = Listed::default();
        for group in groups {
            let failed = |e| error::repository(format!("cannot list the archives of {group}"), e);
            let names = (self.repository.all_snapshots_of(Some(&group))).map_err(failed)?;
            let attributes = (self.repository.attributes_of(Some(&group))).map_err(failed)?;
            self.add(&mut listed, names, attributes, encrypted)?;
        }
        Ok(listed)
    }

    /// One archive. `NotFound` if the namespace has none of this name, or if it is forgotten.
    pub fn get(&self, name: &ArchiveName) -> Result<ArchiveEntry> {
        let snapshot_name = self.snapshot_name(name)?;
        let failed = |e| error::repository(format!("cannot read archive {name}"), e);
        let snapshot = self.repository.snapshot(&snapshot_name).map_err(failed)?;
        let attributes = self.repository.attributes(&snapshot_name);
        entry(
            &snapshot_name,
            &snapshot,
            Some(attributes),
            self.encrypted()?,
        )
    }

    /// Sets the notes of an archive; an empty text removes them.
    pub fn set_notes(&self, name: &ArchiveName, notes: &str) -> Result<()> {
        let snapshot_name = self.remembered(name)?;
        let change = AttributeChange {
            notes: Some(notes.to_owned()),
            ..AttributeChange::default()
        };
        (self.repository.change_attributes(&snapshot_name, &change))
            .map_err(|e| error::repository(format!("cannot set the notes of archive {name}"), e))
    }

    /// Protects an archive, or takes that back.
    pub fn set_protected(&self, name: &ArchiveName, protected: bool) -> Result<()> {
        let snapshot_name = self.remembered(name)?;
        (self.repository.protect(&snapshot_name, protected))
            .map_err(|e| error::repository(format!("cannot protect archive {name}"), e))
    }

    /// Forgets an archive: it is no longer listed and cannot be opened. Pruning frees its space. An
    /// error of the kind `Invalid` if it is protected, or if that cannot be told.
    pub fn forget(&self, name: &ArchiveName) -> Result<()> {
        let snapshot_name = self.remembered(name)?;
        (self.repository.forget(&snapshot_name))
            .map_err(|e| error::repository(format!("cannot forget archive {name}"), e))
    }

    /// Takes back that an archive was forgotten.
    pub fn take_back(&self, name: &ArchiveName) -> Result<()> {
        let snapshot_name = self.snapshot_name(name)?;
        (self.repository.take_back(&snapshot_name))
            .map_err(|e| error::repository(format!("cannot take archive {name} back"), e))
    }

    /// The log of an archive's backup, if it was kept: text of at most 16 MiB.
    pub fn task_log(&self, name: &ArchiveName) -> Result<Option<Vec<u8>>> {
        let snapshot_name = self.remembered(name)?;
        let failed = |e| error::repository(format!("cannot read the log of archive {name}"), e);
        let attributes = self.repository.attributes(&snapshot_name).map_err(failed)?;
        let log = attributes
            .task_log
            .map(|log| self.repository.read_task_log(&log));
        log.transpose().map_err(failed)
    }

    fn add(
        &self,
        listed: &mut Listed,
        names: Vec<SnapshotName>,
        mut attributes: BTreeMap<SnapshotName, snapkeep_repo::Result<ArchiveAttributes>>,
        encrypted: bool,
    ) -> Result<()> {
        let failed = |e| error::repository("cannot tell which archives are late", e);
        let late = self.repository.late(&names).map_err(failed)?;
        for name in names.into_iter().filter(|name| !late.contains(name)) {
            let attributes = attributes.remove(&name);
            if matches!(&attributes, Some(Ok(attributes)) if attributes.forgotten) {
                continue;
            }
            match self.repository.any_snapshot(&name) {
                Ok(snapshot) => {
                    listed
                        .archives
                        .push(entry(&name, &snapshot, attributes, encrypted)?);
                }
                Err(e) => {
                    let kind = e.kind();
                    let error = error::repository(format!("cannot read archive {name}"), e);
                    if matches!(kind, Kind::Corrupt | Kind::Version) {
                        let name = name.as_str().parse()?;
                        listed.damaged.push(DamagedArchive { name, error });
                    } else if kind != Kind::NotFound {
                        // A list without it would say that it was removed.
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing opens the repository without a secret.
    fn encrypted(&self) -> Result<bool> {
        (self.repository.is_encrypted())
            .map_err(|e| error::repository("cannot list the repository's keys", e))
    }

    fn remembered(&self, name: &ArchiveName) -> Result<SnapshotName> {
        let snapshot_name = self.snapshot_name(name)?;
        (self.repository.snapshot(&snapshot_name))
            .map_err(|e| error::repository(format!("cannot read archive {name}"), e))?;
        Ok(snapshot_name)
    }

    fn snapshot_name(&self, name: &ArchiveName) -> Result<SnapshotName> {
        let missing = || {
            let what = format!(
                "there is no archive {name} in the namespace {}",
                self.namespace
            );
            Error::new(ErrorKind::NotFound, what)
        };
        let (namespace, _) = name.as_str().split_once('/').ok_or_else(missing)?;
        if namespace != self.namespace.to_string() {
            return Err(missing());
        }
        name.as_str().parse().map_err(|_bad_name| missing())
    }
}

fn entry(
    name: &SnapshotName,
    snapshot: &Snapshot,
    attributes: Option<snapkeep_repo::Result<ArchiveAttributes>>,
    encrypted: bool,
) -> Result<ArchiveEntry> {
    let (attributes, problem) = match attributes {
        None => (ArchiveAttributes::default(), None),
        Some(Ok(attributes)) => (attributes, None),
        Some(Err(e)) => {
            // It may be.
            let protected = true;
            let attributes = ArchiveAttributes {
                protected,
                ..ArchiveAttributes::default()
            };
            (attributes, Some(e.chain()))
        }
    };
    let archive: ArchiveName = name.as_str().parse()?;
    let guest = name.group().rsplit('/').next().unwrap_or_default();
    let disks = snapshot.disks.iter().map(|disk| disk.size);
    let tree = snapshot.tree.as_ref();
    Ok(ArchiveEntry {
        kind: crate::names::archive_kind(&archive),
        name: archive,
        guest: guest.to_owned(),
        time: UnixTime(snapshot.time),
        size: disks
            .chain(tree.map(|tree| tree.size))
            .fold(0, u64::saturating_add),
        stored: snapshot.stats.stored,
        notes: attributes.notes,
        protected: attributes.protected,
        encrypted,
        verification: attributes.verification,
        caller_error: attributes.caller_error,
        left_out: tree.map_or(0, |tree| tree.left_out),
        has_task_log: attributes.task_log.is_some(),
        problem,
    })
}
