//! `key`: what opens the repository.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use snapkeep_repo::{KeyFile, Protect, SystemRandom};

use crate::args::Key;
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
}

#[derive(Serialize)]
struct Added {
    added: Slot,
    key_file: Option<String>,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

impl Report for Keys {
    fn lines(&self) -> Vec<String> {
        let line = |slot: &Slot| format!("{}  {}", slot.name, slot.kind);
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
        } => {
            let added = add(
                &session,
                new_passphrase_file.as_deref(),
                new_key_file.as_deref(),
            )?;
            let open = list(&session)?
                .keys
                .into_iter()
                .find(|slot| slot.kind == "open");
            if let Some(open) = open {
                remark(&format!(
                    "the repository's key still lies open, as key {}: remove that one, and remember that old copies of it stay readable",
                    open.name
                ));
            }
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
    let slots = session.repository.keys()?.into_iter();
    let keys = slots.map(|(name, kind)| Slot { name, kind }).collect();
    Ok(Keys { keys })
}

fn add(session: &Session, passphrase: Option<&Path>, file: Option<&Path>) -> Result<Added> {
    if let Some(path) = file {
        let mut new = NewSecret::claim(path)?;
        let key = KeyFile::generate(&SystemRandom)?;
        new.write(&format!("{}\n", *key.to_text()))?;
        let name = session.repository.add_key(&Protect::KeyFile(key))?;
        new.keep();
        let kind = "key-file";
        let key_file = Some(path.display().to_string());
        return Ok(Added {
            added: Slot { name, kind },
            key_file,
        });
    }
    let text = match passphrase {
        Some(path) => secrets::passphrase_in(path)?,
        None => secrets::ask_new()?,
    };
    let name = session.repository.add_key(&Protect::Passphrase(text))?;
    let kind = "passphrase";
    Ok(Added {
        added: Slot { name, kind },
        key_file: None,
    })
}
