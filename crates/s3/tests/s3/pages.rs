//! Something before the storage says that all is well, and the storage has seen nothing: a page for people,
//! with the status of success.

use snapkeep_repo::{ErrorKind, FileName, Result, Storage};

use crate::locks::{in_year, retention, until};
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
