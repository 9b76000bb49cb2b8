//! `ls`: files of a container's archive.

use anyhow::Result;

use crate::args::container::Ls;
use crate::report::Listing;
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::{Opened, Shown, Visit, typed, walk};

pub(super) fn run(settings: &Settings, ls: &Ls, json: bool) -> Result<()> {
    let path = typed(&ls.path)?;
    let session = Session::open_to_read(settings)?;
    let opened = Opened::open(&session, settings, &ls.archive)?;
    let node = opened.find(&path)?;
    let mut listing = Listing::start(json, &[("archive", opened.name.as_str())], "entries")?;
    if node.entry.kind.is_directory() {
        let cancel = &session.stop.cancel;
        walk(&*opened.reader, &path, node, &mut |path, node| {
            cancel.check()?;
            let shown = Shown::new(path, &node.entry);
            let read_on = listing.item(&shown, || shown.line(ls.long))?;
            Ok(match (read_on, ls.recursive) {
                (false, _) => Visit::End,
                (true, true) => Visit::Below,
                (true, false) => Visit::Next,
            })
        })?;
    } else {
        let shown = Shown::new(&path, &node.entry);
        listing.item(&shown, || shown.line(ls.long))?;
    }
    listing.end()?;
    opened.finish()
}
