//! `verify`: everything is read and proven.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use snapkeep_repo::{keep_verification, verify};

use crate::failure::Code;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;

#[derive(Serialize)]
struct Verified {
    packs: u64,
    packs_bytes: u64,
    archives: u64,
    chunks: u64,
    damage: Vec<Damage>,
}

#[derive(Serialize)]
struct Damage {
    object: String,
    error: String,
}

impl Report for Verified {
    fn lines(&self) -> Vec<String> {
        let damage = (self.damage.iter())
            .map(|damage| format!("damaged: {}: {}", damage.object, damage.error));
        let sum = format!(
            "{} packs ({} bytes), {} archives and {} chunks verified, {} damaged objects",
            self.packs,
            self.packs_bytes,
            self.archives,
            self.chunks,
            self.damage.len()
        );
        let advice = (!self.damage.is_empty()).then(|| {
            "later backups would rely on the damaged chunks too: keep this repository for what it \
             still has, and back up to a new one"
                .to_owned()
        });
        damage.chain([sum]).chain(advice).collect()
    }
}

pub(super) fn run(settings: &Settings, json: bool) -> Result<ExitCode> {
    let session = Session::open(settings)?;
    let clock = Arc::clone(&session.clock);
    let progress = Arc::new(Progress::start("verifying", None, settings.quiet, clock));
    let bar = Arc::clone(&progress);
    session
        .storage
        .observe(Some(Arc::new(move |read| bar.set(read))));
    let found = verify(&session.repository);
    session.storage.observe(None);
    drop(progress);
    // Whoever was stopped has proven nothing: what could not be read then is not damage.
    session.stop.cancel.check()?;
    let found = found?;
    let damage = found.damage.iter().map(|damage| Damage {
        object: damage.object.clone(),
        error: damage.error.chain(),
    });
    let verified = Verified {
        packs: found.packs,
        packs_bytes: found.bytes,
        archives: found.snapshots,
        chunks: found.chunks,
        damage: damage.collect(),
    };
    for unread in &found.unread {
        let chain = unread.error.chain();
        remark(&format!("{} is not proven: {chain}", unread.object));
    }
    keep(&session, &found);
    report::result(&verified, json)?;
    if let (true, Some(unread)) = (verified.damage.is_empty(), found.unread.into_iter().next()) {
        return Err(unread.error.into());
    }
    Ok(if verified.damage.is_empty() {
        ExitCode::SUCCESS
    } else {
        Code::Damaged.into()
    })
}

/// Keeps with each archive what was found of it. What was found is told all the same if the
/// repository cannot be written to.
fn keep(session: &Session, found: &snapkeep_repo::Report) {
    let program = concat!("snapkeep ", env!("CARGO_PKG_VERSION"));
    let time = session.clock.now().0;
    if let Err(error) = keep_verification(&session.repository, found, time, program) {
        let chain = error.chain();
        remark(&format!(
            "what was found is not kept with the archives: {chain}"
        ));
    }
}
