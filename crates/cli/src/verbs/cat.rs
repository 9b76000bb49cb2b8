//! `cat`: the content of a file of a container's archive.

use anyhow::{Context, Result};
use snapkeep_api::tree::EntryKind;

use crate::args::container::Cat;
use crate::failure::{Code, fault, usage};
use crate::report::Output;
use crate::session::Session;
use crate::settings::Settings;
use crate::trees::{Opened, typed};

/// So much is read at once, in bytes.
const STEP: u64 = 1 << 20;

pub(super) fn run(settings: &Settings, cat: &Cat, json: bool) -> Result<()> {
    if json {
        return Err(usage("cat prints the file's bytes, so --json has no place"));
    }
    let path = typed(&cat.path)?;
    let session = Session::open_to_read(settings)?;
    let opened = Opened::open(&session, settings, &cat.archive)?;
    let node = opened.resolve(&path)?;
    let EntryKind::File { size, .. } = node.entry.kind else {
        let what = format!("{path} in archive {} is no file", opened.name);
        return Err(fault(Code::Failed, what));
    };
    let mut output = Output::open();
    let mut offset = 0;
    while offset < size {
        session.stop.cancel.check()?;
        let length = STEP.min(size - offset);
        let mut buffer = vec![0; usize::try_from(length)?];
        (opened.reader.read_at(&node, offset, &mut buffer))
            .with_context(|| format!("cannot read {path} in archive {}", opened.name))?;
        if !output.write(&buffer)? {
            break;
        }
        offset += length;
    }
    output.end()?;
    opened.finish()
}
