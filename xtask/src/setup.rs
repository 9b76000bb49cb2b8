//! `cargo xtask setup`: the programs the tests need, from the distribution.
//!
//! On Debian what is missing or too old is installed, and never at the price of
//! removing a package; who may not install gets the one command to run. Elsewhere
//! it is named. It is an error when something stays missing.

mod apt;
mod backports;
mod garage;
mod moto;
mod packages;
mod qemu;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use self::packages::{FOR_BENCH, FOR_CHECKS_OF_PACKAGES, FOR_PACKAGES, FOR_S3, FOR_TESTS, Package};
use crate::shell::{capture, cargo, succeeds};

/// Installs what the tests need; with `--bench` also what the benchmark needs; with `--deb` what
/// makes and checks a package; with `--s3` real servers of S3.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure_components()?;
    match args {
        [] => for_tests(),
        [flag] if flag == "--bench" => {
            ensure_installed(FOR_TESTS.iter().chain(FOR_BENCH), "setup --bench")?;
            moto::ensure()
        }
        [flag] if flag == "--deb" => for_packages(true),
        [flag] if flag == "--s3" => {
            for_s3()?;
            garage::ensure().map(drop)
        }
        _ => bail!("the arguments are --bench, --deb and --s3, one of them"),
    }
}

/// What a verb that runs the tools calls first.
pub(crate) fn for_tests() -> Result<()> {
    ensure_installed(FOR_TESTS.iter(), "setup")?;
    moto::ensure()
}

/// What `s3` and `bench s3` call first.
pub(crate) fn for_s3() -> Result<()> {
    ensure_installed(FOR_TESTS.iter().chain(FOR_S3), "setup --s3")
}

/// A cluster's program, which is built if it is not there.
pub(crate) fn garage() -> Result<PathBuf> {
    garage::ensure()
}

/// What `deb` calls first.
pub(crate) fn for_packages(with_checks: bool) -> Result<()> {
    let checks = FOR_CHECKS_OF_PACKAGES.iter().filter(|_| with_checks);
    ensure_installed(FOR_PACKAGES.iter().chain(checks), "setup --deb")
}

/// The parts of the Rust toolchain that its smallest installation lacks; they belong
/// to whoever installed it, and not to the distribution. Root, who runs the printed
/// command, need not have a toolchain.
fn ensure_components() -> Result<()> {
    if std::env::var_os("CARGO").is_none() {
        return Ok(());
    }
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(verb, _)| !succeeds(cargo().args([verb, "--version"])))
        .map(|(_, component)| component)
        .collect();
    ensure!(
        missing.is_empty(),
        "parts of the Rust toolchain are missing: run `rustup component add {}`, then start again",
        missing.join(" ")
    );
    Ok(())
}

/// `setup` is the verb of this program, with its arguments, that does just this.
fn ensure_installed(
    needed: impl Iterator<Item = &'static Package> + Clone,
    setup: &str,
) -> Result<()> {
    let missing: Vec<&Package> = needed
        .clone()
        .filter(|package| !package.lacks().is_empty())
        .collect();
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if os_release_field(&release, "ID") == Some("debian") {
        if !is_root()? {
            println!("{}", apt::line(&missing, setup)?);
            bail!("run the line above as root, then start again");
        }
        let codename = os_release_field(&release, "VERSION_CODENAME")
            .context("/etc/os-release names no release")?;
        apt::install(&missing, codename)?;
    }
    let still: Vec<String> = needed.flat_map(Package::lacks).collect();
    ensure!(still.is_empty(), "missing: {}", still.join(", "));
    Ok(())
}

fn is_root() -> Result<bool> {
    Ok(capture(Command::new("id").arg("-u"))?.trim() == "0")
}

/// One field of os-release(5), without its quotes.
pub(crate) fn os_release_field<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == field)
        .map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::os_release_field;

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let text = "ID=debian\nVERSION_ID=\"12\"\n";
        assert_eq!(os_release_field(text, "VERSION_ID"), Some("12"));
        assert_eq!(os_release_field(text, "VERSION"), None);
    }
}
