//! Refusals, which no trying again helps: the error names bucket and object, and what to do.

use std::time::Duration;

use snapkeep_repo::{Error, ErrorKind, Storage};
use snapkeep_s3::Options;

use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

/// The error of a read that is answered so, and how many requests there were.
fn refused(
    bucket: &Bucket,
    status: u16,
    code: &'static str,
    words: &'static str,
) -> (Error, usize) {
    let storage = bucket.storage("a");
    bucket.proxy.heal();
    bucket
        .proxy
        .add("GET", "packs/1", ALWAYS, Fault::Answer(status, code, words));
    bucket.proxy.log();
    let error = storage.read(&name("packs/1"), 0..5).unwrap_err();
    (error, bucket.proxy.log().len())
}

#[test]
fn a_refusal_is_not_tried_again_and_says_what_to_do() {
    let Some(bucket) = Bucket::new("a_refusal_is_not_tried_again_and_says_what_to_do") else {
        return;
    };
    for (status, code, kind, advice) in [
        (403, "AccessDenied", ErrorKind::Denied, "s3:GetObject"),
        (403, "InvalidAccessKeyId", ErrorKind::Denied, "access key"),
        (
            403,
            "SignatureDoesNotMatch",
            ErrorKind::Denied,
            "secret key",
        ),
        (403, "RequestTimeTooSkewed", ErrorKind::Denied, "clock"),
        (403, "InvalidObjectState", ErrorKind::Io, "Glacier"),
        (404, "NoSuchBucket", ErrorKind::NoStorage, "no such bucket"),
        (
            400,
            "AuthorizationHeaderMalformed",
            ErrorKind::Invalid,
            "region",
        ),
        (501, "NotImplemented", ErrorKind::Io, "cannot do that"),
    ] {
        let (error, requests) = refused(&bucket, status, code, "because");
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert_eq!(requests, 1, "{text}");
        for word in [advice, "a/packs/1", bucket.name.as_str(), code] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn each_missing_permission_is_named() {
    let Some(bucket) = Bucket::new("each_missing_permission_is_named") else {
        return;
    };
    let storage = bucket.storage("a");
    for method in ["PUT", "GET", "DELETE"] {
        bucket.proxy.add(
            method,
            "",
            ALWAYS,
            Fault::Answer(403, "AccessDenied", "Access Denied"),
        );
    }
    let file = name("packs/1");
    for (error, permission) in [
        (storage.put(&file, b"1").unwrap_err(), "s3:PutObject"),
        (storage.read(&file, 0..1).unwrap_err(), "s3:GetObject"),
        (
            storage
                .list(&name("packs"), &mut |_, _| Ok(()))
                .unwrap_err(),
            "s3:ListBucket",
        ),
        (storage.remove(&file).unwrap_err(), "s3:DeleteObject"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(permission), "{error}");
    }
}

#[test]
fn a_removal_that_a_lock_denies_is_an_error_of_its_own() {
    let Some(bucket) = Bucket::new("a_removal_that_a_lock_denies_is_an_error_of_its_own") else {
        return;
    };
    let storage = bucket.storage("a");
    let words = "Access Denied because object protected by object lock.";
    bucket.proxy.add(
        "DELETE",
        "",
        ALWAYS,
        Fault::Answer(403, "AccessDenied", words),
    );
    let error = storage.remove(&name("packs/1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
}

#[test]
fn credentials_that_were_renewed_meanwhile_are_taken() {
    let Some(bucket) = Bucket::new("credentials_that_were_renewed_meanwhile_are_taken") else {
        return;
    };
    let options = bucket.options();
    let path = options.credentials_file.clone().unwrap();
    let storage = bucket.storage_with("a", options);
    storage.put(&name("1"), b"1").unwrap();
    bucket.proxy.add(
        "PUT",
        "",
        1,
        Fault::request(move |_| {
            std::fs::write(
                &path,
                "[default]\naws_access_key_id=renewed\naws_secret_access_key=x\n",
            )
            .unwrap();
        }),
    );
    // The reply of the first is lost in the name of the old key, the second has the new one.
    storage.put(&name("2"), b"2").unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let note = std::sync::Arc::clone(&seen);
    bucket.proxy.add(
        "PUT",
        "/3",
        1,
        Fault::request(move |request| {
            let text = request
                .header("authorization")
                .unwrap_or_default()
                .to_owned();
            *note.lock().unwrap() = text;
        }),
    );
    storage.put(&name("3"), b"3").unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.contains("Credential=renewed/"), "{seen}");
}

#[test]
fn expired_credentials_are_asked_for_a_few_times_and_named() {
    let Some(bucket) = Bucket::new("expired_credentials_are_asked_for_a_few_times_and_named")
    else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_secs(4),
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options);
    let words = "The provided token has expired.";
    let expired = Fault::Answer(400, "ExpiredToken", words);
    bucket.proxy.add("GET", "packs/1", ALWAYS, expired);
    let error = storage.read(&name("packs/1"), 0..5).unwrap_err();
    let requests = bucket.proxy.log().len();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("renew"), "{error}");
    assert!((2..=5).contains(&requests), "{requests}");
}

#[test]
fn no_secret_is_shown() {
    let Some(bucket) = Bucket::new("no_secret_is_shown") else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::ZERO,
        ..bucket.options()
    };
    let storage = bucket.storage_with("a", options.clone());
    bucket.proxy.add("GET", "", ALWAYS, Fault::Refuse);
    let error = storage.read(&name("packs/1"), 0..5).unwrap_err();
    let shown = format!("{storage:?} {options:?} {error:?} {}", error.chain());
    assert!(!shown.contains("secret-key-of-the-test"), "{shown}");
}
