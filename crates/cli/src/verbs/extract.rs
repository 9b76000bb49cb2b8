//! `extract`: files and folders of a container's archive, into a folder.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use snapkeep_tree::Selection;

use crate::args::container::Extract;
use crate::extraction::{self, Extracted};
use crate::report::{self, Report};
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::{Opened, typed};

#[derive(Serialize)]
struct Done {
    archive: String,
    folder: String,
    #[serde(flatten)]
    extracted: Extracted,
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "extracted from {} to {}: {}",
            self.archive,
            self.folder,
            self.extracted.line()
        )]
    }
}

pub(super) fn run(settings: &Settings, wanted: &Extract, json: bool) -> Result<ExitCode> {
    let paths = wanted.paths.iter().map(|path| typed(path));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    let (target, how) = (&wanted.to, &wanted.how);
    let idmap = extraction::id_map(&how.idmap)?;
    let session = Session::open(settings)?;
    let opened = Opened::open(&session, settings, &wanted.archive)?;
    for path in &paths {
        opened.find(path)?;
    }
    let selection = Selection::of(paths)?;
    let extracted = extraction::run(&session, settings, &opened, target, selection, idmap, how)?;
    let done = Done {
        archive: opened.name.to_string(),
        folder: target.display().to_string(),
        extracted,
    };
    opened.finish()?;
    report::result(&done, json)?;
    Ok(done.extracted.code())
}
