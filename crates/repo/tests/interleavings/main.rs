//! Several processes in one repository at once: the real code, over a storage that lets one run at a
//! time. All orders of their operations with a bounded number of interruptions are gone through, and
//! each process is killed, or left without a reply, at each operation. Afterwards what somebody was
//! told still holds, what is listed restores byte for byte, and nothing is damaged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod explore;
mod scene;
mod turns;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use scene::{Before, Deed, Scene};

/// Who is at work at once. Archives `a…` are there, `f…` is forgotten.
fn scenes() -> Vec<Scene> {
    use Deed::{BackUp, BackUpOn, Forget, Restore, TakeBack};
    let scene =
        |name, deeds: &[Deed]| Scene::new(name, &["a1"], &["f1"], Before::Nothing, deeds).unwrap();
    vec![
        scene("two backups of the same", &[BackUp("b1"), BackUp("b2")]),
        scene(
            "two incremental backups",
            &[BackUpOn("a1", "b1"), BackUpOn("a1", "c1")],
        ),
        scene(
            "a backup of what is forgotten",
            &[BackUp("f2"), TakeBack("f1")],
        ),
        scene(
            "forgotten while it is the base",
            &[BackUpOn("a1", "a2"), Forget("a1")],
        ),
        scene("forgotten while it is read", &[Restore("a1"), Forget("a1")]),
        scene("forgotten and taken back", &[Forget("a1"), TakeBack("f1")]),
        scene(
            "a base is forgotten and taken back while it is built on",
            &[BackUpOn("a1", "a2"), Forget("a1"), TakeBack("a1")],
        ),
        scene(
            "forgotten while it is read and made again",
            &[Restore("a1"), Forget("a1"), BackUp("a2")],
        ),
    ]
}

/// The same while one of them prunes.
fn prunings() -> Vec<Scene> {
    use Before::{Marked, Nothing, TakenBack};
    use Deed::{
        BackUp, BackUpOn, Forget, ForgetAndPrune, Protect, Prune, PruneAndAsk, PruneTwice, Restore,
        TakeBack,
    };
    let scene =
        |name, before, deeds: &[Deed]| Scene::new(name, &["a1"], &["f1"], before, deeds).unwrap();
    vec![
        scene(
            "a backup of what goes, and a mark",
            Nothing,
            &[BackUp("f2"), Prune],
        ),
        scene(
            "a backup of what goes, and a sweep",
            Marked,
            &[BackUp("f2"), Prune],
        ),
        scene(
            "a backup of what goes, a mark and a sweep",
            Nothing,
            &[BackUp("f2"), PruneTwice],
        ),
        scene(
            "a backup on what goes, a mark and a sweep",
            Nothing,
            &[BackUpOn("a1", "a2"), Forget("a1"), PruneTwice],
        ),
        scene("taken back, and a mark", Nothing, &[TakeBack("f1"), Prune]),
        scene("taken back, and a sweep", Marked, &[TakeBack("f1"), Prune]),
        scene(
            "protected and forgotten, a mark and a sweep",
            Nothing,
            &[Protect("a1"), Forget("a1"), PruneTwice],
        ),
        scene(
            "read and forgotten, a mark and a sweep",
            Nothing,
            &[Restore("a1"), Forget("a1"), PruneTwice],
        ),
        scene("two sweeps", Marked, &[Prune, Prune]),
        scene(
            "taken back, and forgotten again between two sweeps",
            TakenBack,
            &[PruneAndAsk, ForgetAndPrune("f1")],
        ),
        scene(
            "a mark, and a mark and a sweep",
            Nothing,
            &[Prune, PruneTwice],
        ),
    ]
}

