//! `conformance`: which properties of the contract a provider has.

mod own;

use std::cell::OnceCell;
use std::path::absolute;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::VmMechanism;
use snapkeep_api::memory::MemoryProvider;
use snapkeep_conformance::{Kind, PerlClass, Property, Verdict, check, properties};

use crate::args::conformance::{Conformance, Dialect, Mechanism};
use crate::failure::{Code, usage};
use crate::report::{self, Report};
use crate::signals::Stop;

/// Checks each property, and prints a line as soon as it is known.
pub(super) fn run(wanted: &Conformance, quiet: bool, json: bool) -> Result<ExitCode> {
    let chosen = chosen(wanted)?;
    let subject = Subject::new(wanted)?;
    let stop = Stop::watch(quiet)?;
    let mut done = Done::default();
    for property in &chosen {
        stop.cancel.check()?;
        let line = Line::new(property, subject.verdict(property));
        if !json {
            report::bytes(format!("{}\n", line.text()).as_bytes())?;
        }
        done.add(line);
    }
    report::result(&done, json)?;
    Ok(if done.is_good() {
        ExitCode::SUCCESS
    } else {
        Code::Failed.into()
    })
}

/// The properties to check.
fn chosen(wanted: &Conformance) -> Result<Vec<Property>> {
    let all = properties();
    let unknown = |name: &&String| all.iter().all(|property| property.name != **name);
    if let Some(name) = wanted.only.iter().find(unknown) {
        return Err(usage(format!("there is no property {name}")));
    }
    let named = |property: &&Property| wanted.only.iter().any(|name| name == property.name);
    let chosen = all.iter().filter(|p| wanted.only.is_empty() || named(p));
    Ok(chosen.copied().collect())
}

/// Whose properties they are.
enum Subject {
    /// A class, and why it has no containers, once that is known.
    Perl(PerlClass, OnceCell<Option<&'static str>>),
    Memory(VmMechanism),
    Own(VmMechanism),
}

impl Subject {
    fn new(wanted: &Conformance) -> Result<Self> {
        let mechanism = wanted.mechanism.map(|mechanism| match mechanism {
            Mechanism::Nbd => VmMechanism::Nbd,
            Mechanism::FileHandle => VmMechanism::FileHandle,
        });
        let Some(class) = &wanted.perl else {
            let mechanism = mechanism.unwrap_or(VmMechanism::Nbd);
            return Ok(if wanted.memory {
                Self::Memory(mechanism)
            } else {
                Self::Own(mechanism)
            });
        };
        let include = wanted.include.iter().map(|folder| {
            let whole = absolute(folder);
            whole.with_context(|| format!("cannot use the folder {}", folder.display()))
        });
        let class = PerlClass {
            class: class.clone(),
            include: include.collect::<Result<_>>()?,
            dialect: match wanted.dialect {
                Dialect::Shipped => snapkeep_conformance::Dialect::Shipped,
                Dialect::V5 => snapkeep_conformance::Dialect::V5,
            },
            mechanism,
            properties: wanted.properties.clone(),
            prepare: wanted.prepare.clone(),
            storage_plugin: wanted.storage_plugin.clone(),
            walker: std::env::current_exe().context("cannot find this program")?,
            patience: Duration::from_secs(wanted.time_limit.get()),
        };
        Ok(Self::Perl(class, OnceCell::new()))
    }

    fn verdict(&self, property: &Property) -> Verdict {
        match self {
            Self::Perl(class, no_containers) => {
                let of_kind = || match property.kind {
                    Kind::Vm => None,
                    Kind::Container => *no_containers.get_or_init(|| class.no_containers()),
                };
                match class.not_applicable(property).or_else(of_kind) {
                    Some(why) => Verdict::NotApplicable(why),
                    None => check(property, &|| class.provider(property)),
                }
            }
            Self::Memory(mechanism) => {
                check(property, &|| Ok(Box::new(MemoryProvider::new(*mechanism))))
            }
            Self::Own(mechanism) => check(property, &|| own::provider(*mechanism)),
        }
    }
}

/// What came of one property.
#[derive(Serialize)]
struct Line {
    property: &'static str,
    result: &'static str,
    why: Option<String>,
}

impl Line {
    fn new(property: &Property, verdict: Verdict) -> Self {
        let (result, why) = match verdict {
            Verdict::Held => (HELD, None),
            Verdict::Failed(seen) => (FAILED, Some(seen)),
            Verdict::NotApplicable(why) => (NOT_APPLICABLE, Some(why.to_owned())),
        };
        Self {
            property: property.name,
            result,
            why,
        }
    }

    fn text(&self) -> String {
        let why = self.why.as_deref().unwrap_or_default();
        match self.result {
            HELD => format!("{}: ok", self.property),
            FAILED => format!("{}: FAILED: {why}", self.property),
            other => format!("{}: {other}: {why}", self.property),
        }
    }
}

const HELD: &str = "held";
const FAILED: &str = "failed";
const NOT_APPLICABLE: &str = "not applicable";

/// What came of all.
#[derive(Default, Serialize)]
struct Done {
    properties: Vec<Line>,
    held: usize,
    failed: usize,
    not_applicable: usize,
}

impl Done {
    fn add(&mut self, line: Line) {
        match line.result {
            HELD => self.held += 1,
            FAILED => self.failed += 1,
            _ => self.not_applicable += 1,
        }
        self.properties.push(line);
    }

    /// Where nothing was checked, nothing is proven.
    fn is_good(&self) -> bool {
        self.failed == 0 && self.held > 0
    }
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "{} properties held, {} failed, {} not applicable",
            self.held, self.failed, self.not_applicable
        )]
    }
}
