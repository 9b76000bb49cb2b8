//! A repository that is pruned in the tests: in memory, with a clock that they set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use snapkeep_repo::{
    Clock, KeyFile, MemoryStorage, Merge, PruneOptions, PruneReport, Repository, Result,
    SnapshotName, Storage, SystemRandom, TreeReader, Unlock, prune, verify,
};

use super::between::{Between, Step};
use super::tree::{Entry, directory, file, noise, read, store};
use super::{CHUNK, backup, disk, init, key, name, restore};

pub(crate) const DAY: i64 = 86_400;

/// What an archive holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    Disk(Vec<u8>),
    Tree(Entry),
}

/// A repository, and what its archives are to hold.
pub(crate) struct World {
    pub(crate) memory: Arc<MemoryStorage>,
    pub(crate) key: KeyFile,
    pub(crate) archives: BTreeMap<SnapshotName, Content>,
    time: Arc<AtomicI64>,
}

/// The world's clock: whoever waits has it go on.
#[derive(Debug)]
struct WorldClock(Arc<MemoryStorage>, Arc<AtomicI64>);

impl Clock for WorldClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.1.load(Ordering::SeqCst).unsigned_abs())
    }

    fn time_of_day(&self) -> Duration {
        self.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        let seconds = i64::try_from(duration.as_secs()).unwrap();
        let time = self.1.fetch_add(seconds, Ordering::SeqCst) + seconds;
        self.0.set_time(time);
    }
}

/// Everything that is not needed goes, and nothing is asked.
pub(crate) fn options() -> PruneOptions {
    PruneOptions {
        max_unused: 0,
        settle: 0,
        confirmed: true,
        ..PruneOptions::default()
    }
}

/// A disk of which each chunk is in a pack with others that some archive does not have.
pub(crate) fn changed(mut bytes: Vec<u8>, seed: u8) -> Vec<u8> {
    bytes[CHUNK..2 * CHUNK].fill(seed);
    bytes
}

/// A tree with a large file and small ones.
pub(crate) fn tree(seed: u64) -> Entry {
    directory([
        (b"large".to_vec(), file(&noise(seed, 300_000))),
        (b"same".to_vec(), file(&noise(7, 200_000))),
        (b"small".to_vec(), file(&noise(seed, 100))),
    ])
}

impl World {
    pub(crate) fn new() -> Self {
        let memory = Arc::new(MemoryStorage::new());
        memory.set_time(1000 * DAY);
        let key = key();
        init(&(Arc::clone(&memory) as _), &key).unwrap();
        Self {
            memory,
            key,
            archives: BTreeMap::new(),
            time: Arc::new(AtomicI64::new(1000 * DAY)),
        }
    }

    /// Two disks and two trees, one of each to be forgotten, three days ago.
    pub(crate) fn with_history() -> Self {
        let mut world = Self::new();
        world.back_up("1", &disk(1, 7));
        world.back_up("2", &changed(disk(1, 7), 9));
        world.back_up_tree("3t", &tree(1));
        world.back_up_tree("4t", &tree(2));
        world.pass(3 * DAY);
        world
    }

    /// In which a sweep is due, of what two archives alone need.
    pub(crate) fn due() -> Self {
        let mut world = Self::with_history();
        world.forget("1");
        world.forget("3t");
        world.prune().unwrap();
        world.pass(2 * DAY);
        world
    }

    /// The same, as it is now, on a storage of its own.
    pub(crate) fn fork(&self) -> Self {
        Self {
            memory: Arc::new(self.memory.fork()),
            key: self.key.clone(),
            archives: self.archives.clone(),
            time: Arc::new(AtomicI64::new(self.time.load(Ordering::SeqCst))),
        }
    }

