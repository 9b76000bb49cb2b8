//! What it promises where nothing goes wrong.

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, Storage, broken_promises};
use snapkeep_s3::{Account, Budget, Options};

use crate::support::proxy::Fault;
use crate::support::{Bucket, name};

#[test]
fn a_bucket_keeps_the_promises_of_a_storage() {
    let Some(bucket) = Bucket::new("a_bucket_keeps_the_promises_of_a_storage") else {
        return;
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(broken_promises(&bucket.direct("site/a")), none);
    assert_eq!(
        broken_promises(&bucket.direct("")),
        none,
        "without a prefix"
    );
}

#[test]
fn two_repositories_in_a_bucket_never_see_each_other() {
    let Some(bucket) = Bucket::new("two_repositories_in_a_bucket_never_see_each_other") else {
        return;
    };
    let (one, other) = (bucket.direct("a"), bucket.direct("ab"));
    one.put(&name("packs/1"), b"one").unwrap();
    other.put(&name("packs/2"), b"other").unwrap();
    bucket.direct("").put(&name("packs/3"), b"third").unwrap();
    let list = |storage: &dyn Storage| {
        let mut found = Vec::new();
        let mut each = |name: &snapkeep_repo::FileName, _| {
            found.push(name.to_string());
            Ok(())
        };
        storage.list(&name("packs"), &mut each).unwrap();
        found
    };
    assert_eq!(list(&one), ["packs/1"]);
    assert_eq!(list(&other), ["packs/2"]);
    assert_eq!(list(&bucket.direct("")), ["packs/3"]);
    one.remove(&name("packs/2")).unwrap();
    assert_eq!(other.read(&name("packs/2"), 0..5).unwrap(), b"other");
}

#[test]
fn what_is_asked_is_counted_by_kind() {
    let Some(bucket) = Bucket::new("what_is_asked_is_counted_by_kind") else {
        return;
    };
    let storage = bucket.direct("a");
    storage.put(&name("x/1"), &[7; 1000]).unwrap();
    storage.read(&name("x/1"), 100..300).unwrap();
    storage.length(&name("x/1")).unwrap();
    storage.list(&name("x"), &mut |_, _| Ok(())).unwrap();
    storage.remove(&name("x/1")).unwrap();
    let usage = storage.account().usage();
    assert_eq!((usage.puts, usage.gets, usage.heads), (1, 1, 1));
    assert_eq!((usage.lists, usage.deletes), (1, 1));
    assert_eq!(usage.sent, 1000);
    assert!(usage.received >= 200, "{usage:?}");
}

#[test]
fn a_budget_that_is_reached_stops_before_the_next_request() {
    let Some(bucket) = Bucket::new("a_budget_that_is_reached_stops_before_the_next_request") else {
        return;
    };
    let budget = Budget {
        requests: Some(2),
        bytes: None,
    };
    let options = Options {
        account: Arc::new(Account::new(budget)),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    storage.put(&name("1"), b"1").unwrap();
    storage.put(&name("2"), b"2").unwrap();
    bucket.proxy.log();
    let error = storage.put(&name("3"), b"3").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("budget of 2 requests"),
        "{error}"
    );
    assert!(bucket.proxy.log().is_empty(), "nothing was asked");
}

#[test]
fn a_list_of_several_pages_is_whole() {
    let Some(bucket) = Bucket::new("a_list_of_several_pages_is_whole") else {
        return;
    };
    let storage = bucket.direct("a");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let storage = &storage;
            scope.spawn(move || {
                for number in 0..150 {
                    let file = name(&format!("x/{thread}{number:03}"));
                    storage.put(&file, b"").unwrap();
                }
            });
        }
    });
    let mut found = Vec::new();
    let mut each = |name: &snapkeep_repo::FileName, _| {
        found.push(name.clone());
        Ok(())
    };
    storage.list(&name("x"), &mut each).unwrap();
    assert_eq!(found.len(), 1200);
    assert!(found.is_sorted());
    assert!(storage.account().usage().lists >= 2);
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(bucket) = Bucket::new("a_bucket_that_is_not_there_is_named") else {
        return;
    };
    let location = format!(
        "s3://no-such-bucket/a?endpoint=http://{}",
        bucket.moto.address
    );
    let storage = snapkeep_s3::S3Storage::new(location.parse().unwrap(), bucket.options()).unwrap();
    for error in [
        storage.length(&name("config")).unwrap_err(),
        storage.read(&name("config"), 0..1).unwrap_err(),
        storage.put(&name("config"), b"x").unwrap_err(),
        storage.list(&name("x"), &mut |_, _| Ok(())).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NoStorage, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("no such bucket") && text.contains("no-such-bucket"),
            "{text}"
        );
    }
}

#[test]
fn what_is_new_is_put_once_whatever_an_endpoint_knows_of_conditions() {
    let Some(bucket) =
        Bucket::new("what_is_new_is_put_once_whatever_an_endpoint_knows_of_conditions")
    else {
        return;
    };
    let storage = bucket.storage("a");
    let refused = Fault::Answer(501, "NotImplemented", "A header you provided is not known");
    for (number, refuses) in [(1, false), (2, true)] {
        let file = name(&format!("keys/{number}"));
        bucket.proxy.heal();
        if refuses {
            bucket.proxy.add("PUT", "/keys/", 1, refused.clone());
        }
        storage.put_new(&file, b"first").unwrap();
        let error = storage.put_new(&file, b"other").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
        assert_eq!(storage.read_whole(&file, 100).unwrap(), b"first");
    }
    // Somebody puts it between the look and the put.
    let file = name("keys/3");
    bucket.proxy.heal();
    bucket.proxy.add(
        "HEAD",
        "/keys/3",
        1,
        Fault::Answer(404, "NoSuchKey", "it is not there yet"),
    );
    storage.put(&file, b"first").unwrap();
    let error = bucket.storage("a").put_new(&file, b"other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    assert_eq!(storage.read_whole(&file, 100).unwrap(), b"first");
}

#[test]
fn what_an_endpoint_can_do_is_found_out_by_trying() {
    let Some(bucket) = Bucket::new("what_an_endpoint_can_do_is_found_out_by_trying") else {
        return;
    };
    let storage = bucket.storage("a");
    let found = storage.abilities(0).unwrap();
    assert!(found.conditional_put && found.lists_at_once, "{found:?}");
    assert!(found.lists_in_order, "{found:?}");
    assert_eq!(
        (found.keeps_versions, found.locks),
        (Some(false), Some(false))
    );
    assert!(found.clock_ahead > 1_600_000_000, "{found:?}");
    // One that knows no conditions, and one that refuses them.
    let ignored = Fault::request(|request| request.set("If-None-Match", ""));
    let refused = Fault::Answer(501, "NotImplemented", "A header you provided is not known");
    for fault in [ignored, refused] {
        bucket.proxy.heal();
        // The first puts are without a condition.
        bucket
            .proxy
            .add("PUT", "/probes/", 2, Fault::request(|_| {}));
        bucket.proxy.add("PUT", "/probes/", 1, fault);
        assert!(!storage.abilities(0).unwrap().conditional_put);
    }
    let mut left = 0;
    storage
        .list(&name("probes"), &mut |_, _| {
            left += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(left, 0);
}
