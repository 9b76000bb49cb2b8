//! What may have happened to a guest, its storage and its archives since its last backup: whether its
//! dirty bitmap is used then, and that the task log says why not. Each archive is the disk as it was.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_api::{ArchiveName, BitmapMode, Level, Provider};
use snapkeep_provider::RepositoryProvider;
use snapkeep_repo::{FileName, MemoryStorage, Repository, Storage, SystemRandom, Unlock};

use support::{End, Log, Vm, memory, process, provider, repository_storage, restored};

/// A guest with a generation ID that was backed up twice, and has written since.
struct Scene {
    storage: Arc<MemoryStorage>,
    /// What the storage is called, together with its identity.
    id: &'static str,
    vm: Vm,
    last: ArchiveName,
    /// The repository before the last backup.
    yesterday: Arc<MemoryStorage>,
}

impl Scene {
    fn new() -> Self {
        memory().0.lock().unwrap().clear();
        let storage = repository_storage();
        let mut vm = Vm::new(8);
        vm.incarnation.vmgenid = Some([7; 16]);
        let one = provider(&storage, "main", Some("one.first"), &Log::default());
        let first = vm.back_up(&one, "one", End::Committed);
        assert_eq!(first.mode, BitmapMode::New);
        let yesterday = Arc::new(storage.fork());
        vm.write(1, 0x11);
        let last = vm.back_up(&one, "one", End::Committed);
        assert_eq!(last.mode, BitmapMode::Reuse);
        vm.write(2, 0x12);
        Self {
            storage,
            id: "one.first",
            vm,
            last: last.archive,
            yesterday,
        }
    }

    fn provider(&self, log: &Log) -> RepositoryProvider {
        provider(&self.storage, "main", Some(self.id), log)
    }

    /// A backup that is good.
    fn back_up(&mut self) -> BitmapMode {
        let provider = self.provider(&Log::default());
        let done = self.vm.back_up(&provider, "one", End::Committed);
        assert!(restored(&provider, &done.archive) == self.vm.disk);
        self.vm.write(4, 0x14);
        done.mode
    }

    /// Another QEMU goes on with the guest, and has its bitmaps.
    fn migrate(&mut self) {
        let last = self.vm.incarnation.process.unwrap();
        self.vm.incarnation.process = Some(process(last.id + 1, last.start + 1));
    }

    fn snapshot(&self) -> FileName {
        format!("snapshots/{}", self.last).parse().unwrap()
    }

    fn files(&self, folder: &str) -> Vec<FileName> {
        let mut files = Vec::new();
        let list = self.storage.list(&folder.parse().unwrap(), &mut |name, _| {
            files.push(name.clone());
            Ok(())
        });
        list.unwrap();
        files
    }

    fn forget(&self) {
        let files = Arc::clone(&self.storage) as Arc<dyn Storage>;
        let repository = Repository::open(files, Arc::new(SystemRandom), &Unlock::Open).unwrap();
        repository
            .forget(&self.last.as_str().parse().unwrap())
            .unwrap();
    }

    fn delete(&self) {
        self.storage.remove(&self.snapshot()).unwrap();
    }

    fn damage(&self) {
        let length = self.storage.length(&self.snapshot()).unwrap();
        let middle = usize::try_from(length / 2).unwrap();
        self.storage
            .damage(&self.snapshot(), |bytes| bytes[middle] ^= 1);
    }
}

