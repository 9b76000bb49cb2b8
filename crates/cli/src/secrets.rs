//! Passphrases and keys, from files or the terminal, never from the command line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use snapkeep_repo::{Protect, Unlock};
use zeroize::Zeroizing;

use crate::args::Args;

/// What the user gave to open a repository with; asks on the terminal if nothing was given.
pub(crate) fn unlock(args: &Args) -> Result<Unlock> {
    if let Some(path) = &args.recovery_kit {
        return Ok(Unlock::Recovery(read(path)?.parse()?));
    }
    if let Some(path) = &args.key_file {
        let key = read(path)?.parse();
        return Ok(Unlock::KeyFile(
            key.with_context(|| path.display().to_string())?,
        ));
    }
    Ok(Unlock::Passphrase(passphrase(args)?))
}

/// What a new repository is protected with: the passphrase.
pub(crate) fn protect(args: &Args) -> Result<Protect> {
    Ok(Protect::Passphrase(passphrase(args)?))
}

fn passphrase(args: &Args) -> Result<Zeroizing<String>> {
    let text = match &args.passphrase_file {
        Some(path) => read(path)?,
        None => Zeroizing::new(rpassword::prompt_password("passphrase: ").context(
            "no passphrase file and no key file was given, and there is no terminal to ask on",
        )?),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.is_empty() {
        bail!("the passphrase is empty");
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn read(path: &Path) -> Result<Zeroizing<String>> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a secret to a new file that only its owner can read.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = (fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path))
    .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}
