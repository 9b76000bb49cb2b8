//! Prunings that may each ask so much of the storage and no more: what one has copied the next need
//! not copy, and so they come to an end.

mod support;

use std::sync::Arc;

use snapkeep_repo::{FaultPoint, Faulty, PruneOptions, PruneReport, Result, limits, prune};

use support::pruning::{DAY, World, options};
use support::tree::noise;
use support::{CHUNK, disk};

/// Chunks that fill a pack.
const IN_A_PACK: usize = limits::PACK_TARGET / CHUNK;

/// Prunes; what came of it, and how much was asked of the storage.
fn asked(world: &World, dry_run: bool, point: FaultPoint) -> (Result<PruneReport>, u64) {
    let storage = Arc::new(Faulty::new(world.storage(), point));
    let options = PruneOptions {
        dry_run,
        ..options()
    };
    let opened = world.open_on(Arc::clone(&storage) as _);
    let found = opened.and_then(|repository| prune(&repository, &options));
    (found, storage.count())
}

#[test]
fn prunings_that_are_cut_off_by_a_budget_come_to_an_end() {
    let mut world = World::new();
    // Packs of which a part is needed, enough that what is copied fills some.
    let first = noise(1, 5 * IN_A_PACK * CHUNK);
    world.back_up("1", &first);
    let mut second = first;
    for (number, chunk) in second.chunks_mut(CHUNK).enumerate() {
        if number % 3 == 0 {
            chunk.fill(u8::try_from(number % 251).unwrap());
        }
    }
    world.back_up("2", &second);
    drop(second);
    world.forget("1");
    world.pass(3 * DAY);

    let (found, looking) = asked(&world, true, FaultPoint::Never);
    let all = found.unwrap().marked.unwrap().repacked.number;
    let a_pack = u64::try_from(IN_A_PACK).unwrap();
    assert!(all > 3 * a_pack, "{all}");
    let mut copied = 0;
    for run in 0.. {
        assert!(run < 8, "they come to no end");
        let stored = world.files("packs").len();
        // A chunk that is copied is read, and with it the key of its pack at times.
        let (found, _) = asked(
            &world,
            false,
            FaultPoint::Before(looking + 2 * a_pack + 100),
        );
        match found {
            Ok(report) => {
                copied += report.marked.unwrap().repacked.number;
                break;
            }
            Err(error) => assert!(error.chain().contains("at operation"), "{}", error.chain()),
        }
        copied += a_pack * u64::try_from(world.files("packs").len() - stored).unwrap();
    }
    assert!(copied < all + 2 * a_pack, "{copied} of {all}");
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), [] as [String; 0]);
}

#[test]
fn sweeps_that_are_cut_off_by_a_budget_come_to_an_end() {
    let mut world = World::new();
    for number in 0..30u8 {
        world.back_up(&number.to_string(), &disk(number, 3));
    }
    for number in 1..30u8 {
        world.forget(&number.to_string());
    }
    world.pass(3 * DAY);
    world.prune().unwrap();
    world.pass(2 * DAY);
    let (_, whole) = asked(&world.fork(), false, FaultPoint::Never);
    let packs = |world: &World| world.files("packs").len();
    let mut left = packs(&world);
    for run in 0.. {
        assert!(run < 6, "they come to no end: {left} packs are left");
        // Of a whole one more than half is spent before anything is deleted.
        let (found, _) = asked(&world, false, FaultPoint::Before(whole * 2 / 3));
        left = packs(&world);
        if found.is_ok_and(|report| report.waiting.is_none()) {
            break;
        }
        world.pass(DAY);
    }
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), [] as [String; 0]);
}

#[test]
fn an_archive_that_could_not_be_read_for_now_is_not_to_be_forgotten() {
    let world = World::with_history();
    let (_, whole) = asked(&world, true, FaultPoint::Never);
    let mut unread = 0;
    for point in 0..whole {
        let (found, _) = asked(&world, true, FaultPoint::Before(point));
        let said = found.expect_err("it failed").chain();
        assert!(!said.contains("forget it"), "{said}");
        unread += u64::from(said.contains("could not be read now: prune again"));
    }
    assert!(unread > 3, "{unread}");
}
