//! A backup provider class in Perl as a [`Provider`].

mod applies;
mod backup;
mod calls;
mod driver;
mod place;
mod process;
mod reader;
mod restore;
mod tree;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_api::{
    Archive, ArchiveName, BackupJob, Error, ErrorKind, Provider, Result, UnixTime, VmMechanism,
};

use crate::kit::Property;
use backup::Job;
use calls::Session;
use place::Place;
use restore::Opened;
use tree::Kept;

/// The storage ID that classes are given: the kit's bitmaps are named after it.
pub(crate) const STORAGE: &str = "conformance";

/// The properties whose backups all begin in one second. Elsewhere time goes on from one guest to the
/// next, as it does for who backs up one guest twice.
const ONE_SECOND: [&str; 2] = [
    "archive_names_are_valid_and_unique_within_a_second",
    "names_of_containers_archives_are_valid_and_unique",
];

/// How the class is called.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Dialect {
    /// As Proxmox VE has shipped it.
    #[default]
    Shipped,
    /// As version 5 of the series that introduced it had it.
    V5,
}

/// A class, and how an object of it is made.
#[derive(Clone, Debug)]
pub struct PerlClass {
    /// Its name, such as `PVE::BackupProvider::Plugin::Foo`.
    pub class: String,
    /// Folders for `-I`.
    pub include: Vec<PathBuf>,
    /// How it is called.
    pub dialect: Dialect,
    /// The mechanism that it has to ask for; any, if none is named.
    pub mechanism: Option<VmMechanism>,
    /// Properties of the storage's section; `{dir}` in a value is the storage's own folder.
    pub properties: Vec<(String, String)>,
    /// Commands that are run before, words separated by white space, with `{dir}` as well.
    pub prepare: Vec<String>,
    /// The class of the storage plugin, which is loaded, too.
    pub storage_plugin: Option<String>,
    /// The program that walks trees when it is called with `walk` (this one).
    pub walker: PathBuf,
    /// How long a call, or a command, may take.
    pub patience: Duration,
}

impl PerlClass {
    /// A provider over a new storage, for one property of the kit.
    pub fn provider(&self, property: &Property) -> Result<Box<dyn Provider>> {
        Ok(Box::new(self.class(ONE_SECOND.contains(&property.name))?))
    }

    fn class(&self, one_second: bool) -> Result<Class> {
        Ok(Class(Arc::new(Shared {
            class: self.clone(),
            place: Place::new(self)?,
            one_second,
            guests: AtomicU64::new(0),
            trees: Mutex::default(),
        })))
    }
}

/// What all of a provider's jobs and archives share.
pub(crate) struct Shared {
    pub(crate) class: PerlClass,
    pub(crate) place: Place,
    one_second: bool,
    guests: AtomicU64,
    /// What was in the archives of containers.
    pub(crate) trees: Mutex<BTreeMap<ArchiveName, Kept>>,
}

impl Shared {
    /// When the next guest's backup begins.
    pub(crate) fn next_start(&self, start: UnixTime) -> UnixTime {
        let guests = self.guests.fetch_add(1, Ordering::Relaxed);
        if self.one_second {
            return start;
        }
        UnixTime(start.0.saturating_add_unsigned(guests))
    }
}

struct Class(Arc<Shared>);

impl Class {
    /// A process like one of Proxmox VE's tasks, with one object of the class.
    fn session(&self) -> Result<Session> {
        Session::start(&self.0)
    }

    fn open(&self, name: &ArchiveName) -> Result<Opened> {
        Opened::open(self.session()?, name)
    }
}

impl Provider for Class {
    fn name(&self) -> &'static str {
        "a class in Perl"
    }

    fn start_job(&self, start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(Job::start(self.session()?, start_time)?))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        Ok(Box::new(self.open(name)?))
    }
}

/// An error of the class, or of what runs it.
pub(crate) fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Protocol, what)
}
