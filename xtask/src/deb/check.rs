//! What `--check` proves: lintian has nothing to say, the package is the same when it is made
//! again, and on each Debian it is installed, used, upgraded, removed and purged, and nothing of
//! it is left.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::commit::Commit;
use super::left;
use super::pack;
use super::roots::{self, Copy};
use super::tree::Parts;
use crate::shell::{Scratch, root, run as run_program, sources_of_crates};

/// A package of no use but to wait for the trigger of Proxmox VE's.
const WATCHER: &str = r#"
mkdir -p /srv/watcher/DEBIAN; cd /srv/watcher/DEBIAN
printf '%s\n' 'Package: watcher' 'Version: 1' 'Architecture: all' 'Maintainer: nobody' 'Description: waits' > control
echo 'interest-noawait pve-api-updates' > triggers
printf '%s\n' '#!/bin/sh' 'if [ "$1" = triggered ]; then echo "$2" >> /srv/triggered; fi' > postinst
chmod 755 postinst
dpkg-deb --build /srv/watcher /srv/watcher.deb; dpkg -i /srv/watcher.deb
rm -rf /srv/watcher; touch /srv/triggered
"#;

const USE: &str = r#"
snapkeep --version
for page in /usr/share/man/man1/snapkeep*.gz; do
    name=$(basename "$page" .1.gz)
    man "$name" | grep -q . || { echo "no page $name"; exit 1; }
done
man snapkeep | grep -q '/etc/snapkeep/config.toml'

. /usr/share/bash-completion/completions/snapkeep
COMP_WORDS=(snapkeep resto) COMP_CWORD=1 COMPREPLY=()
_snapkeep snapkeep resto snapkeep
[ "${COMPREPLY[*]}" = restore ] || { echo "bash completes to ${COMPREPLY[*]}"; exit 1; }
grep -q '^#compdef snapkeep' /usr/share/zsh/vendor-completions/_snapkeep
grep -q '^complete -c snapkeep' /usr/share/fish/vendor_completions.d/snapkeep.fish

mkdir -p /srv/session/files/etc /etc/snapkeep; cd /srv/session
echo hello > files/etc/motd; ln -s etc/motd files/link; head -c 3000000 /dev/urandom > files/blob
chown 7:8 files/blob; chmod 640 files/blob
printf '%s\n' 'repository = "/srv/session/repo"' 'key-file = "/srv/session/key"' > /etc/snapkeep/config.toml
snapkeep --repository repo --config /dev/null init --new-key-file key --write-recovery-kit kit
snapkeep backup container --guest box --directory files
snapkeep restore container box --to again
diff -r --no-dereference files again
[ "$(stat -c '%u %g %a' again/blob)" = '7 8 640' ]
"#;

/// The line of the unit, with what of its rights can be taken away here: the system cannot be written.
/// What it finds is kept with the archives.
const VERIFY: &str = r"
unit=/usr/lib/systemd/system/snapkeep-verify@.service
mkdir -p /run/systemd
systemd-analyze verify --man=no snapkeep-verify@config.service snapkeep-verify@config.timer
line=$(sed -n 's/^ExecStart=//p' $unit | sed 's/%I/config/')
mount --rbind / /mnt
for part in usr etc boot; do mount --bind /$part /mnt/$part; mount -o remount,ro,bind /mnt/$part; done
chroot /mnt setpriv --bounding-set -all,+dac_read_search --inh-caps -all --no-new-privs $line
snapkeep list | grep -q ', verified'
";

