//! Locks that are renewed, and versions that are removed: with faults on the way, and beside others.

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, FileName, Storage};

use crate::locks::{in_year, listed, retention, until};
use crate::support::archive::{back_up, disk, make, open, read};
use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

/// The requests for packs in what the proxy saw.
fn of_packs(bucket: &Bucket, method: &str) -> usize {
    let seen = bucket.proxy.log();
    let of_packs = |line: &&String| line.starts_with(method) && line.contains("/packs/");
    seen.iter().filter(of_packs).count()
}

#[test]
fn many_locks_are_renewed_by_two_requests_each_and_tried_again() {
    let Some(bucket) =
        Bucket::with_locks("many_locks_are_renewed_by_two_requests_each_and_tried_again")
    else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    for number in 0..60 {
        let file = name(&format!("packs/ab/{number}"));
        storage.put(&file, b"bytes").unwrap();
    }
    in_year(&bucket, 2100);
    let busy = Fault::Answer(503, "SlowDown", "reduce your request rate");
    bucket.proxy.add_first("PUT", "retention", 3, busy.clone());
    bucket.proxy.add_first("HEAD", "/packs/", 3, busy);
    bucket.proxy.log();
    let done = storage.extend_locks(&|_| true, false).unwrap();
    // The configuration and the feature are the other two.
    assert_eq!((done.looked, done.extended), (62, 62), "{done:?}");
    let seen = bucket.proxy.log();
    let of = |method: &str| seen.iter().filter(|line| line.starts_with(method)).count();
    assert_eq!(of("PUT"), 62 + 3);
    // Whether it was done is looked at once, or by all that were at work just then.
    assert!(
        (62 + 4..=62 + 3 + 17).contains(&of("HEAD")),
        "{}",
        of("HEAD")
    );
    for number in 0..60 {
        let until = until(&bucket, &format!("a/packs/ab/{number}"));
        assert!(until.starts_with("2100-04-11T00:"), "{until}");
    }
    let told = done.until.unwrap();
    assert!((4_111_084_800..4_111_088_400).contains(&told), "{told}");
    bucket.proxy.log();
    storage.extend_locks(&|_| true, false).unwrap();
    assert_eq!(of_packs(&bucket, "PUT"), 0);
}

