//! What `cargo xtask golden` runs: `golden remake FOLDER` makes the golden repositories in an
//! empty folder, with what they restore to in `expected.json`; `golden release FOLDER` makes that of
//! a released version, with everything that it can write; `golden exhaustive` changes every
//! byte of every file of those that are kept, one at a time, and restores everything.

#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to print what it did"
)]

#[path = "../tests/support/flips.rs"]
mod flips;
#[path = "../tests/support/golden.rs"]
mod golden;
#[path = "../tests/support/released.rs"]
mod released;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flips::{Counts, Target, summary};
use golden::{Fallible, hashes, load, open_with};
use snapkeep_repo::Unlock;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["remake", folder] => remake(Path::new(folder)),
        ["release", folder] => released::make(Path::new(folder)),
        ["exhaustive"] => exhaustive(),
        _ => Err("usage: golden remake FOLDER | golden release FOLDER | golden exhaustive".into()),
    }
}

fn remake(folder: &Path) -> Fallible<()> {
    golden::make(folder)?;
    let mut expected = BTreeMap::new();
    for name in ["encrypted", "open"] {
        let unlock = match name {
            "open" => Unlock::Open,
            _ => Unlock::KeyFile(std::fs::read_to_string(folder.join("key-file"))?.parse()?),
        };
        let repository = open_with(Arc::new(load(&folder.join(name))?), &unlock)?;
        expected.insert(name, hashes(&repository)?);
    }
    let text = serde_json::to_string_pretty(&expected)? + "\n";
    std::fs::write(folder.join("expected.json"), text)?;
    println!("made the golden repositories in {}", folder.display());
    Ok(())
}

/// Every byte of every file, by as many threads as there are processors. A panic ends it.
fn exhaustive() -> Fallible<()> {
    let threads = std::thread::available_parallelism()?.get();
    let mut wrong = 0;
    for name in ["encrypted", "open"] {
        let target = Target::new(&golden::folder(), name)?;
        let found = std::thread::scope(|scope| {
            let start = |first| {
                scope.spawn({
                    let target = &target;
                    move || every(target, first, threads)
                })
            };
            let running: Vec<_> = (0..threads).map(start).collect();
            running
                .into_iter()
                .map(std::thread::ScopedJoinHandle::join)
                .collect::<Vec<_>>()
        });
        let (mut counts, mut here) = (Counts::default(), 0);
        for thread in found {
            let (found, bad) = thread.map_err(|_panic| "restoring from a changed file panicked")?;
            counts.tried += found.tried;
            counts.refused += found.refused;
            counts.without_effect += found.without_effect;
            here += bad.len();
            for line in bad.iter().take(20) {
                println!("{name}/{line}");
            }
        }
        println!("{}", summary(name, "flipped", counts, here));
        wrong += here;
    }
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{wrong} bytes were wrong").into())
    }
}

/// One thread's share: every byte whose number leaves this rest. The bit that is changed depends
/// on the place, so that all of them are.
fn every(target: &Target, first: usize, threads: usize) -> (Counts, Vec<String>) {
    let (mut counts, mut wrong) = (Counts::default(), Vec::new());
    for (file, bytes) in &target.files {
        for at in (first..bytes.len()).step_by(threads) {
            let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8);
            if let Err(why) = target.damage(file, flip, &mut counts) {
                wrong.push(format!("{file} at {at}: {why}"));
            }
        }
    }
    (counts, wrong)
}