    /// The same storage and clock for somebody else.
    pub(crate) fn same(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            key: self.key.clone(),
            archives: self.archives.clone(),
            time: Arc::clone(&self.time),
        }
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.memory) as _
    }

    pub(crate) fn open(&self) -> Arc<Repository> {
        self.open_on(self.storage()).unwrap()
    }

    pub(crate) fn open_on(&self, storage: Arc<dyn Storage>) -> Result<Arc<Repository>> {
        let unlock = Unlock::KeyFile(self.key.clone());
        Repository::open(storage, Arc::new(SystemRandom), &unlock).map(Arc::new)
    }

    /// The clock, as a storage has it.
    pub(crate) fn time(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.time)
    }

    /// The same for whoever waits and measures by the world's clock.
    pub(crate) fn open_on_with_its_clock(
        &self,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Repository>> {
        let unlock = Unlock::KeyFile(self.key.clone());
        let clock = Arc::new(WorldClock(Arc::clone(&self.memory), self.time()));
        let opened = Repository::open(storage, Arc::new(SystemRandom), &unlock)?;
        Ok(Arc::new(opened.with_clock(clock)))
    }

    /// Merges the index objects that are there into tables.
    pub(crate) fn merge(&self) {
        let unlock = Unlock::KeyFile(self.key.clone());
        let random = Arc::new(SystemRandom);
        Repository::open_merged(self.storage(), random, &unlock, Merge::Always).unwrap();
    }

    pub(crate) fn pass(&self, seconds: i64) {
        let time = self.time.fetch_add(seconds, Ordering::SeqCst) + seconds;
        self.memory.set_time(time);
    }

    pub(crate) fn back_up(&mut self, text: &str, bytes: &[u8]) {
        backup(&self.open(), &name(text), None, bytes).unwrap();
        self.archives
            .insert(name(text), Content::Disk(bytes.to_vec()));
    }

    pub(crate) fn back_up_tree(&mut self, text: &str, tree: &Entry) {
        store(&self.open(), text, tree).unwrap();
        let content = Content::Tree(tree.clone());
        self.archives.insert(name(text), content);
    }

    pub(crate) fn forget(&mut self, text: &str) {
        self.open().forget(&name(text)).unwrap();
        self.archives.remove(&name(text));
    }

    pub(crate) fn prune(&self) -> Result<PruneReport> {
        prune(&self.open(), &options())
    }

    /// Prunes while something is done at the first step that is meant.
    pub(crate) fn prune_while(
        &self,
        options: &PruneOptions,
        is_meant: impl Fn(Step<'_>) -> bool + Send + 'static,
        deed: impl Fn(&Self) + Send + 'static,
    ) -> Result<PruneReport> {
        let (others, done) = (self.same(), AtomicBool::new(false));
        let hook = move |step: Step<'_>| {
            if is_meant(step) && !done.swap(true, Ordering::SeqCst) {
                deed(&others);
            }
        };
        let between = Arc::new(Between::new(self.storage(), hook));
        prune(&self.open_on(between).unwrap(), options)
    }

    /// The files that tell what sweeps left.
    pub(crate) fn markers(&self) -> Vec<String> {
        let mut files = self.files("prune");
        files.retain(|file| file.ends_with("-swept"));
        files
    }

    /// Marks, waits, and sweeps, until nothing waits.
    pub(crate) fn prune_all(&self) {
        for _ in 0..8 {
            if self.prune().unwrap().waiting.is_none() {
                return;
            }
            self.pass(2 * DAY);
        }
        panic!("pruning does not come to an end");
    }

    /// Whether a pruning that asks would not miss an archive.
    pub(crate) fn misses_nothing(&self) -> Result<(), String> {
        let asking = PruneOptions {
            confirmed: false,
            ..options()
        };
        let error = prune(&self.fork().open(), &asking).err();
        let missed = error.filter(|e| e.chain().contains("not listed, though"));
        missed.map_or(Ok(()), |e| Err(e.chain()))
    }

    pub(crate) fn files(&self, below: &str) -> Vec<String> {
        files(&*self.memory, below)
    }

    /// Whether each archive that is there holds what it is to hold, and no other is there.
    pub(crate) fn holds(&self) -> Result<(), String> {
        self.holds_also(&[])
    }

    /// The same, but that these archives may be there too.
    pub(crate) fn holds_also(&self, more: &[&(SnapshotName, Content)]) -> Result<(), String> {
        let repository = (self.open_on(self.storage())).map_err(|e| e.chain())?;
        let listed = repository.snapshots().map_err(|e| e.chain())?;
        if let Some(lost) = self.archives.keys().find(|name| !listed.contains(name)) {
            return Err(format!("{lost} is lost"));
        }
        for name in &listed {
            let other = more.iter().find(|(other, _)| other == name);
            let Some(content) = self.archives.get(name).or(other.map(|(_, c)| c)) else {
                return Err(format!("{name} is there"));
            };
            let found = content_of(&repository, name);
            if found.map_err(|e| format!("{name}: {}", e.chain()))? != *content {
                return Err(format!("{name} holds something else"));
            }
        }
        let report = verify(&repository).map_err(|e| e.chain())?;
        // Nobody was told that it is there.
        let all = (repository.all_snapshots_of(None)).map_err(|e| e.chain())?;
        let late = repository.late(&all).map_err(|e| e.chain())?;
        let is_late = |object: &str| late.iter().any(|name| name.as_str() == object);
        match (report.damage.iter()).find(|damage| !is_late(&damage.object)) {
            Some(damage) => Err(format!("{}: {}", damage.object, damage.error.chain())),
            None => Ok(()),
        }
    }

    /// What is there that nothing needs: packs without which all is well, index objects of packs
    /// that are gone, attributes of archives that are gone, and files of prunings that ended.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for pack in self.files("packs") {
            let without = self.fork();
            without.memory.remove(&pack.parse().unwrap()).unwrap();
            if without.holds().is_ok() {
                left.push(pack);
            }
        }
        let snapshots = self.files("snapshots");
        let writers: Vec<_> = (self.archives.keys())
            .map(|name| self.open().any_snapshot(name).unwrap().writer)
            .collect();
        // Tables say the same.
        let none = self.fork();
        for object in ["index", "tables"]
            .iter()
            .flat_map(|folder| self.files(folder))
        {
            none.memory.remove(&object.parse().unwrap()).unwrap();
        }
        for object in self.files("index") {
            let only = none.fork();
            let file = object.parse().unwrap();
            let length = self.memory.length(&file).unwrap();
            let bytes = self.memory.read(&file, 0..length).unwrap();
            only.memory.put(&file, &bytes).unwrap();
            let needed = (writers.iter()).any(|writer| object.contains(writer.as_str()));
            let names_some = only.unnamed() < none.unnamed();
            if !needed && !names_some {
                left.push(object);
            }
        }
        for file in self.files("attributes") {
            let of = file.rsplit_once('/').unwrap().0;
            let of = of.replacen("attributes", "snapshots", 1);
            if !snapshots.contains(&of) {
                left.push(file);
            }
        }
        for snapshot in snapshots {
            let of = snapshot.strip_prefix("snapshots/").unwrap();
            if !self.archives.contains_key(&of.parse().unwrap()) {
                left.push(snapshot);
            }
        }
        let (markers, others): (Vec<_>, Vec<_>) =
            (self.files("prune").into_iter()).partition(|file| file.ends_with("-swept"));
        left.extend(others);
        left.extend(markers.into_iter().skip(1));
        left
    }

    /// Packs that no index object names.
    fn unnamed(&self) -> usize {
        let counted = Arc::new(snapkeep_repo::Counted::new(self.storage()));
        drop(self.open_on(Arc::clone(&counted) as _).unwrap());
        // Three ranges of each are read.
        let objects = self.files("index").len() + self.files("keys").len() + 1;
        let prune = self.files("prune").into_iter();
        let others = objects + prune.filter(|file| !file.ends_with("-swept")).count();
        usize::try_from(counted.take().reads)
            .unwrap()
            .saturating_sub(others)
            / 3
    }
}

pub(crate) fn content_of(repository: &Arc<Repository>, name: &SnapshotName) -> Result<Content> {
    match repository.snapshot(name)?.tree {
        Some(record) => {
            read(&TreeReader::open(Arc::clone(repository), &record)?).map(Content::Tree)
        }
        None => restore(repository, name).map(Content::Disk),
    }
}

pub(crate) fn files(storage: &dyn Storage, below: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut each = |file: &snapkeep_repo::FileName, _| {
        files.push(file.as_str().to_owned());
        Ok(())
    };
    storage.list(&below.parse().unwrap(), &mut each).unwrap();
    files
}
