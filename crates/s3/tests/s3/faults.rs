//! Faults of networks and servers while objects are put and read: nothing is lost, and nothing is
//! taken for damage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use snapkeep_repo::{ErrorKind, Result, Storage};
use snapkeep_s3::Options;

use crate::support::proxy::{ALWAYS, Fault, HELD};
use crate::support::{Bucket, name};

/// Bytes of which each place is known.
fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from(n / 3 % 251).unwrap())
        .collect()
}

/// A bucket with an object of a mebibyte.
fn with_object(test: &str) -> Option<(Bucket, Vec<u8>)> {
    let bucket = Bucket::new(test)?;
    let bytes = bytes(1 << 20);
    bucket.direct("a").put(&name("packs/1"), &bytes).unwrap();
    Some((bucket, bytes))
}

#[test]
fn a_put_whose_reply_is_lost_is_put_again_and_there_is_one_object() {
    let Some(bucket) =
        Bucket::new("a_put_whose_reply_is_lost_is_put_again_and_there_is_one_object")
    else {
        return;
    };
    let storage = bucket.storage("a");
    bucket.proxy.add("PUT", "packs", 2, Fault::LoseReply);
    storage.put(&name("packs/1"), b"bytes").unwrap();
    let mut found = Vec::new();
    let mut each = |name: &snapkeep_repo::FileName, length| {
        found.push((name.to_string(), length));
        Ok(())
    };
    storage.list(&name("packs"), &mut each).unwrap();
    assert_eq!(found, [("packs/1".to_owned(), 5)]);
    assert_eq!(storage.account().usage().puts, 3);
}

#[test]
fn a_busy_or_broken_endpoint_is_asked_again() {
    let Some((bucket, bytes)) = with_object("a_busy_or_broken_endpoint_is_asked_again") else {
        return;
    };
    let storage = bucket.storage("a");
    for fault in [
        Fault::Answer(500, "InternalError", "we failed"),
        Fault::Answer(503, "SlowDown", "please reduce your request rate"),
        Fault::Answer(429, "TooManyRequests", "slower"),
        Fault::Answer(400, "RequestTimeout", "your socket was idle"),
        Fault::Answer(409, "OperationAborted", "conflict"),
        Fault::Answer(502, "", ""),
        Fault::Refuse,
        Fault::Cut(0),
        Fault::Cut(100_000),
        Fault::LoseReply,
    ] {
        bucket.proxy.add("GET", "packs/1", 1, fault.clone());
        let read = storage.read(&name("packs/1"), 0..1 << 20).unwrap();
        assert!(read == bytes);
        bucket.proxy.add("PUT", "packs/2", 1, fault);
        storage.put(&name("packs/2"), &bytes).unwrap();
    }
    assert_eq!(storage.length(&name("packs/2")).unwrap(), 1 << 20);
}

