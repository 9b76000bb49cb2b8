//! `restore container --lxc`: a new container of LXC.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::IdMap;
use snapkeep_host::container::{RestorePolicy, new_container, restored_config};
use snapkeep_tree::Selection;

use crate::args::container::{LXC_PATH, RestoreContainer};
use crate::extraction::{self, Extracted};
use crate::report::{self, Report, remark};
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::Opened;

#[derive(Serialize)]
struct Done {
    archive: String,
    container: String,
    /// What of the archived configuration was left out.
    dropped: Vec<String>,
    /// The bridges of this machine that the archived configuration chose.
    links: Vec<String>,
    left_out: u64,
    #[serde(flatten)]
    extracted: Extracted,
}

impl Report for Done {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "restored {} as the container {}: {}",
            self.archive,
            self.container,
            self.extracted.line()
        )]
    }
}

pub(super) fn run(
    session: &Session,
    settings: &Settings,
    opened: Opened,
    wanted: &RestoreContainer,
    name: &str,
    idmap: Option<IdMap>,
    json: bool,
) -> Result<ExitCode> {
    let path = wanted.lxc_path.as_deref().unwrap_or(Path::new(LXC_PATH));
    let path = std::path::absolute(path).with_context(|| format!("{}", path.display()))?;
    let policy = RestorePolicy {
        name: name.to_owned(),
        rootfs: path.join(name).join("rootfs"),
        idmap,
        allow_privileged: wanted.allow_privileged,
        allow_unsafe: wanted.allow_unsafe,
    };
    let config = restored_config(&opened.guest_config, &policy)
        .with_context(|| format!("archive {} cannot become a container", opened.name))?;
    for line in &config.dropped {
        remark(&format!("warning: left out of the configuration: {line}"));
    }
    for line in &config.links {
        remark(&format!(
            "the archive chose a bridge of this machine: {line}"
        ));
    }
    let new = new_container(&path, name, config.idmap.as_ref())?;
    let (all, how) = (Selection::all(), &wanted.how);
    let rootfs = new.rootfs();
    let done = extraction::run(session, settings, &opened, &rootfs, all, config.idmap, how);
    let extracted = match done {
        Ok(extracted) => extracted,
        Err(e) => {
            if let Err(left) = new.discard() {
                remark(&format!("warning: {}", left.chain()));
            }
            return Err(e);
        }
    };
    new.finish(&config.text)?;
    let done = Done {
        archive: opened.name.to_string(),
        container: name.to_owned(),
        dropped: config.dropped,
        links: config.links,
        left_out: opened.left_out,
        extracted,
    };
    opened.tell_left_out();
    opened.finish()?;
    report::result(&done, json)?;
    Ok(done.extracted.code())
}