pub(super) fn run(
    parts: &Parts,
    version: &str,
    commit: &Commit,
    folder: &Path,
    for_users: bool,
) -> Result<()> {
    let scratch = Scratch::new("packages")?;
    let package = pack::make(parts, version, commit, folder)?;
    let again = pack::make(parts, version, commit, scratch.path())?;
    ensure!(
        fs::read(&package)? == fs::read(&again)?,
        "made again, it has other bytes"
    );
    println!("check: made again, it has the same bytes");
    if for_users {
        no_paths(&fs::read(&parts.program)?)?;
        println!("check: the program names no folder of this machine");
    }
    run_program(
        Command::new("lintian")
            .args(["--fail-on", "error,warning"])
            .arg(&package),
    )
    .context("lintian finds something")?;
    println!("check: lintian finds no error and gives no warning");

    let newer = format!("{version}+next1");
    let upgrade = pack::make(parts, &newer, commit, scratch.path())?;
    let roots = roots::kept(&folder.join("roots"))?;
    for kept in &roots {
        let release = kept.release;
        let said = on(&kept.copy()?, &package, &upgrade, &newer)
            .with_context(|| format!("on Debian {release}"))?;
        println!("check: Debian {release}: {said}");
    }
    let releases: Vec<&str> = roots.iter().map(|kept| kept.release).collect();
    println!("the package works on {}", releases.join(" and "));
    Ok(())
}

/// The whole life of a package on one system; what it was told.
fn on(copy: &Copy, package: &Path, upgrade: &Path, newer: &str) -> Result<String> {
    let take = |from: &Path, to: &str| {
        fs::copy(from, copy.place(to)).with_context(|| format!("could not copy {}", from.display()))
    };
    take(package, "/srv/first.deb")?;
    take(upgrade, "/srv/second.deb")?;
    copy.run(WATCHER)?;
    let before = left::files(copy)?;
    let mut heard = Vec::new();
    let mut hear = |what: &str| -> Result<()> {
        let count = copy.run("wc -l < /srv/triggered")?;
        let count: u32 = count.trim().parse().context("no number of triggers")?;
        ensure!(
            heard.last().is_none_or(|last| count > *last) && count > 0,
            "who waits for pve-api-updates was not told of the {what}"
        );
        heard.push(count);
        Ok(())
    };

    copy.run("apt-get install -qq --no-install-recommends /srv/first.deb")?;
    hear("installation")?;
    let version = copy.run(USE).context("what is installed does not work")?;
    copy.run(VERIFY).context("the unit's line does not work")?;
    let modules = left::modules(copy, &root().join("perl/t/lib"))?;

    copy.run("apt-get install -qq --no-install-recommends /srv/second.deb")?;
    hear("upgrade")?;
    let found = copy.run("dpkg-query -W -f '${Version}' snapkeep")?;
    ensure!(found == newer, "after the upgrade dpkg has {found}");
    copy.run("snapkeep list | grep -q '^main/ct/box/'; dpkg --verify snapkeep")?;
    copy.run("systemctl --quiet enable snapkeep-verify@config.timer")?;

    copy.run("dpkg -r snapkeep; [ ! -e /usr/bin/snapkeep ]")?;
    hear("removal")?;
    copy.run(
        "dpkg -P snapkeep; [ -e /srv/session/repo/config ] && [ -e /etc/snapkeep/config.toml ]",
    )
    .context("a purge must keep the repository and its configuration")?;
    copy.run("rm -r /srv/session /etc/snapkeep")?;
    let remains = left::since(&before, &left::files(copy)?);
    ensure!(
        remains.is_empty(),
        "left or lost after the purge: {}",
        remains.join(", ")
    );
    let version = version.lines().next().unwrap_or_default().to_owned();
    Ok(format!(
        "{version}: installed, used, {modules} Perl modules loaded, upgraded, removed, purged; nothing is left"
    ))
}

/// Fails if the program names a folder of this machine.
fn no_paths(program: &[u8]) -> Result<()> {
    let home = std::env::var("HOME").unwrap_or_default();
    let places = [
        root().display().to_string(),
        sources_of_crates()?.display().to_string(),
        format!("{home}/.rustup"),
    ];
    for place in places {
        let found = program
            .windows(place.len())
            .any(|part| part == place.as_bytes());
        ensure!(!found, "the program has {place} in it");
    }
    Ok(())
}