#[test]
fn an_endpoint_that_stays_broken_is_given_up_at_the_deadline_and_the_error_says_so() {
    let test = "an_endpoint_that_stays_broken_is_given_up_at_the_deadline_and_the_error_says_so";
    let Some((bucket, _)) = with_object(test) else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_millis(700),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    let slow = Fault::Answer(503, "SlowDown", "please reduce your request rate");
    bucket.proxy.add("GET", "packs", ALWAYS, slow);
    let error = storage.read(&name("packs/1"), 0..10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    for word in ["a/packs/1", &bucket.name, "SlowDown", "times in"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(bucket.proxy.log().len() >= 2);
}

#[test]
fn an_endpoint_that_answers_nothing_is_given_up_at_the_deadline_and_not_a_minute_later() {
    let test =
        "an_endpoint_that_answers_nothing_is_given_up_at_the_deadline_and_not_a_minute_later";
    let Some((bucket, bytes)) = with_object(test) else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_secs(1),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    bucket
        .proxy
        .add("GET", "packs/1", ALWAYS, Fault::Hold(Some(1000)));
    bucket.proxy.add("", "", ALWAYS, Fault::Hold(None));
    let deeds: [&(dyn Fn() -> Result<()> + Sync); 5] = [
        &|| storage.read(&name("packs/1"), 0..1 << 20).map(drop),
        &|| storage.length(&name("packs/1")).map(drop),
        &|| storage.list(&name("packs"), &mut |_, _| Ok(())),
        &|| storage.put(&name("packs/2"), &bytes),
        &|| storage.remove(&name("packs/3")),
    ];
    std::thread::scope(|scope| {
        for deed in deeds {
            scope.spawn(move || {
                let error = deed().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                assert!(error.to_string().contains("tried 1 times"), "{error}");
            });
        }
    });
    let log = bucket.proxy.log();
    assert!(!log.contains(&HELD.to_owned()), "{log:?}");
}

#[test]
fn a_removal_with_a_bound_is_neither_tried_again_nor_waited_for_after_it() {
    let test = "a_removal_with_a_bound_is_neither_tried_again_nor_waited_for_after_it";
    let Some((bucket, _)) = with_object(test) else {
        return;
    };
    // Without the bound this would take ten minutes.
    let (storage, most) = (bucket.storage("a"), Duration::from_secs(1));
    storage.length(&name("packs/1")).unwrap();
    let busy = Fault::Answer(503, "SlowDown", "later");
    bucket.proxy.add("DELETE", "packs", ALWAYS, busy);
    let error = storage.remove_within(&name("packs/1"), most).unwrap();
    let error = error.expect("it was not removed");
    assert!(error.to_string().contains("SlowDown"), "{error}");
    assert!(bucket.proxy.log().len() >= 3);
    bucket.proxy.heal();
    // A reply that does not come before the test has ended.
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let hangs = Fault::reply(move |_| assert!(waits.lock().unwrap().recv().is_err()));
    bucket.proxy.add("DELETE", "packs", ALWAYS, hangs);
    let error = storage.remove_within(&name("packs/1"), most).unwrap();
    let error = error.expect("nobody said that it was removed");
    assert!(error.to_string().contains("has passed"), "{error}");
    assert_eq!(bucket.proxy.log().len(), 1);
    drop(done);
    bucket.proxy.heal();
    assert!(
        storage
            .remove_within(&name("packs/1"), most)
            .unwrap()
            .is_none()
    );
    assert_eq!(
        storage.length(&name("packs/1")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_deadline_does_not_keep_a_cancelled_run() {
    let Some((bucket, _)) = with_object("a_deadline_does_not_keep_a_cancelled_run") else {
        return;
    };
    // The end is wanted once the endpoint has failed.
    let polls = Arc::new(AtomicU32::new(0));
    let options = Options {
        cancelled: Arc::new(move || polls.fetch_add(1, Ordering::SeqCst) > 3),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    bucket.proxy.add("HEAD", "packs", ALWAYS, Fault::Refuse);
    let error = storage.length(&name("packs/1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_reply_that_is_not_what_was_asked_for_is_never_believed() {
    let test = "a_reply_that_is_not_what_was_asked_for_is_never_believed";
    let Some((bucket, bytes)) = with_object(test) else {
        return;
    };
    let storage = bucket.storage("a");
    let shifted = Fault::request(|request| request.set("Range", "bytes=1001-300000"));
    let shorter = Fault::request(|request| request.set("Range", "bytes=1000-299999"));
    let whole = Fault::request(|request| request.set("Range", ""));
    let cut = Fault::reply(|reply| reply.body.truncate(1000));
    let longer = Fault::reply(|reply| reply.body.extend([0; 10]));
    let unnamed = Fault::reply(|reply| reply.set("Content-Range", ""));
    let empty = Fault::reply(|reply| {
        reply.line = "HTTP/1.1 200 OK".to_owned();
        reply.body.clear();
    });
    for fault in [shifted, shorter, whole, cut, longer, unnamed, empty] {
        bucket.proxy.add("GET", "packs/1", 1, fault);
        let read = storage.read(&name("packs/1"), 1000..300_001).unwrap();
        assert!(read == bytes[1000..300_001]);
    }
}

#[test]
fn an_endpoint_that_gets_ranges_wrong_is_read_without_them() {
    let Some((bucket, bytes)) =
        with_object("an_endpoint_that_gets_ranges_wrong_is_read_without_them")
    else {
        return;
    };
    let storage = bucket.storage("a");
    let shifted = Fault::request(|request| {
        if request.header("range").is_some() {
            request.set("Range", "bytes=5-10");
        }
    });
    bucket.proxy.add("GET", "packs/1", ALWAYS, shifted);
    let read = storage.read(&name("packs/1"), 1000..300_001).unwrap();
    assert!(read == bytes[1000..300_001]);
}

#[test]
fn truncated_replies_without_end_are_an_error_of_the_fetch_and_no_damage() {
    let test = "truncated_replies_without_end_are_an_error_of_the_fetch_and_no_damage";
    let Some((bucket, _)) = with_object(test) else {
        return;
    };
    let storage = bucket.storage("a");
    let cut = Fault::reply(|reply| reply.body.truncate(7));
    bucket.proxy.add("GET", "packs/1", ALWAYS, cut);
    for error in [
        storage.read(&name("packs/1"), 1000..300_001).unwrap_err(),
        storage.read_whole(&name("packs/1"), 1 << 20).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
}

#[test]
fn an_object_that_seems_shorter_is_asked_for_once_more_before_it_is_called_damaged() {
    let test = "an_object_that_seems_shorter_is_asked_for_once_more_before_it_is_called_damaged";
    let Some((bucket, bytes)) = with_object(test) else {
        return;
    };
    let storage = bucket.storage("a");
    let clamped = Fault::reply(|reply| {
        reply.set("Content-Range", "bytes 0-9/10");
        reply.body.truncate(10);
    });
    bucket.proxy.add("GET", "packs/1", 1, clamped);
    assert!(storage.read(&name("packs/1"), 0..100).unwrap() == bytes[..100]);
    let past = Fault::Answer(416, "InvalidRange", "not satisfiable");
    bucket.proxy.add("GET", "packs/1", 1, past);
    assert!(storage.read(&name("packs/1"), 5..100).unwrap() == bytes[5..100]);
    let error = storage
        .read(&name("packs/1"), 0..(1 << 20) + 1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "it is shorter");
}

#[test]
fn an_object_just_put_that_is_not_seen_yet_is_waited_for() {
    let Some(bucket) = Bucket::new("an_object_just_put_that_is_not_seen_yet_is_waited_for") else {
        return;
    };
    let storage = bucket.storage("a");
    storage.put(&name("packs/1"), b"bytes").unwrap();
    let gone = Fault::Answer(404, "NoSuchKey", "no such key");
    bucket.proxy.add("GET", "packs/1", 2, gone.clone());
    bucket.proxy.add("HEAD", "packs/1", 2, gone.clone());
    assert_eq!(storage.read(&name("packs/1"), 0..5).unwrap(), b"bytes");
    assert_eq!(storage.length(&name("packs/1")).unwrap(), 5);
    // Of what others put, nothing is known.
    bucket.proxy.add("GET", "packs/1", 1, gone);
    let error = bucket
        .storage("a")
        .read(&name("packs/1"), 0..5)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