/// What happened; how the disk is read then; what the log says of it, and of which level.
type Row = (&'static str, fn(&mut Scene), BitmapMode, &'static str);
/// What happens to an archive.
type Loss = (&'static str, fn(&Scene));

const NOT_REMEMBERED: &str = "its head is not the one that is remembered";

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn rows() -> Vec<Row> {
    use BitmapMode::{New, Reuse};
    vec![
        ("nothing", |_| {}, Reuse, ""),
        (
            "the storage was removed, and added again",
            |s| s.id = "one.second",
            New,
            "no earlier backup is known of this storage",
        ),
        (
            "the storage was removed, and added again for another repository",
            |s| {
                s.id = "one.second";
                s.storage = repository_storage();
            },
            New,
            "no earlier backup is known of this storage",
        ),
        (
            "another repository lies where the storage has its own",
            |s| s.storage = repository_storage(),
            New,
            NOT_REMEMBERED,
        ),
        (
            "the repository was put back from yesterday's copy",
            |s| s.storage = Arc::clone(&s.yesterday),
            New,
            NOT_REMEMBERED,
        ),
        (
            "the last archive was forgotten",
            |s| s.forget(),
            New,
            "forgotten",
        ),
        (
            "the last archive was deleted",
            |s| s.delete(),
            New,
            "there is no",
        ),
        (
            "the last archive was damaged",
            |s| s.damage(),
            New,
            "checksum",
        ),
        (
            "the last archive lost its data",
            |s| {
                for pack in s.files("packs") {
                    s.storage.remove(&pack).unwrap();
                }
            },
            New,
            "is damaged",
        ),
        (
            "the last backup was killed",
            |s| {
                let provider = s.provider(&Log::default());
                s.vm.back_up(&provider, "one", End::Killed);
            },
            New,
            "there is no",
        ),
        (
            "the disk grew",
            |s| s.vm.disk.resize(9 * support::CLUSTER, 9),
            New,
            "bytes in archive",
        ),
        ("the guest was migrated live", Scene::migrate, Reuse, ""),
        (
            "the guest was migrated live, backed up there, and came back",
            |s| {
                s.migrate();
                assert_eq!(s.back_up(), Reuse);
                s.migrate();
            },
            Reuse,
            "",
        ),
        (
            "the guest was migrated live, and has no generation ID",
            |s| {
                s.vm.incarnation.vmgenid = None;
                assert_eq!(s.back_up(), Reuse, "its QEMU is the same");
                s.migrate();
            },
            New,
            "no generation ID tells",
        ),
        (
            "the guest was migrated live to another cluster",
            |s| {
                s.migrate();
                memory().0.lock().unwrap().clear();
            },
            New,
            "no backup of this guest is remembered here",
        ),
        (
            "the guest was migrated live, backed up there, the repository put back, and came back",
            |s| {
                let copy = Arc::new(s.storage.fork());
                s.migrate();
                assert_eq!(s.back_up(), Reuse);
                s.storage = copy;
                s.migrate();
            },
            New,
            NOT_REMEMBERED,
        ),
        (
            "the guest was rolled back",
            |s| {
                let saved = s.vm.clone();
                assert_eq!(s.back_up(), Reuse);
                s.vm.roll_back(&saved);
            },
            New,
            "another generation ID",
        ),
        (
            "the guest was migrated live, and rolled back there",
            |s| {
                let saved = s.vm.clone();
                s.migrate();
                assert_eq!(s.back_up(), Reuse);
                s.vm.roll_back(&saved);
            },
            New,
            "another generation ID",
        ),
        (
            // The bitmap of the saved state is older than the backup that was made meanwhile, of the
            // disk as it was saved. So it has more than was written since.
            "the guest was hibernated, backed up, and resumed",
            |s| {
                let saved = s.vm.clone();
                s.migrate();
                s.vm.bitmaps.clear();
                let provider = s.provider(&Log::default());
                let done = s.vm.back_up(&provider, "one", End::Committed);
                assert_eq!(done.mode, New, "it has no bitmap");
                s.migrate();
                s.vm.bitmaps = saved.bitmaps;
            },
            Reuse,
            "",
        ),
        (
            // It has no bitmap then, whatever is asked for.
            "the guest was started again elsewhere, from an older replica of its disk",
            |s| {
                let replica = s.vm.disk.clone();
                assert_eq!(s.back_up(), Reuse);
                s.migrate();
                s.vm.disk = replica;
                s.vm.bitmaps.clear();
            },
            New,
            "",
        ),
    ]
}

#[test]
fn whatever_happened_the_archive_is_right_and_the_log_says_why_a_disk_is_read_whole() {
    let rows = rows();
    for (what, happens, mode, why) in &rows {
        let mut scene = Scene::new();
        happens(&mut scene);
        scene.vm.write(3, 0x13);
        let log = Log::default();
        let provider = scene.provider(&log);
        let done = scene.vm.back_up(&provider, "one", End::Committed);
        assert_eq!(done.mode, *mode, "{what}: {:?}", log.lines());
        assert!(
            restored(&provider, &done.archive) == scene.vm.disk,
            "{what}"
        );
        let lines = log.lines();
        let told: Vec<_> = lines
            .iter()
            .filter(|(_, line)| line.contains("the whole disk is read: "))
            .collect();
        assert_eq!(
            told.len(),
            usize::from(!why.is_empty()),
            "{what}: {lines:?}"
        );
        assert!(
            told.iter().all(|(_, line)| line.contains(why)),
            "{what}: {lines:?}"
        );
        // Somebody has to look at it.
        let alarms = lines.iter().filter(|(level, line)| {
            *level == Level::Warn && line.contains("put back from another time")
        });
        assert_eq!(
            alarms.count(),
            usize::from(*why == NOT_REMEMBERED),
            "{what}: {lines:?}"
        );
        // And from here on all is well.
        assert_eq!(scene.back_up(), BitmapMode::Reuse, "{what}");
    }
    eprintln!(
        "lineage table: {} histories, each archive right",
        rows.len()
    );
}

/// The disk in an archive, if it can be read.
fn try_restored(provider: &dyn Provider, archive: &ArchiveName) -> Option<Vec<u8>> {
    let mut restore = provider.open_archive(archive).ok()?.restore_vm().ok()?;
    let reader = restore.open_volume(&support::device()).ok()?;
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

#[test]
fn a_base_that_goes_after_it_was_chosen_makes_no_wrong_archive() {
    let happens: [Loss; 3] = [
        ("forgotten", Scene::forget),
        ("deleted", Scene::delete),
        ("damaged", Scene::damage),
    ];
    for (what, happens) in happens {
        let mut scene = Scene::new();
        let provider = scene.provider(&Log::default());
        let mut vm = scene.vm.clone();
        let done = vm.back_up_late(&provider, "one", End::Committed, || happens(&scene));
        assert_eq!(done.mode, BitmapMode::Reuse, "{what}");
        assert!(restored(&provider, &done.archive) == vm.disk, "{what}");
        scene.vm = vm;
        assert_eq!(scene.back_up(), BitmapMode::Reuse, "{what}");
    }
}

/// A pack that is lost takes the chunks of every archive with it that has them. Such an archive fails
/// to restore and is no base; it never restores to something else.
#[test]
fn a_pack_that_is_lost_after_the_base_was_chosen_makes_no_wrong_archive() {
    let packs = Scene::new().files("packs").len();
    let mut whole = 0;
    for number in 0..packs {
        let mut scene = Scene::new();
        let pack = scene.files("packs").remove(number);
        let provider = scene.provider(&Log::default());
        let mut vm = scene.vm.clone();
        let done = vm.back_up_late(&provider, "one", End::Either, || {
            scene.storage.remove(&pack).unwrap();
        });
        // As the next program finds it.
        let provider = scene.provider(&Log::default());
        let got = try_restored(&provider, &done.archive);
        assert!(got.as_ref().is_none_or(|got| *got == vm.disk), "{pack}");
        whole += u32::from(got.is_some());
        scene.vm = vm;
        let next = scene.back_up();
        assert!(got.is_some() || next == BitmapMode::New, "{pack}");
    }
    assert!(
        packs > 1 && whole < u32::try_from(packs).unwrap(),
        "{whole} of {packs}"
    );
}
