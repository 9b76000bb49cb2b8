//! What dpkg is told about the package, and the changelog that Debian asks for.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::commit::Commit;
use super::tree::Entry;
use crate::shell::{Scratch, capture, root};

/// The files of the package's own folder that dpkg runs or reads.
const SCRIPTS: &[(&str, u32)] = &[
    ("postinst", 0o755),
    ("prerm", 0o755),
    ("postrm", 0o755),
    ("triggers", 0o644),
];

/// The files of `DEBIAN/`.
pub(super) fn files(
    entries: &[Entry],
    version: &str,
    architecture: &str,
    depends: &str,
) -> Result<Vec<Entry>> {
    let control = template("control")?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@DEPENDS@", depends)
        .replace("@INSTALLED_SIZE@", &installed_kib(entries).to_string());
    let mut files = vec![
        Entry::text("DEBIAN/control", control),
        Entry::text("DEBIAN/md5sums", sums(entries)?),
    ];
    for (name, mode) in SCRIPTS {
        let mut script = Entry::text(&format!("DEBIAN/{name}"), template(name)?);
        script.mode = *mode;
        files.push(script);
    }
    Ok(files)
}

/// A file of `packaging/deb`.
pub(super) fn template(name: &str) -> Result<String> {
    let path = root().join("packaging/deb").join(name);
    fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
}

/// The packages that the program's libraries are in, with the oldest versions that will do.
pub(super) fn depends(program: &Path) -> Result<String> {
    let scratch = Scratch::new("shlibs")?;
    let folder = scratch.path().join("debian");
    fs::create_dir(&folder)?;
    // It only wants to know that there is a package.
    fs::write(
        folder.join("control"),
        "Source: snapkeep\n\nPackage: snapkeep\nArchitecture: any\n",
    )?;
    let told = capture(
        Command::new("dpkg-shlibdeps")
            .args(["-O", "--warnings=0"])
            .arg(program)
            .current_dir(scratch.path()),
    )?;
    let depends = told.trim().strip_prefix("shlibs:Depends=");
    let depends = depends.context("dpkg-shlibdeps names no package")?;
    ensure!(
        depends.contains("libc6 "),
        "the program needs no libc6: {depends}"
    );
    Ok(depends.to_owned())
}

/// Debian's own changelog: what changed is in the project's, this tells which commit it is.
pub(super) fn changelog(version: &str, commit: &Commit) -> Result<String> {
    let control = template("control")?;
    let maintainer = (control.lines())
        .find_map(|line| line.strip_prefix("Maintainer: "))
        .context("packaging/deb/control names no maintainer")?;
    Ok(format!(
        "snapkeep ({version}) unstable; urgency=medium\n\n  \
         * Made from the newest commit of its project; changelog.gz tells what is new.\n\n \
         -- {maintainer}  {}\n",
        commit.date
    ))
}

/// As dpkg-gencontrol counts: each file in whole KiB, each folder one.
fn installed_kib(entries: &[Entry]) -> u64 {
    let files: u64 = entries
        .iter()
        .map(|entry| (entry.bytes.len() as u64).div_ceil(1024))
        .sum();
    let folders = super::tree::folders(entries).len() as u64;
    files + folders
}

/// The list that `dpkg --verify` compares with.
fn sums(entries: &[Entry]) -> Result<String> {
    let scratch = Scratch::new("sums")?;
    let mut lines = String::new();
    for entry in entries {
        let path = scratch.path().join("file");
        fs::write(&path, &entry.bytes)?;
        let sum = capture(Command::new("md5sum").arg(&path))?;
        let sum = sum.split(' ').next().context("md5sum tells nothing")?;
        writeln!(lines, "{sum}  {}", entry.path)?;
    }
    Ok(lines)
}
