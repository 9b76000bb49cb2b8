//! Passphrases and keys, from files, the environment or the terminal, never from the command line.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::FlockOperation::NonBlockingLockExclusive;
use rustix::fs::{OFlags, flock};
use rustix::io::Errno;
use snapkeep_repo::{KeyFile, Unlock};
use zeroize::Zeroizing;

use crate::durable;
use crate::failure::{Code, fault, usage};
use crate::report::remark;
use crate::settings::Secret;

/// The longest secret file.
const LENGTH_MAX: u64 = 64 << 10;

/// What the user gave to open a repository with.
pub(crate) fn unlock(secret: &Secret) -> Result<Unlock> {
    let of = |path: &Path| format!("cannot use {}", path.display());
    Ok(match secret {
        Secret::RecoveryKit(path) => {
            Unlock::Recovery(read(path)?.parse().with_context(|| of(path))?)
        }
        Secret::KeyFile(path) => Unlock::KeyFile(read(path)?.parse().with_context(|| of(path))?),
        Secret::PassphraseFile(path) => Unlock::Passphrase(passphrase_in(path)?),
        Secret::Passphrase(text) => Unlock::Passphrase(text.clone()),
    })
}

/// Tells if others can read what opens the repository.
pub(crate) fn warn_of_readers(secret: &Secret) {
    let (what, path) = match secret {
        Secret::RecoveryKit(path) => ("recovery kit", path),
        Secret::KeyFile(path) => ("key file", path),
        Secret::PassphraseFile(path) => ("passphrase file", path),
        Secret::Passphrase(_) => return,
    };
    // Whoever reads it next tells if it cannot be read.
    let Ok(about) = fs::metadata(path) else {
        return;
    };
    let mode = about.mode() & 0o7777;
    if about.is_file() && mode & 0o077 != 0 {
        let path = path.display().to_string();
        remark(&format!(
            "warning: the {what} {} has the mode {mode:04o}, so others than its owner can use it: \
             give it the mode 0600, and if somebody may have read it, see `snapkeep key change`",
            path.escape_debug()
        ));
    }
}

/// The first line of a file.
pub(crate) fn passphrase_in(path: &Path) -> Result<Zeroizing<String>> {
    let text = read(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let what = format!("the passphrase in {} is empty", path.display());
        return Err(usage(what));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Asks on the terminal for the passphrase of an encrypted repository.
pub(crate) fn ask() -> Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        let what = "it is encrypted: give --passphrase-file, --key-file, --recovery-kit or SNAPKEEP_PASSPHRASE (there is no terminal to ask on)";
        return Err(fault(Code::Locked, what));
    }
    prompt("passphrase: ")
}

/// Asks on the terminal for a new passphrase, twice.
pub(crate) fn ask_new() -> Result<Zeroizing<String>> {
    if !io::stdin().is_terminal() {
        let what = "there is no terminal to ask for the new passphrase on: name a file that holds it, or a new key file";
        return Err(usage(what));
    }
    let text = prompt("new passphrase: ")?;
    if text != prompt("the same again: ")? {
        return Err(usage("the two passphrases differ"));
    }
    Ok(text)
}

fn prompt(question: &str) -> Result<Zeroizing<String>> {
    let text = rpassword::prompt_password(question).context("cannot ask for the passphrase")?;
    if text.is_empty() {
        return Err(usage("the passphrase is empty"));
    }
    Ok(Zeroizing::new(text))
}

pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    (File::open(path))
        .and_then(|file| file.take(LENGTH_MAX).read_to_string(&mut text))
        .map_err(|e| {
            let code = if e.kind() == io::ErrorKind::NotFound {
                Code::NotFound
            } else {
                Code::Locked
            };
            fault(code, format!("cannot read {}: {e}", path.display()))
        })?;
    Ok(text)
}

/// A new file for a secret that only its owner can read. Its place is taken before anything
/// depends on it; dropped before it is written, it is removed again.
pub(crate) struct NewSecret {
    path: PathBuf,
    file: File,
    kept: bool,
    left: bool,
}

impl NewSecret {
    /// An empty file that only its owner can read, and that no program holds, is what one left that
    /// was killed: it is taken over. Any other stays as it is.
    pub(crate) fn claim(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot make {}", path.display());
        let new = (File::options().write(true).create_new(true))
            .mode(0o600)
            .open(path);
        let left = new.is_err();
        let file = match new {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                left_empty(path).with_context(cannot)?.ok_or_else(|| {
                    let what = format!(
                        "{}: there is a file already, and it is not overwritten (if nothing but a \
                         killed `snapkeep init` made it, and there is no repository, it opens nothing: \
                         remove it)",
                        cannot()
                    );
                    fault(Code::Failed, what)
                })?
            }
            new => {
                let file = new.with_context(cannot)?;
                // Where there are no locks, nobody takes it over either.
                if flock(&file, NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                    let what = format!("{}: another program makes it just now", cannot());
                    return Err(fault(Code::Failed, what));
                }
                file
            }
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            kept: false,
            left,
        })
    }

    /// Whether a program that was killed had taken it before.
    pub(crate) fn was_left(&self) -> bool {
        self.left
    }

    /// Writes it, durably, and reads it back.
    pub(crate) fn write(&mut self, text: &str) -> Result<Zeroizing<String>> {
        (self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.sync_all())
            .and_then(|()| durable::sync_name(&self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        let written = read(&self.path)?;
        if written.as_str() != text {
            let what = format!("{} does not hold what was written", self.path.display());
            return Err(fault(Code::Failed, what));
        }
        Ok(written)
    }

    /// From now on something depends on it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

/// The key in a file that only its owner can read. Beside a kit that was not written it is that of an
/// `init` that was killed: it opens nothing yet, and the next one goes on with it.
pub(crate) fn left_key(path: &Path) -> Option<KeyFile> {
    let about = fs::symlink_metadata(path).ok()?;
    if !about.is_file() || about.mode() & 0o077 != 0 {
        return None;
    }
    read(path).ok()?.parse().ok()
}

/// What is at a path, held, if it is an empty file that a program left which was killed.
fn left_empty(path: &Path) -> io::Result<Option<File>> {
    let file = (File::options().write(true))
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    // A folder, a link, a pipe, or somebody else's.
    let Ok(file) = file else { return Ok(None) };
    let about = file.metadata()?;
    if !about.is_file()
        || about.mode() & 0o077 != 0
        || flock(&file, NonBlockingLockExclusive).is_err()
    {
        return Ok(None);
    }
    // Only now nobody else writes it, or removes it.
    let now = fs::symlink_metadata(path)?;
    let same = (now.dev(), now.ino()) == (about.dev(), about.ino());
    Ok((same && now.len() == 0).then_some(file))
}

impl Drop for NewSecret {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing depends on it; the failure that brought us here is the one to tell.
            drop(fs::remove_file(&self.path));
        }
    }
}
