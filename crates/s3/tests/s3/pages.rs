//! Something before the storage says that all is well, and the storage has seen nothing: a page for people,
//! with the status of success.

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, FileName, Repository, Result, Storage, SystemRandom, Unlock};

use crate::locks::{in_year, retention, until};
use crate::support::archive::make;
use crate::support::proxy::{ALWAYS, Fault};
use crate::support::{Bucket, name};

type Put = fn(&dyn Storage, &FileName) -> Result<()>;

#[test]
fn what_a_page_for_people_says_is_put_or_removed_is_not_believed() {
    let test = "what_a_page_for_people_says_is_put_or_removed_is_not_believed";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let (storage, direct) = (bucket.storage("a"), bucket.direct("a"));
    let file = name("packs/1");
    bucket.proxy.add("PUT", "", ALWAYS, Fault::Page);
    let puts: [Put; 2] = [
        |storage, file| storage.put(file, b"bytes"),
        |storage, file| storage.put_new(file, b"bytes"),
    ];
    for put in puts {
        let error = put(&storage, &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("no ETag"), "{error}");
    }
    assert_eq!(
        direct.length(&file).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    for put in puts {
        bucket.proxy.heal();
        bucket.proxy.add("PUT", "", 2, Fault::Page);
        put(&storage, &file).unwrap();
        assert_eq!(direct.read(&file, 0..5).unwrap(), b"bytes");
        storage.remove(&file).unwrap();
    }
    storage.put(&file, b"bytes").unwrap();
    bucket.proxy.add("DELETE", "", ALWAYS, Fault::Page);
    let error = storage.remove(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    bucket.proxy.heal();
    bucket.proxy.add("HEAD", "", 2, Fault::Page);
    assert_eq!(storage.length(&file).unwrap(), 5);
    bucket.proxy.add("DELETE", "", 2, Fault::Page);
    storage.remove(&file).unwrap();
    assert_eq!(
        direct.length(&file).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_page_for_people_instead_of_an_object_is_an_error_of_the_way_and_no_damage() {
    let test = "a_page_for_people_instead_of_an_object_is_an_error_of_the_way_and_no_damage";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    drop(make(bucket.direct("a")).unwrap());
    bucket.direct("a").put(&name("packs/1"), b"bytes").unwrap();
    // Also one that looks like the object in all but what it is.
    let disguised = Fault::reply(|reply| {
        reply.set("Content-Type", "Text/HTML; charset=utf-8");
        reply.body.fill(b'<');
    });
    for fault in [Fault::Page, disguised] {
        for method in ["GET", "HEAD"] {
            bucket.proxy.add(method, "/a/", ALWAYS, fault.clone());
        }
        let storage = bucket.storage("a");
        let opened = Repository::open(
            Arc::new(bucket.storage("a")),
            Arc::new(SystemRandom),
            &Unlock::Open,
        );
        for error in [
            storage.read(&name("packs/1"), 0..5).unwrap_err(),
            storage.read_whole(&name("packs/1"), 100).unwrap_err(),
            storage.length(&name("packs/1")).unwrap_err(),
            opened.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("not of an S3 server"), "{error}");
        }
        bucket.proxy.heal();
        bucket.proxy.add("GET", "/a/", 2, fault);
        assert_eq!(storage.read(&name("packs/1"), 0..5).unwrap(), b"bytes");
        bucket.proxy.heal();
    }
}

#[test]
fn what_a_page_for_people_says_of_locks_is_not_believed() {
    let test = "what_a_page_for_people_says_of_locks_is_not_believed";
    let Some(bucket) = Bucket::with_locks(test) else {
        return;
    };
    let storage = bucket.storage("a");
    for part in ["?versioning", "?object-lock"] {
        bucket.proxy.add("GET", part, 2, Fault::Page);
    }
    let found = storage.abilities(0).unwrap();
    assert_eq!(
        (found.keeps_versions, found.locks),
        (Some(true), Some(true))
    );
    // The trial's version is not removed, whatever a page says.
    bucket.proxy.add("DELETE", "versionId", 2, Fault::Page);
    storage.lock_with(retention(100)).unwrap();
    storage.put(&name("config"), b"config").unwrap();
    in_year(&bucket, 2100);
    (bucket.proxy).add_first("PUT", "retention", 2, Fault::Page);
    let done = storage.extend_locks(&|_| true, false).unwrap();
    assert_eq!(done.extended, 2, "{done:?}");
    for key in [
        "a/config",
        "a/features/compatible-object-lock-1-compliance-100",
    ] {
        let until = until(&bucket, key);
        assert!(until.starts_with("2100-04-11T00:"), "{until}");
    }
}
