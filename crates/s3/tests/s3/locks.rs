//! Object Lock against a real server: what is put cannot be removed before its time, what stays is
//! locked anew, what was removed goes for good once its lock has ended.

use snapkeep_repo::{ErrorKind, FileName, Storage};
use snapkeep_s3::{LockMode, Retention, S3Storage};

use crate::support::archive::{back_up, disk, make, open, read};
use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

pub(crate) fn retention(days: u32) -> Retention {
    Retention::new(LockMode::Compliance, days).unwrap()
}

/// A header of a reply.
fn header(reply: &str, name: &str) -> String {
    let found = reply.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    });
    found.unwrap_or_default()
}

/// Until when the server keeps an object.
pub(crate) fn until(bucket: &Bucket, key: &str) -> String {
    header(
        &bucket.ask("HEAD", key),
        "x-amz-object-lock-retain-until-date",
    )
}

/// Every reply says that it is this year's first day: the storage's clock goes by that.
pub(crate) fn in_year(bucket: &Bucket, year: u32) {
    let date = format!("Fri, 01 Jan {year} 00:00:00 GMT");
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let date = date.clone();
        let later = Fault::reply(move |reply| reply.set("Date", &date));
        bucket.proxy.add(method, "", ALWAYS, later);
    }
}

pub(crate) fn listed(storage: &S3Storage, folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut each = |name: &FileName, _| {
        names.push(name.to_string());
        Ok(())
    };
    storage.list(&name(folder), &mut each).unwrap();
    names
}

