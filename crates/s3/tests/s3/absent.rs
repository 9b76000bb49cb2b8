//! What is not there, or is said not to be: only S3's own names for it are believed.

use std::time::Duration;

use snapkeep_repo::{ErrorKind, Storage};
use snapkeep_s3::Options;

use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

/// What a reverse proxy answers whose server is away.
fn page_of_a_proxy() -> Fault {
    Fault::reply(|reply| {
        "HTTP/1.1 404 Not Found".clone_into(&mut reply.line);
        reply.body = b"<html><body>404 page not found</body></html>".to_vec();
    })
}

#[test]
fn what_a_proxy_does_not_find_is_asked_for_again_and_not_called_missing() {
    let test = "what_a_proxy_does_not_find_is_asked_for_again_and_not_called_missing";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let file = name("packs/1");
    bucket.direct("a").put(&file, b"bytes").unwrap();
    let storage = bucket.storage("a");
    let once = |method| bucket.proxy.add(method, "", 1, page_of_a_proxy());
    once("GET");
    assert_eq!(storage.read(&file, 0..5).unwrap(), b"bytes");
    once("HEAD");
    assert_eq!(storage.length(&file).unwrap(), 5);
    once("GET");
    let mut found = 0;
    let mut each = |_: &_, _| {
        found += 1;
        Ok(())
    };
    storage.list(&name("packs"), &mut each).unwrap();
    assert_eq!(found, 1);
    // Nothing reached the server: nothing was removed.
    let away = Fault::Answer(404, "", "");
    bucket.proxy.add("DELETE", "", 1, away);
    bucket.proxy.log();
    storage.remove(&file).unwrap();
    assert_eq!(bucket.proxy.log().len(), 2);
    let error = bucket.direct("a").length(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_proxy_that_stays_alone_is_an_error_about_the_endpoint() {
    let Some(bucket) = Bucket::new("a_proxy_that_stays_alone_is_an_error_about_the_endpoint")
    else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_millis(300),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        bucket.proxy.add(method, "", ALWAYS, page_of_a_proxy());
    }
    let file = name("packs/1");
    for error in [
        storage.length(&file).unwrap_err(),
        storage.read(&file, 0..1).unwrap_err(),
        storage.read_whole(&file, 10).unwrap_err(),
        storage
            .list(&name("packs"), &mut |_, _| Ok(()))
            .unwrap_err(),
        storage.put(&file, b"1").unwrap_err(),
        storage.remove(&file).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("something before it"), "{error}");
    }
}

#[test]
fn the_name_of_a_missing_object_is_no_list() {
    let Some(bucket) = Bucket::new("the_name_of_a_missing_object_is_no_list") else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_millis(300),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    let missing = Fault::Answer(404, "NoSuchKey", "The specified key does not exist.");
    bucket.proxy.add("GET", "list-type", ALWAYS, missing);
    let error = storage
        .list(&name("packs"), &mut |_, _| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn an_object_put_here_that_has_another_length_is_not_settled() {
    let test = "an_object_put_here_that_has_another_length_is_not_settled";
    let Some(bucket) = Bucket::lenient(test) else {
        return;
    };
    let storage = bucket.storage("a");
    let file = name("packs/1");
    // The server keeps less than it was sent, and says that all is well.
    let less = Fault::request(|request| {
        request.body.truncate(3);
        request.set("Content-Length", "3");
        request.set("x-amz-checksum-sha256", "");
        request.set("x-amz-sdk-checksum-algorithm", "");
    });
    bucket.proxy.add("PUT", "packs/1", 1, less);
    storage.put(&file, b"bytes").unwrap();
    let error = storage.settle(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("3 bytes"), "{error}");
    storage.put(&file, b"bytes").unwrap();
    storage.settle(&file).unwrap();
}

#[test]
fn each_put_has_a_checksum_and_is_sent_again_if_it_does_not_fit() {
    let Some(bucket) = Bucket::new("each_put_has_a_checksum_and_is_sent_again_if_it_does_not_fit")
    else {
        return;
    };
    let storage = bucket.storage("a");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let note = std::sync::Arc::clone(&seen);
    let look = Fault::request(move |request| {
        let sum = request.header("x-amz-checksum-sha256").unwrap_or_default();
        sum.clone_into(&mut note.lock().unwrap());
    });
    bucket.proxy.add("PUT", "packs/1", 1, look);
    storage.put(&name("packs/1"), b"bytes").unwrap();
    // As `printf bytes | openssl dgst -sha256 -binary | base64` says.
    let right = "J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk=";
    assert_eq!(*seen.lock().unwrap(), right);
    for code in [
        "BadDigest",
        "InvalidDigest",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
    ] {
        let damaged = Fault::Answer(400, code, "it does not match");
        bucket.proxy.add("PUT", "packs/2", 1, damaged);
        storage.put(&name("packs/2"), b"bytes").unwrap();
    }
}

#[test]
fn an_object_without_a_time_is_asked_for_again_and_never_of_1970() {
    let Some(bucket) = Bucket::new("an_object_without_a_time_is_asked_for_again_and_never_of_1970")
    else {
        return;
    };
    let storage = bucket.storage("a");
    storage.put(&name("packs/1"), b"bytes").unwrap();
    let timeless = Fault::reply(|reply| reply.set("Last-Modified", ""));
    bucket.proxy.add("HEAD", "packs/1", 1, timeless.clone());
    assert!(storage.modified(&name("packs/1")).unwrap() > 1_600_000_000);
    bucket.proxy.add("HEAD", "packs/1", ALWAYS, timeless);
    let error = storage.modified(&name("packs/1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("when it was put"), "{error}");
    assert_eq!(storage.length(&name("packs/1")).unwrap(), 5);
}
