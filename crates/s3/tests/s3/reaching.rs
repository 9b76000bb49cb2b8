//! Endpoints that are not who they should be, by their certificates or their names.

use std::time::Duration;

use snapkeep_repo::{Error, ErrorKind, Storage};
use snapkeep_s3::Options;

use crate::support::tls::Tls;
use crate::support::{Bucket, name};

/// Why nothing can be read or put at an endpoint.
fn refused(bucket: &Bucket, endpoint: &str, options: &Options) -> [Error; 2] {
    // Long, but not for ever: what is tried again says so.
    let options = Options {
        retry_deadline: options.retry_deadline.min(Duration::from_secs(5)),
        ..options.clone()
    };
    let storage = bucket.at("a", endpoint, options);
    [
        storage.read(&name("packs/1"), 0..5).unwrap_err(),
        storage.put(&name("packs/2"), b"bytes").unwrap_err(),
    ]
}

#[test]
fn a_certificate_that_cannot_be_believed_ends_it_at_once_and_says_what_to_do() {
    let test = "a_certificate_that_cannot_be_believed_ends_it_at_once_and_says_what_to_do";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let tls = Tls::start(&bucket.moto.address);
    let trusting = Options {
        ca_file: Some(tls.ca_file.clone()),
        ..bucket.options()
    };
    let storage = bucket.at("a", &tls.good, trusting.clone());
    storage.put(&name("packs/1"), b"bytes").unwrap();
    assert_eq!(storage.read(&name("packs/1"), 0..5).unwrap(), b"bytes");
    for (endpoint, options, advice) in [
        (&tls.good, bucket.options(), "name its file in ca-file"),
        (&tls.other, trusting.clone(), "for another name"),
        (&tls.old, trusting.clone(), "not valid at this time"),
        (&tls.early, trusting, "not valid at this time"),
    ] {
        for error in refused(&bucket, endpoint, &options) {
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Io, "{text}");
            for word in [advice, "a/packs/", bucket.name.as_str()] {
                assert!(text.contains(word), "{word}: {text}");
            }
            assert!(!text.contains("times in"), "it was tried again: {text}");
        }
    }
    assert_eq!(
        bucket
            .direct("a")
            .length(&name("packs/2"))
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_name_without_an_address_is_asked_for_until_the_deadline_and_told() {
    let test = "a_name_without_an_address_is_asked_for_until_the_deadline_and_told";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let options = Options {
        retry_deadline: Duration::from_millis(500),
        ..bucket.options()
    };
    for error in refused(&bucket, "https://storage.invalid", &options) {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Io, "{text}");
        for word in [
            "host is not found",
            "a/packs/",
            bucket.name.as_str(),
            "tried",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
