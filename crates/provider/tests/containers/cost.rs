//! The bandwidth limit, and what is told while a backup goes on. Time is made up.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_api::{Clock, Level};

use super::{Host, METADATA, noise};
use crate::MemoryTree;

const MIB: u64 = 1 << 20;

fn limited(tree: &MemoryTree) -> (Host, Duration) {
    let mut host = Host::new(METADATA);
    host.limit = NonZeroU64::new(MIB);
    let before = host.clock.monotonic();
    host.keep(tree);
    // The host waits a second between two backups.
    let before = before + Duration::from_secs(1);
    let took = host.clock.monotonic().checked_sub(before).unwrap();
    (host, took)
}

#[test]
fn the_limit_holds_for_what_is_read() {
    let mut tree = MemoryTree::new();
    // It compresses to nothing, so that nearly nothing is written.
    tree.file("file", &vec![7; 20 << 20]);
    tree.sparse("hole", 1 << 40, &[]);
    let (_, took) = limited(&tree);
    assert!((19_000..=21_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn the_limit_holds_for_what_is_written_out() {
    // There is nothing to read.
    let mut tree = MemoryTree::new();
    for number in 0..300 {
        let file = tree.file(format!("{number}"), b"");
        file.xattr("user.noise", &noise(40 << 10, number));
    }
    let (host, took) = limited(&tree);
    assert!((11_000..=13_000).contains(&took.as_millis()), "{took:?}");
    assert!(host.told(Level::Info, "stored 11."));
}

#[test]
fn progress_is_told_every_few_seconds_and_to_the_observer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut host = Host::new(METADATA);
    host.limit = NonZeroU64::new(MIB);
    let read = Arc::clone(&seen);
    host.observer = Some(Arc::new(move |bytes| read.lock().unwrap().push(bytes)));
    let mut tree = MemoryTree::new();
    for number in 0..30 {
        tree.file(format!("{number:02}"), &noise(1 << 20, number));
    }
    host.keep(&tree);
    let lines = host.count(Level::Info, "files: ");
    // What waits to be stored at the end takes longer in made-up time than it would.
    assert!((5..=12).contains(&lines), "{lines}");
    assert!(host.told(Level::Info, "MiB/s), new "));
    assert!(host.told(
        Level::Info,
        "31 entries, 0 files unchanged, 30 read: 30.0 MiB"
    ));
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(30 * MIB)));
}
