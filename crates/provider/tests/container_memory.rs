//! What a backup of a container takes of memory does not grow with a folder.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use snapkeep_api::tree::{
    Attributes, Content, Entry, EntryKind, Found, FoundKind, Judgement, KnownTree, Name, Step,
    Timestamp, Told, TreeSource, Witness,
};
use snapkeep_api::{
    ContainerSource, Level, Outcome, Provider, Result, SteppingClock, TaskLog, UnixTime,
    VmMechanism,
};
use snapkeep_provider::{ChangeDetection, Options, RepositoryProvider};
use snapkeep_repo::{LocalStorage, Protect, Repository, SystemRandom};

const FILES: u32 = 200_000;
/// How far ahead of what it tells the walk asks.
const AHEAD: u32 = 1000;
const MIB: u64 = 1 << 20;

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

/// A folder of very many files, made up while it is walked.
#[derive(Default)]
struct Many {
    entered: bool,
    told: u32,
    asked: u32,
    known: u32,
    /// The answers about what was asked and not told.
    answers: std::collections::VecDeque<Judgement>,
    /// How much of the file is unread.
    unread: usize,
}

const MADE: Timestamp = Timestamp {
    seconds: 1_600_000_000,
    nanos: 5,
};

fn witness(number: u32) -> Witness {
    Witness {
        inode: u64::from(number) * 31,
        ctime: MADE,
    }
}

fn size(number: u32) -> usize {
    number as usize % 5 * 4
}

fn told(name: Option<Name>, judged: Judgement, number: u32, kind: EntryKind) -> Told {
    let attributes = Attributes {
        mtime: MADE,
        ..Attributes::default()
    };
    Told {
        name,
        judged,
        entry: (judged != Judgement::Known).then_some(Entry { attributes, kind }),
        witness: Some(witness(number)),
    }
}

fn name(number: u32) -> Name {
    Name::new(format!("entry {number:07}").into_bytes()).unwrap()
}

impl TreeSource for Many {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        if !std::mem::replace(&mut self.entered, true) {
            let root = told(None, Judgement::Read, FILES, EntryKind::Directory);
            return Ok(Some(Step::Enter(root)));
        }
        while self.asked < FILES.min(self.told + AHEAD) {
            let found = Found {
                kind: FoundKind::File {
                    size: size(self.asked) as u64,
                },
                mtime: MADE,
                witness: witness(self.asked),
            };
            self.answers
                .push_back(known.judge(&name(self.asked), &found)?);
            self.asked += 1;
        }
        let Some(judged) = self.answers.pop_front() else {
            self.told += 1;
            return Ok((self.told == FILES + 1).then_some(Step::Leave));
        };
        let number = self.told;
        self.told += 1;
        self.known += u32::from(judged == Judgement::Known);
        self.unread = size(number);
        let kind = EntryKind::File {
            size: size(number) as u64,
            links: 1,
        };
        Ok(Some(Step::Entry(told(
            Some(name(number)),
            judged,
            number,
            kind,
        ))))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        let length = std::mem::take(&mut self.unread);
        if length == 0 {
            return Ok(Content::End { changed: None });
        }
        for (place, byte) in (self.told..).zip(&mut buffer[..length]) {
            *byte = place.to_le_bytes()[1];
        }
        Ok(Content::Data(length))
    }
}

/// The most memory that this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

#[test]
fn a_folder_of_200_000_files_takes_little_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = LocalStorage::create(&scratch.path().join("repository")).unwrap();
    let random = Arc::new(SystemRandom);
    let repository = Repository::init(
        Arc::new(storage),
        Arc::clone(&random) as _,
        &Protect::Open,
        1 << 20,
    );
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
        change_detection: ChangeDetection::Metadata { audit: 1 },
    };
    let clock = Arc::new(SteppingClock::new(UnixTime(1_700_000_000)));
    let repository = Arc::new(repository.unwrap());
    let provider = RepositoryProvider::new(repository, random, clock, Arc::new(Quiet), options);
    let before = peak();
    for (start, least_known) in [(1_700_000_000, 0), (1_700_000_100, FILES / 10 * 9)] {
        let mut many = Many::default();
        let mut job = provider.start_job(UnixTime(start)).unwrap();
        let mut backup = job
            .start_container(&"100".parse().unwrap(), UnixTime(start))
            .unwrap();
        let ran = backup.run(ContainerSource {
            guest_config: b"",
            firewall_config: None,
            bandwidth_limit: None,
            id_map: None,
            tree: &mut many,
        });
        ran.unwrap();
        backup.finish(&Outcome::Success).unwrap();
        assert!(many.known >= least_known, "{}", many.known);
    }
    // Buffers, packs and caches take about 30 MiB, wherever the walk is; the entries would take 80 more.
    let grown = peak() - before;
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}
