//! The storage plugin's calls about archives.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};
use snapkeep_bridge::StorageCall;
use snapkeep_provider::{ArchiveEntry, Catalogue, DamagedArchive, Namespace};
use snapkeep_repo::VerificationState;

use super::names;

/// Answers one of them, as docs/BRIDGE.md says.
pub(super) fn answer(
    catalogue: &Catalogue,
    namespace: &Namespace,
    call: StorageCall,
    log: &dyn TaskLog,
) -> Result<Value> {
    let path = |archive: &str| names::path(namespace, archive);
    match call {
        StorageCall::List { vmid, kind } => {
            let guest = vmid.map(|vmid| vmid.to_string().parse()).transpose()?;
            let listed = catalogue.list(kind, guest.as_ref())?;
            // What is damaged has no size to show.
            warn(&listed.damaged, log);
            let archives = listed.archives.iter().filter_map(|entry| {
                let notes = entry.notes.as_deref().map(first_line);
                told(entry, notes).ok()
            });
            Ok(archives.collect())
        }
        StorageCall::Get { archive } => {
            let entry = catalogue.get(&path(&archive)?)?;
            told(&entry, entry.notes.as_deref())
        }
        StorageCall::SetNotes { archive, notes } => {
            let notes = String::from_utf8(notes).map_err(|_| {
                let what = format!("the notes for archive {archive} are not UTF-8");
                Error::new(ErrorKind::Invalid, what)
            })?;
            catalogue.set_notes(&path(&archive)?, &notes)?;
            Ok(Value::Null)
        }
        StorageCall::SetProtected { archive, protected } => {
            catalogue.set_protected(&path(&archive)?, protected)?;
            Ok(Value::Null)
        }
        StorageCall::Free { archive } => {
            catalogue.forget(&path(&archive)?)?;
            Ok(Value::Null)
        }
        StorageCall::Check | StorageCall::Create | StorageCall::Status => {
            let what = "the call is not about archives";
            Err(Error::new(ErrorKind::Protocol, what))
        }
    }
}

/// The list of many archives has to fit into one message: it has of each archive's notes the first
/// line, and of that so many bytes.
const NOTES_LISTED_MAX: usize = 256;
/// How many damaged archives are named.
const DAMAGED_TOLD_MAX: usize = 10;

fn first_line(notes: &str) -> &str {
    let line = notes.lines().next().unwrap_or_default();
    let most = line.len().min(NOTES_LISTED_MAX);
    let end = (0..=most).rev().find(|end| line.is_char_boundary(*end));
    &line[..end.unwrap_or_default()]
}

fn warn(damaged: &[DamagedArchive], log: &dyn TaskLog) {
    for archive in damaged.iter().take(DAMAGED_TOLD_MAX) {
        let line = format!("{} is not listed: {}", archive.name, archive.error.chain());
        log.log(Level::Warn, &line);
    }
    if let Some(more @ 1..) = damaged.len().checked_sub(DAMAGED_TOLD_MAX) {
        let line = format!("{more} more archives are damaged: `snapkeep verify` names all");
        log.log(Level::Warn, &line);
    }
}

/// An archive with these notes; an error if Proxmox VE has no name for it, as of a guest of a plain host.
fn told(entry: &ArchiveEntry, notes: Option<&str>) -> Result<Value> {
    let shown = names::shown(&entry.name)?;
    let verification = (entry.verification.as_ref()).and_then(|found| match found.state {
        VerificationState::Damaged => Some(json!({"state": "failed", "time": found.time})),
        // Proxmox VE knows no part: what a look at less found good is not told.
        VerificationState::Good => {
            (found.good_by_everything()).map(|time| json!({"state": "ok", "time": time}))
        }
    });
    Ok(json!({
        "archive": shown,
        "vmid": names::guest(&shown).map(|(_, vmid)| vmid),
        "vmtype": entry.kind.as_str(),
        "ctime": entry.time.0,
        "size": entry.size,
        "notes": notes.map(|notes| BASE64_STANDARD.encode(notes)),
        "protected": u8::from(entry.protected),
        "encrypted": u8::from(entry.encrypted),
        "verification": verification,
    }))
}
