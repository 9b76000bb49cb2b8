//! `key`: what opens the repository.

use std::path::Path;

use anyhow::{Error, Result};
use serde::Serialize;
use snapkeep_repo::{ErrorKind, KeyFile, KeySlot, Protect, SystemRandom};

use crate::args::key::Key;
use crate::making;
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
struct Changed {
    #[serde(flatten)]
    new: Added,
    removed: String,
}

#[derive(Serialize)]
struct Written {
    recovery_kit: String,
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

impl Report for Changed {
    fn lines(&self) -> Vec<String> {
        let mut lines = self.new.lines();
        lines.push(format!("removed key {}", self.removed));
        lines
    }
}

impl Report for Written {
    fn lines(&self) -> Vec<String> {
        vec![format!("recovery kit written to {}", self.recovery_kit)]
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
            let new = Secret::of(new_passphrase_file.as_deref(), new_key_file.as_deref());
            let added = new.store(false, label.as_deref(), |protect, label| {
                Ok(session.repository.add_key(protect, label)?)
            })?;
            warn_of_open(&session)?;
            report::result(&added, json)
        }
        Key::AddHost { name, new_key_file } => {
            session.repository.may_read()?;
            let added = Secret::Host(new_key_file).store(false, Some(name), |protect, label| {
                Ok(session.repository.add_key(protect, label)?)
            })?;
            warn_of_open(&session)?;
            report::result(&added, json)
        }
        Key::Change {
            new_passphrase_file,
            new_key_file,
            label,
        } => {
            session.repository.may_read()?;
            let new = Secret::of(new_passphrase_file.as_deref(), new_key_file.as_deref());
            let mut removed = String::new();
            let added = new.store(true, label.as_deref(), |protect, label| {
                let (added, old) = session.repository.change_key(protect, label)?;
                removed = old;
                Ok(added)
            })?;
            report::result(
                &Changed {
                    new: added,
                    removed,
                },
                json,
            )
        }
        Key::RecoveryKit { write } => {
            session.repository.may_read()?;
            making::write_kit(&session.repository, NewSecret::claim(write)?)?;
            let recovery_kit = write.display().to_string();
            report::result(&Written { recovery_kit }, json)
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

/// A new secret, and where it goes or comes from.
enum Secret<'a> {
    KeyFile(&'a Path),
    /// The key file of a host that may only write.
    Host(&'a Path),
    /// In a file, or asked for.
    Passphrase(Option<&'a Path>),
}

impl<'a> Secret<'a> {
    fn of(passphrase: Option<&'a Path>, key_file: Option<&'a Path>) -> Self {
        key_file.map_or(Self::Passphrase(passphrase), Self::KeyFile)
    }

    /// Makes it, and gives it to who stores its slot. A key file is durable before it is needed, and
    /// one that `replaces` another stays whatever comes then.
    fn store(
        self,
        replaces: bool,
        label: Option<&str>,
        store: impl FnOnce(&Protect, Option<&str>) -> Result<String>,
    ) -> Result<Added> {
        type Protected = fn(KeyFile) -> Protect;
        let (path, protect, kind): (_, Protected, _) = match self {
            Self::KeyFile(path) => (path, Protect::KeyFile, "key-file"),
            Self::Host(path) => (path, Protect::Writer, "writer"),
            Self::Passphrase(path) => {
                let text = match path {
                    Some(path) => secrets::passphrase_in(path)?,
                    None => secrets::ask_new()?,
                };
                let name = store(&Protect::Passphrase(text), label)?;
                let (kind, label) = ("passphrase", label.map(str::to_owned));
                let added = New { name, kind, label };
                return Ok(Added {
                    added,
                    key_file: None,
                });
            }
        };
        let mut file = NewSecret::claim(path)?;
        let key = KeyFile::generate(&SystemRandom)?;
        file.write(&format!("{}\n", *key.to_text()))?;
        let path = path.display().to_string();
        let name = match store(&protect(key), label) {
            Ok(name) => name,
            Err(error) if replaces && !is_refused(&error) => {
                // The old key may be gone: a storage that fails does not say what it has done.
                file.keep();
                let what = format!("the key file {path} stays: it, or the old key, opens");
                return Err(error.context(what));
            }
            Err(error) => return Err(error),
        };
        file.keep();
        let label = label.map(str::to_owned);
        Ok(Added {
            added: New { name, kind, label },
            key_file: Some(path),
        })
    }
}

/// Whether nothing was written.
fn is_refused(error: &Error) -> bool {
    let refused = error.downcast_ref::<snapkeep_repo::Error>();
    refused.is_some_and(|error| error.kind() == ErrorKind::Invalid)
}
