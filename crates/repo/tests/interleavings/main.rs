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

use scene::{Deed, Scene};

/// Who is at work at once. Archives `a…` are there, `f…` is forgotten.
fn scenes() -> Vec<Scene> {
    use Deed::{BackUp, BackUpOn, Forget, Restore, TakeBack};
    let scene = |name, deeds: &[Deed]| Scene::new(name, &["a1"], &["f1"], deeds).unwrap();
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