/// And while others copy.
fn copies() -> Vec<Scene> {
    use Before::{Copied, CopiedAndMarked, Noted};
    use Deed::{Copy, Forget, Prune, PruneTwice};
    let scene =
        |name, before, deeds: &[Deed]| Scene::new(name, &["a1"], &["f1"], before, deeds).unwrap();
    vec![
        scene(
            "a copy of what goes, and a sweep",
            CopiedAndMarked,
            &[Copy("f2"), Prune],
        ),
        scene(
            "a copy of what goes, a mark and a sweep",
            Copied,
            &[Copy("f2"), PruneTwice],
        ),
        scene(
            "a copy on what goes, a mark and a sweep",
            Copied,
            &[Copy("a2"), Forget("a1"), PruneTwice],
        ),
        scene(
            "two sweeps, and a copy of what they remove",
            CopiedAndMarked,
            &[Prune, Prune, Copy("f1")],
        )
        .with_waits(),
        scene("two copies of the same", Copied, &[Copy("a2"), Copy("a2")]),
        scene(
            "two copies of the same with notes",
            Noted,
            &[Copy("a2"), Copy("a2")],
        ),
        scene(
            "two copies of the same on what goes, a mark and a sweep",
            Copied,
            &[Copy("f2"), Copy("f2"), PruneTwice],
        ),
    ]
}

/// Some of the same where each asks for several things at once.
fn far_prunings() -> Vec<Scene> {
    use Before::{Copied, Marked, Nothing};
    use Deed::{BackUp, BackUpOn, Copy, Forget, Prune, PruneTwice, Restore};
    let scene = |name, before, deeds: &[Deed]| {
        (Scene::new(name, &["a1"], &["f1"], before, deeds).unwrap()).at_distance()
    };
    vec![
        scene(
            "far: a backup of what goes, and a sweep",
            Marked,
            &[BackUp("f2"), Prune],
        ),
        scene(
            "far: a backup of what goes, a mark and a sweep",
            Nothing,
            &[BackUp("f2"), PruneTwice],
        ),
        scene(
            "far: a backup on what goes, a mark and a sweep",
            Nothing,
            &[BackUpOn("a1", "a2"), Forget("a1"), PruneTwice],
        ),
        scene(
            "far: opened and read, a mark and a sweep",
            Nothing,
            &[Restore("a1"), PruneTwice],
        ),
        scene("far: two sweeps", Marked, &[Prune, Prune]),
        scene(
            "far: a copy of what goes, a mark and a sweep",
            Copied,
            &[Copy("f2"), PruneTwice],
        ),
    ]
}

/// What `cargo xtask model` asks for.
fn asked(what: &str) -> bool {
    std::env::var("SNAPKEEP_MODEL").is_ok_and(|words| words.split(' ').any(|word| word == what))
}

#[test]
fn no_order_of_the_real_operations_loses_anything() {
    let most = if asked("large") { 3 } else { 2 };
    let mut tried = 0;
    for scene in scenes() {
        // A third makes so many more orders.
        let most = most + 2 - scene.deeds.len();
        let orders = explore::orders(&scene, most, None);
        let faults = explore::faults(&scene, most.saturating_sub(2));
        println!("{}: {orders} orders, {faults} with a fault", scene.name);
        tried += orders + faults;
    }
    println!("interleavings: {tried} schedules, losses 0");
}

#[test]
fn no_order_of_the_real_operations_with_a_pruning_loses_anything() {
    let most: usize = if asked("large") { 2 } else { 1 };
    let scenes = Mutex::new(prunings().into_iter().chain(copies()));
    let tried = AtomicUsize::new(0);
    let work = || loop {
        let Some(scene) = scenes.lock().unwrap().next() else {
            return;
        };
        // A third makes so many more orders.
        let most = (most + 2).saturating_sub(scene.deeds.len()).max(1);
        let orders = explore::orders(&scene, most, None);
        // Of two alone, and of three where there is time for it.
        let with_faults = scene.deeds.len() == 2 || asked("large");
        let faults = if with_faults {
            explore::faults(&scene, 0)
        } else {
            0
        };
        println!("{}: {orders} orders, {faults} with a fault", scene.name);
        tried.fetch_add(orders + faults, Ordering::Relaxed);
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let tried = tried.into_inner();
    println!("interleavings: with a pruning: {tried} schedules, losses 0");
}

#[test]
fn no_order_of_the_real_operations_loses_anything_where_several_are_asked_for_at_once() {
    let mut tried = 0;
    for scene in far_prunings() {
        let orders = explore::orders(&scene, 1, None);
        println!("{}: {orders} orders", scene.name);
        tried += orders;
    }
    println!("interleavings: from far: {tried} schedules, losses 0");
}
