//! The program in many processes on one repository in a bucket: eight hosts back up different
//! guests, two prune, one verifies everything, one restores, forgets, protects and takes back, all
//! over and over; some are killed at random moments, and all in the end. Then what somebody was told
//! of is there, and all that is listed is restored and is the same byte for byte.
//!
//! `SNAPKEEP_STRESS_SECONDS` says for how long, `SNAPKEEP_STRESS_S3` on which server; `cargo xtask
//! stress --s3` sets the first.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod figures;
mod host;
#[path = "../../../s3/tests/s3/support/moto.rs"]
mod moto;
mod place;
mod roles;
#[path = "../../../s3/tests/s3/support/sign.rs"]
mod sign;
mod trees;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use figures::Figures;
use host::Host;
use place::Place;

const WRITERS: usize = 8;
const PRUNERS: usize = 2;
/// Hosts that restore in the end.
const READERS: usize = 4;
const SECONDS: u64 = 15;

#[test]
fn what_many_processes_of_the_program_told_of_is_there_while_two_prune() {
    let test = "what_many_processes_of_the_program_told_of_is_there_while_two_prune";
    let Some(place) = Place::new(test) else {
        return;
    };
    let seconds = std::env::var("SNAPKEEP_STRESS_SECONDS").map(|text| text.parse().unwrap());
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let figures = Figures::default();
    let host = |name: &str, end| Host::new(folder.path(), name, &place, &figures, end);
    let kit = ["--new-key-file", "../key", "--write-recovery-kit", "kit"];
    let made = host("owner", None).init(&kit);
    assert_eq!(made.code, 0, "{made:?}");

    let began = Instant::now();
    let end = Some(began + Duration::from_secs(seconds.unwrap_or(SECONDS)));
    std::thread::scope(|scope| {
        let (host, figures) = (&host, &figures);
        for number in 0..WRITERS {
            scope.spawn(move || {
                let guest = format!("guest-{number}");
                roles::write(&mut host(&guest, end), &guest, figures);
            });
        }
        for number in 0..PRUNERS {
            let name = format!("pruner-{number}");
            scope.spawn(move || roles::prune(&mut host(&name, end), figures));
        }
        scope.spawn(move || roles::verify(&mut host("verifier", end), figures));
        scope.spawn(move || roles::forget(&mut host("forgetter", end), figures));
    });
    let took = began.elapsed();

    // What was condemned goes, and what was killed is tidied up.
    let mut last = host("last", None);
    for _ in 0..3 {
        roles::prune_once(&mut last, "0s", "0", &figures);
    }
    roles::verify_once(&mut last, &figures);
    let listed = roles::list(&mut last, &figures).unwrap_or_default();
    let listed: BTreeSet<String> = listed.into_iter().map(|one| one.archive).collect();
    let (wanted, forgotten) = {
        let told = figures.told();
        (told.wanted.clone(), told.forgotten.clone())
    };
    for archive in wanted.difference(&listed) {
        figures.lost(format!("{archive} is lost"));
    }
    for archive in forgotten.intersection(&listed) {
        figures.lost(format!("{archive} was forgotten and is there again"));
    }
    let left = Mutex::new(listed.into_iter());
    std::thread::scope(|scope| {
        for number in 0..READERS {
            let (left, host, figures) = (&left, &host, &figures);
            scope.spawn(move || {
                let mut host = host(&format!("reader-{number}"), None);
                let next = || left.lock().unwrap().next();
                while let Some(archive) = next() {
                    roles::restore(&mut host, &archive, figures);
                }
            });
        }
    });
    println!("stress: S3: {} seconds", took.as_secs());
    for line in figures.lines() {
        println!("{line}");
    }
    let told = figures.told();
    assert!(told.losses.is_empty(), "{:#?}", told.losses);
    let packs = told.counts.get("packs removed");
    assert!(!told.made.is_empty() && packs.is_some_and(|packs| *packs > 0));
}
