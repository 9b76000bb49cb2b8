//! What the processes do, over and over until the time is over.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::figures::Figures;
use crate::host::{Ended, Host};
use crate::trees;

/// The archives of each guest that are kept when the others are forgotten.
const KEPT: usize = 2;

/// Fails unless it ended well.
fn good(what: &str, ended: &Ended, figures: &Figures) -> bool {
    if ended.code != 0 {
        figures.lost(format!("{what}: exit code {}: {}", ended.code, ended.said));
    }
    ended.code == 0
}

pub(crate) fn write(host: &mut Host<'_>, guest: &str, figures: &Figures) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    while !host.is_over() {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        trees::make(&host.path("tree"), number);
        let args = [
            "backup",
            "container",
            "--guest",
            guest,
            "--directory",
            "tree",
        ];
        let Some(ended) = host.run(&args) else {
            continue;
        };
        let gave_way = ["is not kept: ", "could not be proven: "];
        if ended.code == 1 && gave_way.iter().any(|why| ended.said.contains(why)) {
            figures.add("gave way", 1);
        } else if good("a backup", &ended, figures) {
            figures.made(ended.result["archive"].as_str().unwrap(), number);
        }
    }
}

pub(crate) fn prune(host: &mut Host<'_>, figures: &Figures) {
    while !host.is_over() {
        // Safety does not depend on it.
        let grace = format!("{}s", host.below(6));
        let unused = ["0", "10", "50"][usize::try_from(host.below(3)).unwrap()];
        prune_once(host, &grace, unused, figures);
    }
}

/// One pruning that may be asked to be confirmed, and is if too much is to go.
pub(crate) fn prune_once(host: &mut Host<'_>, grace: &str, unused: &str, figures: &Figures) {
    let args = [
        "prune",
        "--any-grace",
        "--grace",
        grace,
        "--max-unused",
        unused,
    ];
    let mut ended = host.run(&args);
    if ended
        .as_ref()
        .is_some_and(|e| e.said.contains("more than half"))
    {
        ended = host.run(&[&args[..], &["--confirm"]].concat());
    }
    let Some(ended) = ended else {
        return;
    };
    // Another one is at work, or has ended this one and removed its marker.
    let busy = ended.said.contains("another pruning");
    if busy || ended.code == 5 && ended.said.contains("-swept") {
        return;
    }
    if !good("a pruning", &ended, figures) {
        return;
    }
    figures.add("prunings", 1);
    let (deleted, condemned) = (&ended.result["deleted"], &ended.result["condemned"]);
    let count = |what, of: &Value, field| figures.add(what, of[field].as_u64().unwrap_or(0));
    figures.add("sweeps", u64::from(deleted.is_object()));
    count("archives removed", deleted, "archives");
    count("packs removed", deleted, "packs");
    count("bytes removed", deleted, "packs_bytes");
    count("rescued", deleted, "rescued_chunks");
    count("repacked", condemned, "repacked_chunks");
}

pub(crate) fn verify(host: &mut Host<'_>, figures: &Figures) {
    while !host.is_over() {
        verify_once(host, figures);
    }
}

pub(crate) fn verify_once(host: &mut Host<'_>, figures: &Figures) {
    let Some(ended) = host.run(&["verify"]) else {
        return;
    };
    for damage in ended.result["damage"].as_array().into_iter().flatten() {
        figures.lost(format!("a verification found {damage}"));
    }
    if good("a verification", &ended, figures) {
        figures.add("verifications", 1);
    }
}

/// An archive that is listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) archive: String,
    guest: String,
    protected: bool,
}

pub(crate) fn list(host: &mut Host<'_>, figures: &Figures) -> Option<Vec<Listed>> {
    let ended = host.run(&["list"])?;
    good("a list", &ended, figures).then(|| {
        let archives = ended.result["archives"].as_array().unwrap().iter();
        let text = |entry: &Value, field| entry[field].as_str().unwrap().to_owned();
        let listed = archives.map(|entry| Listed {
            archive: text(entry, "archive"),
            guest: text(entry, "guest"),
            protected: entry["protected"].as_bool().unwrap(),
        });
        listed.collect()
    })
}

/// Restores an archive and compares it; false if that was not done. What nobody forgets is there.
pub(crate) fn restore(host: &mut Host<'_>, archive: &str, figures: &Figures) -> bool {
    let target = host.path("restored");
    if target.exists() {
        fs::remove_dir_all(&target).unwrap();
    }
    let Some(ended) = host.run(&["restore", "container", archive, "--to", "restored"]) else {
        return false;
    };
    if !good(&format!("a restore of {archive}"), &ended, figures) {
        return false;
    }
    match trees::compare(&target, figures.number(archive)) {
        Ok(()) => figures.add("restored", 1),
        Err(why) => figures.lost(format!("{archive} is restored and is not the same: {why}")),
    }
    true
}

/// Restores all archives but the newest of each guest, then forgets them, and takes some back;
/// protects others for a while.
pub(crate) fn forget(host: &mut Host<'_>, figures: &Figures) {
    while !host.is_over() {
        let Some(listed) = list(host, figures) else {
            continue;
        };
        let mut guests: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for one in listed {
            guests.entry(one.guest.clone()).or_default().push(one);
        }
        let mut going = Vec::new();
        for mut archives in guests.into_values() {
            archives.truncate(archives.len().saturating_sub(KEPT));
            for Listed {
                archive, protected, ..
            } in archives
            {
                let (verb, chance) = if protected {
                    ("unprotect", 2)
                } else {
                    ("protect", 8)
                };
                if host.below(chance) == 0 {
                    let done = host.run(&[verb, &archive]);
                    let done = done.is_some_and(|ended| good(verb, &ended, figures));
                    figures.add("protected", u64::from(done && !protected));
                } else if !protected && restore(host, &archive, figures) {
                    going.push(archive);
                }
            }
        }
        if going.is_empty() {
            continue;
        }
        figures.doubted(&going);
        let names: Vec<&str> = going.iter().map(String::as_str).collect();
        let forgotten = host.run(&[&["forget"], &names[..]].concat());
        if !forgotten.is_some_and(|ended| good("forget", &ended, figures)) {
            continue;
        }
        figures.add("forgotten", names.len() as u64);
        figures.forgotten(&going);
        for archive in going.iter().skip(2).step_by(3) {
            take_back(host, archive, figures);
        }
    }
}

fn take_back(host: &mut Host<'_>, archive: &str, figures: &Figures) {
    let one = [archive.to_owned()];
    figures.doubted(&one);
    let Some(ended) = host.run(&["forget", "--undo", archive]) else {
        return;
    };
    let too_late = ended.said.contains("is being removed") || ended.code == 5;
    if !too_late && good("forget --undo", &ended, figures) {
        figures.add("taken back", 1);
        figures.wanted(&one);
    }
}