#[test]
fn what_is_put_cannot_be_removed_before_its_time() {
    let Some(bucket) = Bucket::with_locks("what_is_put_cannot_be_removed_before_its_time") else {
        return;
    };
    let storage = bucket.direct("a");
    storage.lock_with(retention(30)).unwrap();
    storage.put(&name("packs/ab/1"), b"bytes").unwrap();
    let head = bucket.ask("HEAD", "a/packs/ab/1");
    assert_eq!(header(&head, "x-amz-object-lock-mode"), "COMPLIANCE");
    let version = header(&head, "x-amz-version-id");
    let refused = bucket.ask("DELETE", &format!("a/packs/ab/1?versionId={version}"));
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    // A removal hides it, and no more.
    storage.remove(&name("packs/ab/1")).unwrap();
    let gone = storage.length(&name("packs/ab/1")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let old = bucket.ask("GET", &format!("a/packs/ab/1?versionId={version}"));
    assert!(old.ends_with("bytes"), "{old}");
    // What comes and goes is not locked.
    storage.put(&name("prune/00000001-ab"), b"bytes").unwrap();
    assert_eq!(until(&bucket, "a/prune/00000001-ab"), "");
}

#[test]
fn a_bucket_without_locks_is_refused_and_nothing_is_made() {
    let Some(bucket) = Bucket::new("a_bucket_without_locks_is_refused_and_nothing_is_made") else {
        return;
    };
    let storage = bucket.direct("a");
    let error = storage.lock_with(retention(30)).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
    for word in [
        bucket.name.as_str(),
        "has no Object Lock",
        "--object-lock-enabled-for-bucket",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    for folder in ["features", "probes"] {
        assert!(listed(&storage, folder).is_empty());
    }
}

#[test]
fn an_endpoint_whose_locks_hold_nothing_is_found_out() {
    let Some(bucket) = Bucket::with_locks("an_endpoint_whose_locks_hold_nothing_is_found_out")
    else {
        return;
    };
    let dropped = Fault::request(|request| {
        request.set("x-amz-object-lock-mode", "");
        request.set("x-amz-object-lock-retain-until-date", "");
    });
    let lied = Fault::reply(|reply| {
        "HTTP/1.1 200 OK".clone_into(&mut reply.line);
        reply.body.clear();
    });
    let shortened = Fault::request(|request| {
        request.set(
            "x-amz-object-lock-retain-until-date",
            "2090-01-01T00:00:00Z",
        );
    });
    for (method, fault, why) in [
        ("PUT", shortened.clone(), "has another lock"),
        ("PUT", dropped.clone(), "has no lock"),
        ("DELETE", lied, "in spite of its lock"),
    ] {
        bucket.proxy.heal();
        bucket.proxy.add(method, "/probes/", ALWAYS, fault);
        let storage = bucket.storage("a");
        let error = storage.lock_with(retention(30)).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(listed(&storage, "features").is_empty());
    }
    // Later, too: a backup that is not locked is none.
    bucket.proxy.heal();
    bucket.direct("a").lock_with(retention(30)).unwrap();
    let storage = bucket.storage("a");
    listed(&storage, "features");
    for fault in [dropped, shortened] {
        bucket.proxy.heal();
        in_year(&bucket, 2100);
        bucket.proxy.add_first("PUT", "/packs/", ALWAYS, fault);
        let error = storage.put(&name("packs/ab/1"), b"bytes").unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
        for word in ["a/packs/ab/1", "is not locked", "s3:GetObjectRetention"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn whoever_opens_the_repository_locks_as_it_says() {
    let Some(bucket) = Bucket::with_locks("whoever_opens_the_repository_locks_as_it_says") else {
        return;
    };
    let bytes = disk(8);
    let first = bucket.direct("a");
    first
        .lock_with(Retention::new(LockMode::Governance, 7).unwrap())
        .unwrap();
    drop(make(first).unwrap());
    assert_ne!(until(&bucket, "a/config"), "");
    let storage = bucket.direct("a");
    assert_eq!(storage.retention(), None, "nobody has asked yet");
    back_up(&open(storage), &bytes).unwrap();
    let storage = bucket.direct("a");
    for folder in ["packs", "index", "snapshots", "keys", "features"] {
        let names = listed(&storage, folder);
        assert!(!names.is_empty(), "{folder}");
        for file in names {
            let head = bucket.ask("HEAD", &format!("a/{file}"));
            assert_eq!(
                header(&head, "x-amz-object-lock-mode"),
                "GOVERNANCE",
                "{file}"
            );
        }
    }
    assert_eq!(storage.retention().unwrap().days(), 7);
    assert!(read(&open(bucket.direct("a"))).unwrap() == bytes);
}

#[test]
fn locks_are_renewed_when_less_than_half_is_left_and_of_what_stays_alone() {
    let test = "locks_are_renewed_when_less_than_half_is_left_and_of_what_stays_alone";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    storage.put(&name("packs/ab/1"), b"one").unwrap();
    storage.put(&name("packs/ab/2"), b"two").unwrap();
    // Each has its own: a second may begin between two uploads.
    let [first, second] = ["1", "2"].map(|file| until(&bucket, &format!("a/packs/ab/{file}")));
    let stays = |file: &FileName| file.as_str() != "packs/ab/2";
    let done = storage.extend_locks(&stays, false).unwrap();
    assert_eq!(done.extended, 0, "{done:?}");
    assert_eq!(done.looked, 1, "{done:?}");

    in_year(&bucket, 2100);
    let pretended = storage.extend_locks(&stays, true).unwrap();
    assert_eq!(until(&bucket, "a/packs/ab/1"), first);
    let done = storage.extend_locks(&stays, false).unwrap();
    assert_eq!(done, pretended);
    // The configuration, the feature and the pack.
    assert_eq!((done.extended, done.unlocked), (3, 0), "{done:?}");
    for key in ["a/config", "a/packs/ab/1"] {
        let until = until(&bucket, key);
        assert!(until.starts_with("2100-04-11T00:"), "{until}");
    }
    assert_eq!(until(&bucket, "a/packs/ab/2"), second, "it leaves");
    let again = storage.extend_locks(&stays, false).unwrap();
    assert_eq!(again.extended, 0, "{again:?}");

    // In the middle: a month is less than half, and two and a half are more.
    for (file, until) in [("1", "2100-02-01"), ("3", "2100-03-15")] {
        let line = format!("PUT /{}/a/packs/ab/{file}", bucket.name);
        let lock = format!(
            "x-amz-object-lock-mode: COMPLIANCE\r\n\
             x-amz-object-lock-retain-until-date: {until}T00:00:00Z\r\n\
             x-amz-sdk-checksum-algorithm: SHA256\r\n\
             x-amz-checksum-sha256: J3CJ2RwL308uaGK6fkoHYFEZQx9dE/cm3TUrBvGyBqk=\r\n"
        );
        assert!(bucket.moto.ask(&line, &lock, b"bytes").contains("200 "));
    }
    let middle = storage.extend_locks(&stays, false).unwrap();
    assert_eq!(middle.extended, 1, "{middle:?}");
    assert!(until(&bucket, "a/packs/ab/1").starts_with("2100-04-11T00:"));
    assert!(until(&bucket, "a/packs/ab/3").starts_with("2100-03-15T00:"));
}

#[test]
fn what_was_put_without_a_lock_is_locked_and_told() {
    let Some(bucket) = Bucket::with_locks("what_was_put_without_a_lock_is_locked_and_told") else {
        return;
    };
    // As a program does that does not know of locks.
    bucket.direct("a").put(&name("packs/ab/1"), b"one").unwrap();
    let storage = bucket.storage("a");
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    in_year(&bucket, 2100);
    let done = storage.extend_locks(&|_| true, false).unwrap();
    assert_eq!(done.unlocked, 1, "{done:?}");
    let until = until(&bucket, "a/packs/ab/1");
    assert!(until.starts_with("2100-04-11T00:"), "{until}");
}

#[test]
fn what_was_removed_goes_for_good_once_its_lock_has_ended() {
    let test = "what_was_removed_goes_for_good_once_its_lock_has_ended";
    let Some(bucket) = Bucket::lenient_with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    storage.put(&name("packs/ab/1"), b"stays").unwrap();
    storage.put(&name("packs/ab/2"), b"removed").unwrap();
    storage.remove(&name("packs/ab/2")).unwrap();
    // One whose lock has ended, for the server too.
    let ended = "x-amz-object-lock-mode: COMPLIANCE\r\n\
                 x-amz-object-lock-retain-until-date: 2020-01-01T00:00:00Z\r\nContent-MD5: x\r\n";
    let line = |file: &str| format!("PUT /{}/a/packs/ab/{file}", bucket.name);
    assert!(
        bucket
            .moto
            .ask(&line("3"), ended, b"ended")
            .starts_with("HTTP/1.1 200")
    );
    storage.remove(&name("packs/ab/3")).unwrap();
    // And one that is put again.
    assert!(bucket.moto.ask(&line("4"), ended, b"again").contains("200"));
    storage.remove(&name("packs/ab/4")).unwrap();
    storage.put(&name("packs/ab/4"), b"again").unwrap();
    let versions = || {
        bucket
            .ask("GET", "?versions&prefix=a/packs")
            .matches("<VersionId>")
            .count()
    };
    assert_eq!(versions(), 1 + 2 + 2 + 3);

    // All that was put just now is taken for locked, without a question.
    bucket.proxy.log();
    let purged = storage.purge(false).unwrap();
    assert_eq!((purged.removed, purged.locked), (0, 3), "{purged:?}");
    assert!(purged.until.is_some());
    let asked = bucket.proxy.log();
    assert!(
        asked.iter().all(|line| !line.contains("/packs/ab/")),
        "{asked:?}"
    );

    // The server still keeps what its own clock says is locked, and says so as Amazon's does.
    let words = "Access Denied because object protected by object lock.";
    let kept = Fault::Answer(403, "AccessDenied", words);
    bucket
        .proxy
        .add("DELETE", "/packs/ab/2", ALWAYS, kept.clone());
    bucket.proxy.add("DELETE", "/probes/", ALWAYS, kept);
    in_year(&bucket, 2100);
    let pretended = storage.purge(true).unwrap();
    assert_eq!(versions(), 8);
    assert_eq!(pretended.removed, 3, "{pretended:?}");
    let purged = storage.purge(false).unwrap();
    assert_eq!((purged.removed, purged.removed_bytes), (1, 5), "{purged:?}");
    assert_eq!((purged.locked, purged.until), (2, None), "{purged:?}");
    assert_eq!(versions(), 6, "the version and its mark are gone");
    assert_eq!(storage.read(&name("packs/ab/1"), 0..5).unwrap(), b"stays");
    assert_eq!(storage.read(&name("packs/ab/4"), 0..5).unwrap(), b"again");

    // Without such words it is a missing permission, and told.
    bucket.proxy.heal();
    in_year(&bucket, 2100);
    let error = storage.purge(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(
        error.to_string().contains("s3:DeleteObjectVersion"),
        "{error}"
    );
}

#[test]
fn what_was_overwritten_is_named_and_nothing_of_it_is_freed() {
    let test = "what_was_overwritten_is_named_and_nothing_of_it_is_freed";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    for file in ["packs/ab/1", "packs/ab/2", "packs/ab/3"] {
        storage.put(&name(file), b"right").unwrap();
    }
    // A put that was tried again, and one that somebody else made.
    storage.put(&name("packs/ab/2"), b"right").unwrap();
    storage.put(&name("packs/ab/3"), b"not right").unwrap();
    // A copy under the name of an archive that was removed.
    let archive = name("snapshots/main/vm/100/1");
    storage.put(&archive, b"first").unwrap();
    storage.remove(&archive).unwrap();
    storage.put(&archive, b"copied again").unwrap();
    in_year(&bucket, 2100);
    let purged = storage.purge(true).unwrap();
    assert_eq!(purged.overwritten, [name("packs/ab/3")], "{purged:?}");
}

#[test]
fn a_list_of_versions_that_is_none_frees_nothing() {
    let Some(bucket) = Bucket::with_locks("a_list_of_versions_that_is_none_frees_nothing") else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    storage.put(&name("packs/ab/1"), b"stays").unwrap();
    let cut = Fault::reply(|reply| {
        let half = reply.body.len() / 2;
        reply.body.truncate(half);
    });
    bucket.proxy.add("GET", "versions", 1, cut.clone());
    storage.purge(false).unwrap();
    bucket.proxy.add("GET", "versions", ALWAYS, cut);
    let error = storage.purge(false).unwrap_err();
    assert!(error.to_string().contains("list the versions"), "{error}");
}

#[test]
fn each_permission_that_locks_need_is_named() {
    let Some(bucket) = Bucket::with_locks("each_permission_that_locks_need_is_named") else {
        return;
    };
    let storage = bucket.storage("a");
    storage.lock_with(retention(30)).unwrap();
    storage.put(&name("config"), b"1").unwrap();
    let denied = Fault::Answer(403, "AccessDenied", "Access Denied");
    bucket.proxy.add("PUT", "/packs/", ALWAYS, denied.clone());
    bucket.proxy.add("PUT", "retention", ALWAYS, denied.clone());
    bucket.proxy.add("GET", "versions", ALWAYS, denied);
    in_year(&bucket, 2100);
    for (error, permission) in [
        (
            storage.put(&name("packs/1"), b"1").unwrap_err(),
            "s3:PutObjectRetention",
        ),
        (
            storage.extend_locks(&|_| true, false).unwrap_err(),
            "s3:PutObjectRetention",
        ),
        (storage.purge(false).unwrap_err(), "s3:ListBucketVersions"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(permission), "{error}");
    }
}

#[test]
fn a_bucket_that_locks_by_itself_is_a_storage_like_others() {
    let test = "a_bucket_that_locks_by_itself_is_a_storage_like_others";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    let rule = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                 <Mode>COMPLIANCE</Mode><Days>2</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let line = format!("PUT /{}?object-lock", bucket.name);
    assert!(bucket.moto.ask(&line, "", rule).contains("200"));
    let storage = bucket.direct("a");
    let found = storage.abilities(0).unwrap();
    assert_eq!(
        (found.keeps_versions, found.locks),
        (Some(true), Some(true))
    );
    let bytes = disk(8);
    back_up(&make(storage).unwrap(), &bytes).unwrap();
    assert!(read(&open(bucket.direct("a"))).unwrap() == bytes);
    assert_eq!(
        snapkeep_repo::broken_promises(&bucket.direct("b")),
        Vec::<String>::new()
    );
}

#[test]
fn what_a_thief_of_the_credentials_removed_comes_back() {
    let Some(bucket) = Bucket::with_locks("what_a_thief_of_the_credentials_removed_comes_back")
    else {
        return;
    };
    let storage = bucket.direct("a");
    storage.lock_with(retention(30)).unwrap();
    let bytes = disk(8);
    back_up(&make(storage).unwrap(), &bytes).unwrap();
    // Every version and every name is removed, as far as that goes.
    let parts = |text: &str, part: &str| -> Vec<(String, String)> {
        let of = |text: &str, name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let part = format!("<{part}>");
        let all = text.split(&part).skip(1);
        all.map(|text| (of(text, "Key"), of(text, "VersionId")))
            .collect()
    };
    let versions = |part: &str| parts(&bucket.ask("GET", "?versions&prefix=a/"), part);
    for (key, version) in versions("Version") {
        bucket.ask("DELETE", &format!("{key}?versionId={version}"));
        bucket.ask("DELETE", &key);
    }
    let direct = bucket.direct("a");
    assert_eq!(
        direct.length(&name("config")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(listed(&direct, "packs").is_empty());
    // The marks that hide them are removed.
    for (key, version) in versions("DeleteMarker") {
        let removed = bucket.ask("DELETE", &format!("{key}?versionId={version}"));
        assert!(removed.starts_with("HTTP/1.1 204"), "{removed}");
    }
    let repository = open(bucket.direct("a"));
    assert!(read(&repository).unwrap() == bytes);
    let report = snapkeep_repo::verify(&repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}
