//! `doctor`: what killed jobs left on this host.
//!
//! It looks only when it is called, at one place after the other; what was found in one is healed,
//! if that is asked for, before the next is looked at.

mod bucket;
mod mounts;
mod past;
mod places;
mod repository;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::{Clock, Error, Level, SystemClock, TaskLog};
use snapkeep_host::doctor::{
    Finding, Owner, Proxmox, State, containers, fleecing, fleecing_of_proxmox, qemu,
};

use crate::args::Doctor;
use crate::failure::Code;
use crate::place::Place;
use crate::report::{Output, remark};
use crate::settings::Settings;
use crate::signals::Stop;

use places::Places;

/// A finding as it is printed.
#[derive(Serialize)]
struct Told {
    finding: &'static str,
    what: String,
    #[serde(rename = "where")]
    place: String,
    owner: Whose,
    state: &'static str,
    cost: String,
    /// What would heal it; if that was tried, what came of it.
    healing: String,
    /// Null if it was not tried.
    healed: Option<bool>,
}

#[derive(Serialize)]
struct Whose {
    product: String,
    job: Option<String>,
    /// The job's process, if that lives.
    process: Option<u32>,
}

impl Whose {
    fn line(&self) -> String {
        let job = self.job.as_ref();
        let job = job.map_or(String::new(), |job| format!(", {job}"));
        let process = self.process;
        let process = process.map_or(String::new(), |id| format!(", process {id}"));
        format!("{}{job}{process}", self.product)
    }
}

impl From<Owner> for Whose {
    fn from(owner: Owner) -> Self {
        Self {
            product: owner.product,
            job: owner.job,
            process: owner.process,
        }
    }
}

impl Told {
    fn block(&self) -> String {
        let healing = match self.healed {
            None => "healing",
            Some(true) => "healed",
            Some(false) => "not healed",
        };
        format!(
            "{}: {}\n  where: {}\n  owner: {}\n  cost: {}\n  {healing}: {}\n",
            self.state,
            self.what,
            self.place,
            self.owner.line(),
            self.cost,
            self.healing
        )
    }
}

/// What healing says on the way.
struct Remarks {
    quiet: bool,
}

impl TaskLog for Remarks {
    fn log(&self, level: Level, message: &str) {
        let word = match level {
            Level::Info if self.quiet => return,
            Level::Info => "",
            Level::Warn => "warning: ",
            Level::Error => "error: ",
        };
        remark(&format!("{word}{message}"));
    }
}

/// One run.
struct Round {
    heal: bool,
    json: bool,
    stop: Stop,
    log: Remarks,
    output: Output,
    /// Whether something of ours is still there, or may be.
    left: bool,
}

impl Round {
    /// Heals what was found in one place, and tells of it.
    fn tell(&mut self, findings: Vec<Finding>) -> Result<()> {
        for mut finding in findings {
            let cancel = &self.stop.cancel;
            cancel.check()?;
            let healed = self.heal.then(|| finding.heal(&self.log, cancel)).flatten();
            self.left |= match finding.state {
                State::Stale => !matches!(healed, Some(Ok(_))),
                State::Gone | State::Unseen => true,
                State::InUse | State::Recent | State::Foreign | State::Fine => false,
            };
            let told = Told {
                finding: finding.kind,
                what: finding.what,
                place: finding.place,
                owner: finding.owner.into(),
                state: finding.state.word(),
                cost: finding.cost,
                healed: healed.as_ref().map(Result::is_ok),
                healing: healed.map_or(finding.healing, |healed| {
                    healed.unwrap_or_else(|e: Error| e.chain())
                }),
            };
            let text = if self.json {
                let object = serde_json::to_string(&told).context("cannot encode the result")?;
                format!("{object}\n")
            } else {
                told.block()
            };
            self.output.write(text.as_bytes())?;
        }
        // The next place may take long to look at.
        self.output.flush()
    }
}

pub(super) fn run(settings: &Settings, wanted: &Doctor, json: bool) -> Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let places = Places::new(settings, wanted);
    let mut round = Round {
        heal: wanted.heal,
        json,
        stop: Stop::watch(settings.quiet)?,
        log: Remarks {
            quiet: settings.quiet,
        },
        output: Output::open(),
        left: false,
    };
    let proxmox = Proxmox::default();
    let (monitors, unlisted) = places.monitors(&proxmox.run);
    round.tell(unlisted)?;
    let mut told = Vec::new();
    for monitor in monitors {
        round.stop.cancel.check()?;
        let found = qemu(&monitor, &clock, &places.fleecing, &proxmox);
        // What is healed should be gone, so its folder is looked at again.
        let heals = wanted.heal && found.findings.iter().any(|f| f.state == State::Stale);
        if !heals {
            told.extend(found.folders);
        }
        round.tell(found.findings)?;
    }
    for folder in &places.fleecing {
        round.tell(fleecing(folder, &told))?;
    }
    round.tell(fleecing_of_proxmox(&proxmox))?;
    round.tell(containers(&settings.containers()))?;
    round.tell(mounts::in_run_folder(&places.run))?;
    round.tell(mounts::elsewhere(&places.run, &places.mounts))?;
    if let Some(named) = &settings.repository {
        let place = Place::new(named, &settings.config.s3)?;
        // A bucket has no temporary files: an object is whole or not there.
        match &place {
            Place::Folder(folder) => round.tell(repository::left(folder, &*clock))?,
            Place::Bucket(..) => round.tell(bucket::told(
                settings,
                &place,
                &*clock,
                wanted.accept_rollback,
            ))?,
        }
        round.tell(past::gone(settings, &place, wanted.accept_rollback))?;
    }
    let left = round.left;
    round.output.end()?;
    Ok(if left {
        Code::Left.into()
    } else {
        ExitCode::SUCCESS
    })
}
