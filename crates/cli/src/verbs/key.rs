//! `key`: what opens the repository.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use snapkeep_repo::{KeyFile, KeySlot, Protect, SystemRandom};

use crate::args::key::Key;
use crate::report::{self, Report, remark};
use crate::secrets::{self, NewSecret};
use crate::session::Session;
use crate::settings::Settings;

#[derive(Serialize)]
struct Keys {
    keys: Vec<Slot>,
}

#[derive(Serialize)]
struct Slot {
    name: String,
    kind: &'static str,
    /// Whose it is.
    label: Option<String>,
    /// Whether it opened the repository now.
    used: bool,
    /// What somebody without a key did to it.
    doubt: Option<&'static str>,
}

#[derive(Serialize)]
struct New {
    name: String,
    kind: &'static str,
    label: Option<String>,
}

#[derive(Serialize)]
struct Added {
    added: New,
    key_file: Option<String>,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

impl Report for Keys {
    fn lines(&self) -> Vec<String> {
        let line = |slot: &Slot| {
            let mut line = format!("{}  {}", slot.name, slot.kind);
            let label = slot.label.as_ref().map(|label| format!("  {label}"));
            line.extend(label);
            line.push_str(if slot.used { "  (in use)" } else { "" });
            line.extend(slot.doubt.map(|doubt| format!("  ({doubt})")));
            line
        };
        self.keys.iter().map(line).collect()
    }
}

impl Report for Added {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "added key {} ({})",
            self.added.name, self.added.kind
        )];
        lines.extend((self.key_file.iter()).map(|path| format!("key file written to {path}")));
        lines
    }
}

impl Report for Removed {
    fn lines(&self) -> Vec<String> {
        vec![format!("removed key {}", self.removed)]
    }
}

pub(super) fn run(settings: &Settings, key: &Key, json: bool) -> Result<()> {
    let session = Session::open(settings)?;
    match key {
        Key::List => report::result(&list(&session)?, json),
        Key::Add {
            new_passphrase_file,
            new_key_file,
            label,
        } => {
            // Before a new passphrase is asked for.
            session.repository.may_read()?;
            let label = label.as_deref();
            let added = match new_key_file {
                Some(path) => add_file(&session, path, Protect::KeyFile, "key-file", label)?,
                None => add_passphrase(&session, new_passphrase_file.as_deref(), label)?,
            };
            warn_of_open(&session)?;
            report::result(&added, json)
        }
        Key::AddHost { name, new_key_file } => {
            session.repository.may_read()?;
            let added = add_file(
                &session,
                new_key_file,
                Protect::Writer,
                "writer",
                Some(name),
            )?;
            warn_of_open(&session)?;
            report::result(&added, json)
        }
        Key::Remove { name } => {
            session.repository.remove_key(name)?;
            let removed = name.clone();
            report::result(&Removed { removed }, json)
        }
    }
}

fn list(session: &Session) -> Result<Keys> {
    let told = |slot: KeySlot| Slot {
        name: slot.name,
        kind: slot.kind,
        label: slot.label,
        used: slot.used,
        doubt: slot.doubt,
    };
    let keys = session.repository.keys()?.into_iter().map(told).collect();
    Ok(Keys { keys })
}

/// What is sealed is no secret while the key lies beside it.
fn warn_of_open(session: &Session) -> Result<()> {
    let keys = session.repository.keys()?;
    let open = (keys.iter()).find(|slot| slot.kind == "open" && slot.doubt.is_none());
    if let Some(open) = open {
        remark(&format!(
            "the repository's key still lies open, as key {}: remove that one, and remember that old copies of it stay readable",
            open.name
        ));
    }
    Ok(())
}

fn add_file(
    session: &Session,
    path: &Path,
    protect: fn(KeyFile) -> Protect,
    kind: &'static str,
    label: Option<&str>,
) -> Result<Added> {
    let mut new = NewSecret::claim(path)?;
    let key = KeyFile::generate(&SystemRandom)?;
    new.write(&format!("{}\n", *key.to_text()))?;
    let name = session.repository.add_key(&protect(key), label)?;
    new.keep();
    let label = label.map(str::to_owned);
    Ok(Added {
        added: New { name, kind, label },
        key_file: Some(path.display().to_string()),
    })
}

fn add_passphrase(session: &Session, file: Option<&Path>, label: Option<&str>) -> Result<Added> {
    let text = match file {
        Some(path) => secrets::passphrase_in(path)?,
        None => secrets::ask_new()?,
    };
    let name = (session.repository).add_key(&Protect::Passphrase(text), label)?;
    let (kind, label) = ("passphrase", label.map(str::to_owned));
    Ok(Added {
        added: New { name, kind, label },
        key_file: None,
    })
}
