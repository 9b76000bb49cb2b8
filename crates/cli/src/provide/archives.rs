//! The storage plugin's calls about archives.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Result};
use snapkeep_bridge::StorageCall;
use snapkeep_provider::{ArchiveEntry, Catalogue, Namespace};
use snapkeep_repo::VerificationState;

use super::names;

/// Answers one of them, as docs/BRIDGE.md says.
pub(super) fn answer(
    catalogue: &Catalogue,
    namespace: &Namespace,
    call: StorageCall,
) -> Result<Value> {
    let path = |archive: &str| names::path(namespace, archive);
    match call {
        StorageCall::List { vmid, kind } => {
            let guest = vmid.map(|vmid| vmid.to_string().parse()).transpose()?;
            let listed = catalogue.list(kind, guest.as_ref())?;
            // What is damaged has no size to show; `snapkeep list` and `verify` name it.
            let archives = listed.archives.iter().filter_map(|entry| told(entry).ok());
            Ok(archives.collect())
        }
        StorageCall::Get { archive } => told(&catalogue.get(&path(&archive)?)?),
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

/// An archive; an error if Proxmox VE has no name for it, as of a guest of a plain host.
fn told(entry: &ArchiveEntry) -> Result<Value> {
    let shown = names::shown(&entry.name)?;
    let verification = entry.verification.as_ref().map(|verification| {
        let state = match verification.state {
            VerificationState::Good => "ok",
            VerificationState::Damaged => "failed",
        };
        json!({"state": state, "time": verification.time})
    });
    Ok(json!({
        "archive": shown,
        "vmid": names::guest(&shown).map(|(_, vmid)| vmid),
        "vmtype": entry.kind.as_str(),
        "ctime": entry.time.0,
        "size": entry.size,
        "notes": entry.notes.as_ref().map(|notes| BASE64_STANDARD.encode(notes)),
        "protected": u8::from(entry.protected),
        "encrypted": u8::from(entry.encrypted),
        "verification": verification,
    }))
}