#[test]
fn a_storage_that_says_it_renewed_and_did_not_is_found_out() {
    let test = "a_storage_that_says_it_renewed_and_did_not_is_found_out";
    let Some(bucket) = Bucket::lenient_with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    in_year(&bucket, 2100);
    // The server sees a question, and its answer is taken for a yes.
    let line = format!("GET /{}?versioning HTTP/1.1", bucket.name);
    let lied = Fault::Both(
        Arc::new(move |request| line.clone_into(&mut request.line)),
        Arc::new(|reply| reply.body.clear()),
    );
    (bucket.proxy).add_first("PUT", "retention", ALWAYS, lied);
    let error = storage.extend_locks(&|_| true, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    for word in ["a/config", "its lock is as it was"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_renewal_that_is_refused_for_good_is_an_error_and_no_other_is_begun() {
    let test = "a_renewal_that_is_refused_for_good_is_an_error_and_no_other_is_begun";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    for number in 0..60 {
        let file = name(&format!("packs/ab/{number}"));
        storage.put(&file, b"bytes").unwrap();
    }
    in_year(&bucket, 2100);
    let denied = Fault::Answer(403, "AccessDenied", "Access Denied");
    bucket.proxy.add_first("PUT", "/packs/", ALWAYS, denied);
    bucket.proxy.log();
    let error = storage.extend_locks(&|_| true, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(
        error.to_string().contains("s3:PutObjectRetention"),
        "{error}"
    );
    assert!(of_packs(&bucket, "PUT") <= snapkeep_s3::limits::LOCK_THREADS);
}

#[test]
fn what_others_hid_in_the_bucket_is_never_removed_for_good() {
    let test = "what_others_hid_in_the_bucket_is_never_removed_for_good";
    let Some(bucket) = Bucket::lenient_with_locks(test) else {
        return;
    };
    // The whole bucket is one repository's, in which another one and other programs are.
    let (whole, within) = (bucket.storage(""), bucket.direct("b"));
    whole.lock_with(retention(30)).unwrap();
    let ended = "x-amz-object-lock-mode: GOVERNANCE\r\n\
                 x-amz-object-lock-retain-until-date: 2020-01-01T00:00:00Z\r\nContent-MD5: x\r\n";
    let put = |key: &str| {
        let line = format!("PUT /{}/{key}", bucket.name);
        assert!(bucket.moto.ask(&line, ended, b"bytes").contains("200 "));
        let line = format!("DELETE /{}/{key}", bucket.name);
        assert!(bucket.moto.ask(&line, "", b"").contains("204 "));
    };
    for key in ["b/packs/1", "photos/1", "features/compatible-x", "packs/1"] {
        put(key);
    }
    in_year(&bucket, 2100);
    // Of the probe that tried the lock the server still keeps the version.
    let kept = Fault::Answer(403, "AccessDenied", "protected by object lock");
    bucket.proxy.add_first("DELETE", "/probes/", ALWAYS, kept);
    let purged = whole.purge(false).unwrap();
    assert_eq!((purged.removed, purged.locked), (1, 1), "{purged:?}");
    let left = |prefix: &str| {
        let text = bucket.ask("GET", &format!("?versions&prefix={prefix}"));
        text.matches("<VersionId>").count()
    };
    assert_eq!(left("packs/"), 0);
    for prefix in ["b/packs/1", "photos/1", "features/compatible-x"] {
        assert_eq!(left(prefix), 2, "{prefix}");
    }
    assert!(listed(&within, "packs").is_empty());
}

#[test]
fn a_list_of_versions_in_no_order_frees_nothing_more() {
    let Some(bucket) = Bucket::with_locks("a_list_of_versions_in_no_order_frees_nothing_more")
    else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    // A page with the mark of an object, and then one with an object before it.
    let page = |key: &str, next: &str| {
        let text = format!(
            "<ListVersionsResult>{next}<DeleteMarker><Key>a/packs/{key}</Key><VersionId>m</VersionId>\
             <IsLatest>true</IsLatest><LastModified>2020-01-01T00:00:00Z</LastModified></DeleteMarker>\
             </ListVersionsResult>"
        );
        Fault::reply(move |reply| reply.body = text.clone().into_bytes())
    };
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
                <NextVersionIdMarker>v</NextVersionIdMarker>";
    let prefix = "prefix=a%2Fpacks%2F";
    bucket.proxy.add("GET", prefix, 1, page("2", more));
    let last = "<IsTruncated>false</IsTruncated>";
    bucket.proxy.add("GET", prefix, ALWAYS, page("1", last));
    bucket.proxy.log();
    let error = storage.purge(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("in no order"), "{error}");
    assert_eq!(of_packs(&bucket, "DELETE"), 0);
}

#[test]
fn what_is_put_with_a_lock_has_the_same_checksum_as_all_else() {
    let Some(bucket) =
        Bucket::with_locks("what_is_put_with_a_lock_has_the_same_checksum_as_all_else")
    else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    // As a server does that looks.
    let look = Fault::request(|request| {
        let is = |name: &str, value: &str| request.header(name) == Some(value);
        // As `printf bytes | openssl dgst -sha256 -binary | base64` says.
        let fits = is(
            "x-amz-checksum-sha256",
            "J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk=",
        ) && is("x-amz-sdk-checksum-algorithm", "SHA256")
            && request.header("content-md5").is_none();
        if !fits {
            request.set("x-amz-content-sha256", "0");
            "PUT /nowhere HTTP/1.1".clone_into(&mut request.line);
        }
    });
    for file in ["packs/1", "prune/1"] {
        bucket.proxy.add("PUT", file, ALWAYS, look.clone());
        storage.put(&name(file), b"bytes").unwrap();
        let found = bucket.direct("a").read(&name(file), 0..5).unwrap();
        assert_eq!(found, b"bytes");
    }
    let stays: &(dyn Fn(&FileName) -> bool + Sync) = &|_| true;
    assert_eq!(storage.extend_locks(stays, true).unwrap().unlocked, 0);
}

#[test]
fn a_pack_that_was_put_without_a_lock_is_locked_by_whoever_takes_it_over() {
    let test = "a_pack_that_was_put_without_a_lock_is_locked_by_whoever_takes_it_over";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    bucket.direct("a").lock_with(retention(30)).unwrap();
    drop(make(bucket.direct("a")).unwrap());
    let bytes = disk(8);
    let dropped = Fault::request(|request| {
        request.set("x-amz-object-lock-mode", "");
        request.set("x-amz-object-lock-retain-until-date", "");
    });
    bucket.proxy.add("PUT", "/packs/", ALWAYS, dropped);
    let error = back_up(&open(bucket.storage("a")), &bytes).unwrap_err();
    assert!(error.to_string().contains("is not locked"), "{error}");
    let packs = listed(&bucket.direct("a"), "packs");
    assert!(!packs.is_empty());
    for pack in &packs {
        assert_eq!(until(&bucket, &format!("a/{pack}")), "", "{pack}");
    }

    // Who may not lock it may not rely on it.
    bucket.proxy.heal();
    let denied = Fault::Answer(403, "AccessDenied", "Access Denied");
    bucket.proxy.add("PUT", "retention", ALWAYS, denied);
    let error = back_up(&open(bucket.storage("a")), &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(listed(&bucket.direct("a"), "snapshots").is_empty());

    bucket.proxy.heal();
    back_up(&open(bucket.storage("a")), &bytes).unwrap();
    for pack in listed(&bucket.direct("a"), "packs") {
        assert_ne!(until(&bucket, &format!("a/{pack}")), "", "{pack}");
    }
    assert!(read(&open(bucket.direct("a"))).unwrap() == bytes);
}
