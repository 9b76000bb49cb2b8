//! `extract`: files and folders of a container's archive, into a folder.

use std::process::ExitCode;

use anyhow::Result;
use snapkeep_tree::Selection;

use crate::args::container::Extract;
use crate::extraction;
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::{Opened, typed};

pub(super) fn run(settings: &Settings, wanted: &Extract, json: bool) -> Result<ExitCode> {
    let paths = wanted.paths.iter().map(|path| typed(path));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    let (target, how) = (&wanted.to, &wanted.how);
    let idmap = extraction::id_map(&how.idmap)?;
    let session = Session::open_to_read(settings)?;
    let opened = Opened::open(&session, settings, &wanted.archive)?;
    for path in &paths {
        opened.find(path)?;
    }
    let selection = Selection::of(paths)?;
    let extracted = extraction::run(&session, settings, &opened, target, selection, idmap, how)?;
    extraction::end(opened, target, extracted, json)
}
