//! `diff`: what differs in the files of two archives.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use snapkeep_tree::{Changes, Difference, Selection, compare};

use crate::args::container::Diff;
use crate::failure::Code;
use crate::report::Listing;
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::{Opened, Shown};

#[derive(Serialize)]
struct Told {
    difference: &'static str,
    #[serde(flatten)]
    entry: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<&'static str>,
}

impl Told {
    fn new(difference: Difference) -> (Self, String) {
        let whole = |difference, sign, entry: Shown| {
            let line = format!("{sign} {}", entry.line(false));
            let told = Self {
                difference,
                entry: Some(entry),
                path: None,
                changed: Vec::new(),
            };
            (told, line)
        };
        match difference {
            Difference::Added(path, entry) => whole("added", '+', Shown::new(&path, &entry)),
            Difference::Removed(path, entry) => whole("removed", '-', Shown::new(&path, &entry)),
            Difference::Changed(path, changes) => {
                let changed = words(&changes);
                let line = format!("M {path} ({})", changed.join(", "));
                let told = Self {
                    difference: "changed",
                    entry: None,
                    path: Some(path.to_string()),
                    changed,
                };
                (told, line)
            }
        }
    }
}

fn words(changes: &Changes) -> Vec<&'static str> {
    let all = [
        (changes.kind, "kind"),
        (changes.content, "content"),
        (changes.owner, "owner"),
        (changes.permissions, "permissions"),
        (changes.mtime, "time"),
        (changes.xattrs, "extended attributes"),
        (changes.flags, "inode flags"),
        (changes.target, "target"),
        (changes.device, "device"),
        (changes.links, "hard links"),
    ];
    let changed = all.into_iter().filter(|(changed, _)| *changed);
    changed.map(|(_, word)| word).collect()
}

pub(super) fn run(settings: &Settings, wanted: &Diff, json: bool) -> Result<ExitCode> {
    let session = Session::open_to_read(settings)?;
    let old = Opened::open(&session, settings, &wanted.old)?;
    let new = Opened::open(&session, settings, &wanted.new)?;
    let of = [("old", old.name.as_str()), ("new", new.name.as_str())];
    let mut listing = Listing::start(json, &of, "differences")?;
    let mut any = false;
    let mut broken = None;
    let mut tell = |difference| {
        any = true;
        let (told, line) = Told::new(difference);
        match listing.item(&told, || line) {
            Ok(true) => ControlFlow::Continue(()),
            // Whoever reads has seen enough.
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                broken = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let trees = (&*old.reader, &*new.reader);
    compare(trees, &Selection::all(), &session.stop.cancel, &mut tell)?;
    if let Some(error) = broken {
        return Err(error);
    }
    listing.end()?;
    old.finish()?;
    new.finish()?;
    Ok(if any {
        Code::Different.into()
    } else {
        ExitCode::SUCCESS
    })
}
