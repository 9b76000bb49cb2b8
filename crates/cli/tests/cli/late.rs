//! An archive that was taken back just as a sweep began.

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use snapkeep_repo::{
    Error, ErrorKind, FileName, LocalStorage, PruneOptions, Repository, Result, SnapshotName,
    Storage, SystemRandom, Unlock, prune,
};

use crate::shape::check;
use crate::{json, repository, snapkeep, with_archive};

/// Right before a sweep's marker is put an archive is taken back; once it is put, the sweep dies.
#[derive(Debug)]
struct Dying {
    inner: LocalStorage,
    repository: Repository,
    archive: SnapshotName,
    dead: AtomicBool,
}

impl Dying {
    fn lives(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "it is dead"));
        }
        Ok(())
    }
}

impl Storage for Dying {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.lives()?;
        let marker = name.as_str().ends_with("-swept");
        if marker {
            self.repository.take_back(&self.archive)?;
        }
        self.inner.put(name, bytes)?;
        self.dead.store(marker, Ordering::SeqCst);
        Ok(())
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.lives()?;
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.lives()?;
        self.inner.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.lives()?;
        self.inner.remove(name)
    }
}

#[test]
fn an_archive_that_was_taken_back_as_a_sweep_began_is_named_until_it_is_listed() {
    let (folder, _) = with_archive();
    let list = || json(&folder, &["-r", "repo", "list"]);
    let archive = list()["archives"][0]["archive"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(list()["late"], serde_json::json!([]));
    json(&folder, &["-r", "repo", "forget", &archive]);
    let at_once = [
        "-r",
        "repo",
        "prune",
        "--any-grace",
        "--grace=0s",
        "--confirm",
    ];
    json(&folder, &at_once);
    let storage = Dying {
        inner: LocalStorage::open(&folder.path().join("repo")).unwrap(),
        repository: repository(&folder),
        archive: archive.parse().unwrap(),
        dead: AtomicBool::new(false),
    };
    let dying = Repository::open(Arc::new(storage), Arc::new(SystemRandom), &Unlock::Open);
    let options = PruneOptions {
        grace: 0,
        settle: 0,
        confirmed: true,
        ..PruneOptions::default()
    };
    prune(&Arc::new(dying.unwrap()), &options).unwrap_err();
    let told = list();
    check("`list`", &told);
    assert_eq!(told["archives"], serde_json::json!([]));
    assert_eq!(told["late"], serde_json::json!([archive]));
    let said = snapkeep(&folder, &["-r", "repo", "list"]).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains(&archive) && said.contains("snapkeep prune"),
        "{said}"
    );
    // What it tells to do helps.
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for file in fs::read_dir(folder.path().join("repo/prune")).unwrap() {
        let file = fs::File::open(file.unwrap().path()).unwrap();
        file.set_modified(old).unwrap();
    }
    json(&folder, &at_once);
    let told = list();
    assert_eq!(told["archives"][0]["archive"], *archive);
    assert_eq!(told["late"], serde_json::json!([]));
    json(&folder, &["-r", "repo", "verify"]);
}
