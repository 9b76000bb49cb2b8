//! The kit's properties, and what came of each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use snapkeep_api::{
    Archive, ArchiveName, BackupJob, Error, Provider, Result, UnixTime, conformance,
};

/// What a property is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Virtual machines.
    Vm,
    /// Containers.
    Container,
}

/// A property of the kit.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name, a sentence in snake case.
    pub name: &'static str,
    /// What it is about.
    pub kind: Kind,
    check: conformance::Property,
}

/// What came of a property.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It holds.
    Held,
    /// It does not hold: what was seen instead.
    Failed(String),
    /// It cannot be checked: why.
    NotApplicable(&'static str),
}

/// All properties, those of virtual machines first.
pub fn properties() -> Vec<Property> {
    let of = |kind, properties: Vec<(&'static str, conformance::Property)>| {
        let properties = properties.into_iter();
        properties.map(move |(name, check)| Property { name, kind, check })
    };
    of(Kind::Vm, conformance::vm_properties())
        .chain(of(Kind::Container, conformance::container_properties()))
        .collect()
}

/// Whether a property holds for the providers that `make` makes, each over an empty storage of its
/// own.
pub fn check(property: &Property, make: &dyn Fn() -> Result<Box<dyn Provider>>) -> Verdict {
    let factory = || make().unwrap_or_else(|error| Box::new(Unmade(error)));
    // What a provider does must not keep the other properties from being checked.
    match catch_unwind(AssertUnwindSafe(|| (property.check)(&factory))) {
        Ok(Ok(())) => Verdict::Held,
        Ok(Err(seen)) => Verdict::Failed(seen),
        Err(_) => Verdict::Failed("the provider panicked".to_owned()),
    }
}

/// In the place of a provider that could not be made: each of its calls tells why.
#[derive(Debug)]
struct Unmade(Error);

impl Provider for Unmade {
    fn name(&self) -> &'static str {
        "none"
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Err(self.0.clone())
    }

    fn open_archive(&self, _name: &ArchiveName) -> Result<Box<dyn Archive>> {
        Err(self.0.clone())
    }
}
