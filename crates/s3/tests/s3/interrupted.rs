//! What happens to a storage in the middle of a backup: the backup fails and says why, nothing is
//! listed that is not whole, and the next one goes on from there.

use std::sync::Arc;
use std::time::Duration;

use snapkeep_repo::{Error, ErrorKind, Storage, verify};
use snapkeep_s3::Options;

use crate::support::archive::{archive, back_up, disk, make, open, read};
use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

/// Chunks of the disk: data for two packs, so that one is put before the fault comes.
const CHUNKS: u64 = 400;

/// Begins a backup through the proxy, has the fault come once a pack is there, and returns the
/// backup's error after it was looked at what the bucket holds and the next backup was whole.
fn interrupted(bucket: &Bucket, fault: Fault) -> Error {
    let bytes = disk(CHUNKS);
    drop(make(bucket.direct("a")).unwrap());
    let options = Options {
        retry_deadline: Duration::from_millis(800),
        ..bucket.options()
    };
    let repository = open(bucket.storage_with("a", options));
    bucket
        .proxy
        .add("PUT", "/packs/", 1, Fault::request(|_| {}));
    bucket.proxy.add("PUT", "", ALWAYS, fault);
    let error = back_up(&repository, &bytes).unwrap_err();
    bucket.proxy.heal();

    let direct = bucket.direct("a");
    let mut packs = 0;
    let mut count = |_: &snapkeep_repo::FileName, _| {
        packs += 1;
        Ok(())
    };
    direct.list(&name("packs"), &mut count).unwrap();
    assert_eq!(packs, 1, "what arrived is there");
    let repository = open(direct);
    assert!(
        repository.snapshots().unwrap().is_empty(),
        "nothing is listed"
    );
    assert_eq!(
        repository.snapshot(&archive()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let report = verify(&repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);

    let again = bucket.storage("a");
    let account = Arc::clone(again.account());
    back_up(&open(again), &bytes).unwrap();
    let sent = account.usage().sent;
    assert!(
        sent < bytes.len() as u64 / 2,
        "{sent} bytes were sent again"
    );
    assert!(read(&open(bucket.direct("a"))).unwrap() == bytes);
    error
}

fn check(bucket: &Bucket, error: &Error, kind: ErrorKind, advice: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in [advice, "a/packs/", bucket.name.as_str()] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn credentials_that_expire_in_the_middle_of_a_backup_end_it_and_it_goes_on_with_others() {
    let test =
        "credentials_that_expire_in_the_middle_of_a_backup_end_it_and_it_goes_on_with_others";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let fault = Fault::Answer(400, "ExpiredToken", "The provided token has expired.");
    let error = interrupted(&bucket, fault);
    check(&bucket, &error, ErrorKind::Denied, "renew them");
}

#[test]
fn a_bucket_that_vanishes_in_the_middle_of_a_backup_is_named() {
    let Some(bucket) = Bucket::new("a_bucket_that_vanishes_in_the_middle_of_a_backup_is_named")
    else {
        return;
    };
    let fault = Fault::Answer(404, "NoSuchBucket", "The specified bucket does not exist");
    let error = interrupted(&bucket, fault);
    check(
        &bucket,
        &error,
        ErrorKind::NoStorage,
        "there is no such bucket",
    );
}

#[test]
fn a_clock_that_is_off_in_the_middle_of_a_backup_is_named() {
    let Some(bucket) = Bucket::new("a_clock_that_is_off_in_the_middle_of_a_backup_is_named") else {
        return;
    };
    let words = "The difference between the request time and the current time is too large.";
    let error = interrupted(&bucket, Fault::Answer(403, "RequestTimeTooSkewed", words));
    check(&bucket, &error, ErrorKind::Denied, "set this host's clock");
}

#[test]
fn a_storage_that_stays_busy_ends_a_backup_at_the_deadline() {
    let Some(bucket) = Bucket::new("a_storage_that_stays_busy_ends_a_backup_at_the_deadline")
    else {
        return;
    };
    let error = interrupted(
        &bucket,
        Fault::Answer(503, "SlowDown", "reduce your request rate"),
    );
    check(&bucket, &error, ErrorKind::Io, "times in");
}

#[test]
fn objects_that_always_arrive_changed_end_a_backup_and_are_told() {
    let test = "objects_that_always_arrive_changed_end_a_backup_and_are_told";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let words = "The provided 'x-amz-content-sha256' header does not match what was computed.";
    let error = interrupted(
        &bucket,
        Fault::Answer(400, "XAmzContentSHA256Mismatch", words),
    );
    check(&bucket, &error, ErrorKind::Io, "not what was sent");
}

#[test]
fn a_wrong_etag_is_not_believed_and_harms_nothing() {
    let Some(bucket) = Bucket::new("a_wrong_etag_is_not_believed_and_harms_nothing") else {
        return;
    };
    let bytes = disk(8);
    let other = Fault::reply(|reply| reply.set("ETag", "\"00000000000000000000000000000000\""));
    for method in ["PUT", "GET", "HEAD"] {
        bucket.proxy.add(method, "", ALWAYS, other.clone());
    }
    back_up(&make(bucket.storage("a")).unwrap(), &bytes).unwrap();
    assert!(read(&open(bucket.storage("a"))).unwrap() == bytes);
}

#[test]
fn a_backup_needs_no_right_to_remove() {
    let Some(bucket) = Bucket::new("a_backup_needs_no_right_to_remove") else {
        return;
    };
    let bytes = disk(8);
    let denied = Fault::Answer(403, "AccessDenied", "Access Denied");
    bucket.proxy.add("DELETE", "", ALWAYS, denied);
    back_up(&make(bucket.storage("a")).unwrap(), &bytes).unwrap();
    assert!(read(&open(bucket.storage("a"))).unwrap() == bytes);
}

#[test]
fn what_a_multipart_upload_left_is_not_seen_and_the_largest_pack_is_one_put() {
    let test = "what_a_multipart_upload_left_is_not_seen_and_the_largest_pack_is_one_put";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let begun = format!("POST /{}/a/packs/left?uploads", bucket.name);
    assert!(bucket.moto.ask(&begun, "", b"").contains("UploadId"));
    let storage = bucket.storage("a");
    storage.put(&name("packs/1"), &vec![7; 32 << 20]).unwrap();
    assert_eq!(bucket.proxy.log().len(), 1);
    let mut found = Vec::new();
    let mut each = |name: &snapkeep_repo::FileName, length| {
        found.push((name.to_string(), length));
        Ok(())
    };
    storage.list(&name("packs"), &mut each).unwrap();
    assert_eq!(found, [("packs/1".to_owned(), 32 << 20)]);
}
