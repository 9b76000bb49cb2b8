//! A whole repository on the storage: archives are what was backed up, whatever happens on the way.

use std::sync::Arc;
use std::time::Duration;

use snapkeep_repo::{ErrorKind, Repository, SystemRandom, Unlock, verify};
use snapkeep_s3::Options;

use crate::support::Bucket;
use crate::support::archive::{back_up, disk, make, open, read};
use crate::support::proxy::{ALWAYS, Fault};

#[test]
fn a_backup_and_a_restore_go_through_a_storm_of_faults() {
    let Some(bucket) = Bucket::new("a_backup_and_a_restore_go_through_a_storm_of_faults") else {
        return;
    };
    let bytes = disk(100);
    let storm = || {
        for method in ["PUT", "GET", "HEAD"] {
            for fault in [
                Fault::Answer(503, "SlowDown", "slower"),
                Fault::Refuse,
                Fault::LoseReply,
                Fault::Cut(10),
                Fault::Answer(500, "InternalError", "we failed"),
            ] {
                bucket.proxy.add(method, "", 1, fault);
            }
        }
    };
    storm();
    back_up(&make(bucket.storage("a")).unwrap(), &bytes).unwrap();
    bucket.proxy.heal();
    storm();
    let repository = open(bucket.storage("a"));
    assert!(read(&repository).unwrap() == bytes);
    bucket.proxy.heal();
    let report = verify(&open(bucket.direct("a"))).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn bytes_that_were_changed_on_their_way_are_read_again_and_are_no_damage() {
    let test = "bytes_that_were_changed_on_their_way_are_read_again_and_are_no_damage";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let bytes = disk(40);
    back_up(&make(bucket.direct("a")).unwrap(), &bytes).unwrap();
    let repository = open(bucket.storage("a"));
    let flip = Fault::reply(|reply| {
        let middle = reply.body.len() / 2;
        if let Some(byte) = reply.body.get_mut(middle) {
            *byte ^= 1;
        }
    });
    bucket.proxy.add("GET", "/snapshots/", 1, flip.clone());
    bucket.proxy.add("GET", "/packs/", 1, flip.clone());
    assert!(read(&repository).unwrap() == bytes);
    // Where it never comes right, that is damage.
    bucket.proxy.heal();
    bucket.proxy.add("GET", "/packs/", ALWAYS, flip);
    let error = read(&open(bucket.storage("a"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_repository_whose_replies_are_lost_while_it_is_made_is_made_once() {
    let test = "a_repository_whose_replies_are_lost_while_it_is_made_is_made_once";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    // The second try meets what the first one has put.
    bucket.proxy.add("PUT", "/keys/", 1, Fault::LoseReply);
    bucket.proxy.add("PUT", "/config", 2, Fault::LoseReply);
    let bytes = disk(8);
    back_up(&make(bucket.storage("a")).unwrap(), &bytes).unwrap();
    assert!(read(&open(bucket.direct("a"))).unwrap() == bytes);
    // There is no second one in its place.
    let error = make(bucket.storage("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
}

#[test]
fn what_was_moved_to_an_archive_or_never_comes_whole_is_unread_and_no_damage() {
    let test = "what_was_moved_to_an_archive_or_never_comes_whole_is_unread_and_no_damage";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let bytes = disk(40);
    back_up(&make(bucket.direct("a")).unwrap(), &bytes).unwrap();
    let options = Options {
        retry_deadline: Duration::from_millis(700),
        ..bucket.options()
    };
    let cold = Fault::Answer(403, "InvalidObjectState", "it is in the archive");
    for fault in [cold, Fault::Cut(1000)] {
        let repository = open(bucket.storage_with("a", options.clone()));
        bucket.proxy.add("GET", "/packs/", ALWAYS, fault);
        let report = verify(&repository).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert!(!report.unread.is_empty());
        let error = read(&repository).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Corrupt, "{error}");
        bucket.proxy.heal();
    }
}

#[test]
fn neighbouring_chunks_come_by_one_request() {
    let Some(bucket) = Bucket::new("neighbouring_chunks_come_by_one_request") else {
        return;
    };
    let bytes = disk(64);
    back_up(&make(bucket.direct("a")).unwrap(), &bytes).unwrap();
    let repository = open(bucket.storage("a"));
    bucket.proxy.log();
    assert!(read(&repository).unwrap() == bytes);
    let packs = bucket.proxy.log();
    let packs = packs.iter().filter(|line| line.contains("/packs/")).count();
    // Four MiB in a pack of data: one read, and its header; the map's node, and its header.
    assert!(packs <= 5, "{packs}");
}

#[test]
fn a_bit_of_config_or_of_a_key_that_was_changed_on_its_way_is_no_damage() {
    let test = "a_bit_of_config_or_of_a_key_that_was_changed_on_its_way_is_no_damage";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    drop(make(bucket.direct("a")).unwrap());
    for part in ["/a/config", "/a/keys/"] {
        // The last line of config is proven by the key alone.
        for from_end in [3, 80, 150] {
            let flip = Fault::reply(move |reply| {
                let at = reply.body.len().saturating_sub(from_end);
                reply.body[at] ^= 1;
            });
            bucket.proxy.add("GET", part, 1, flip);
            drop(open(bucket.storage("a")));
            let asked = bucket.proxy.log();
            let asked = asked.iter().filter(|line| line.contains(part));
            assert_eq!(asked.count(), 2, "{part} was not read again");
            bucket.proxy.heal();
        }
        // Where it never comes right, that is damage.
        let flip = Fault::reply(|reply| reply.body[30] ^= 1);
        bucket.proxy.add("GET", part, ALWAYS, flip);
        let storage = Arc::new(bucket.storage("a"));
        let opened = Repository::open(storage, Arc::new(SystemRandom), &Unlock::Open);
        assert_eq!(opened.map(drop).unwrap_err().kind(), ErrorKind::Corrupt);
        bucket.proxy.heal();
        bucket.proxy.log();
    }
}
