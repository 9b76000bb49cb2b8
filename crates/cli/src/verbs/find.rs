//! `find`: files in all archives of a container.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use snapkeep_api::ErrorKind;
use snapkeep_api::tree::{TreeNode, TreePath};
use snapkeep_walk::exclude::{Decision, Patterns};

use crate::args::container::Find;
use crate::failure::{Code, fault, usage};
use crate::report::{Listing, remark};
use crate::session::{CONTAINER, Session};
use crate::settings::Settings;
use crate::trees::{Opened, Shown, Visit, walk};

#[derive(Serialize)]
struct Match {
    archive: String,
    #[serde(flatten)]
    entry: Shown,
}

pub(super) fn run(settings: &Settings, find: &Find, json: bool) -> Result<ExitCode> {
    let patterns = || Patterns::new(&[find.pattern.as_bytes()]).map_err(|e| usage(e.chain()));
    check(find, patterns()?)?;
    let session = Session::open_to_read(settings)?;
    let names = session.archives_of(settings, &find.guest, CONTAINER)?;
    if names.is_empty() {
        let what = format!(
            "there is no archive of container {} in the namespace {}",
            find.guest, settings.namespace
        );
        return Err(fault(Code::NotFound, what));
    }
    let mut listing = Listing::start(json, &[("guest", &find.guest)], "matches")?;
    let mut damaged = false;
    for name in names {
        let archive = name.as_str().parse()?;
        let searched = Opened::of(&session, settings, archive).and_then(|opened| {
            let read_on = search(&session, &opened, patterns()?, &mut listing)?;
            opened.finish()?;
            Ok(read_on)
        });
        match searched {
            Ok(true) => {}
            Ok(false) => break,
            // It was removed since it was listed.
            Err(e) if is_gone(&e) => {}
            // One that is damaged does not hide what is in the others.
            Err(e) if Code::of(&e) == Code::Damaged => {
                damaged = true;
                remark(&format!("archive {name} is not searched to its end: {e:#}"));
            }
            Err(e) => return Err(e),
        }
    }
    listing.end()?;
    Ok(if damaged {
        Code::Damaged.into()
    } else {
        ExitCode::SUCCESS
    })
}

/// Refuses a pattern that finds nothing in any tree.
fn check(find: &Find, mut patterns: Patterns) -> Result<()> {
    if find.pattern.as_bytes().starts_with(b"!") {
        let pattern = find.pattern.display();
        let what = format!(
            "the pattern {pattern} finds nothing, it only takes back what others do: names that \
             begin with ! are found by \\{pattern}"
        );
        return Err(usage(what));
    }
    patterns
        .take_warnings()
        .pop()
        .map_or(Ok(()), |why| Err(usage(why)))
}

fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<snapkeep_api::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Tells what matches in one archive; false if nobody reads any more.
fn search(
    session: &Session,
    opened: &Opened,
    mut patterns: Patterns,
    listing: &mut Listing,
) -> Result<bool> {
    let mut inside = TreePath::root();
    let mut read_on = true;
    let mut each = |path: &TreePath, node: &TreeNode| {
        session.stop.cancel.check()?;
        let mut folder = path.clone();
        folder.pop();
        let name = path.names().next_back().unwrap_or_default();
        while !is_below(&folder, &inside) {
            inside.pop();
            patterns.leave();
        }
        if folder != inside {
            // The walk enters one folder at a time.
            patterns.enter(folder.names().next_back().unwrap_or_default());
            inside = folder;
        }
        if patterns.decide(name, node.entry.kind.is_directory()) == Decision::Excluded {
            let found = Match {
                archive: opened.name.to_string(),
                entry: Shown::new(path, &node.entry),
            };
            let line = || format!("{}  {}", found.archive, found.entry.line(true));
            read_on = listing.item(&found, line)?;
        }
        Ok(if read_on { Visit::Below } else { Visit::End })
    };
    let root = opened.reader.root()?;
    walk(&*opened.reader, &TreePath::root(), root, &mut each)?;
    Ok(read_on)
}

/// Whether a path is this folder's or below it.
fn is_below(path: &TreePath, folder: &TreePath) -> bool {
    let mut names = path.names();
    folder.names().all(|name| names.next() == Some(name))
}
