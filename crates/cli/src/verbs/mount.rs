//! `mount`: a repository, or one tree, as a read-only file system.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_mount::{Node, Options, Unmounted, Waited, mount};

use crate::args::container::Mount;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::shelf::{Shared, Shelf};
use crate::trees::Opened;

#[derive(Serialize)]
struct Done {
    /// The one archive; null is the whole repository.
    archive: Option<String>,
    folder: String,
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        let what = self.archive.as_deref().unwrap_or("the repository");
        vec![format!(
            "mounted {what} at {}: umount it, or interrupt this program, to end",
            self.folder
        )]
    }
}

pub(super) fn run(settings: &Settings, wanted: &Mount, json: bool) -> Result<()> {
    let session = Session::open_to_read(settings)?;
    let cancel = &session.stop.cancel;
    let opened = (wanted.archive.as_deref())
        .map(|archive| Opened::open(&session, settings, archive))
        .transpose()?;
    let root = if let Some(opened) = &opened {
        Node::Tree(Arc::clone(&opened.reader))
    } else {
        let log = Progress::start("", None, true, Arc::clone(&session.clock));
        let provider = session.provider(settings, Arc::new(log));
        let repository = Arc::clone(&session.repository);
        let shared = Shared::new(repository, provider, cancel.clone());
        Node::Folder(Arc::new(Shelf::new(Arc::new(shared))))
    };
    let options = Options {
        allow_other: wanted.allow_other,
        on_problem: Box::new(|path, error| {
            remark(&format!("error: {path}: {}", error.chain()));
        }),
        ..Options::default()
    };
    let target = &wanted.target;
    let mounted = mount(target, root, options)
        .with_context(|| format!("cannot mount at {}", target.display()))?;
    let done = Done {
        archive: opened.as_ref().map(|opened| opened.name.to_string()),
        folder: target.display().to_string(),
    };
    report::result(&done, json)?;
    let ended = mounted.wait(cancel)?;
    if ended == Waited::Cancelled && mounted.unmount()? == Unmounted::InUse {
        remark("somebody still uses what was mounted, and can read no further");
    }
    opened.map_or(Ok(()), Opened::finish)
}
