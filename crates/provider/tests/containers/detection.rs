//! What is taken for unchanged, and what is found out about it.

use snapkeep_api::memory::tree::MemorySource;
use snapkeep_api::tree::{Content, Found, Judgement, KnownTree, Name, Step, TreeSource};
use snapkeep_api::{Level, Result, UnixTime};
use snapkeep_repo::{FileName, Storage};

use super::{AUDIT, Host, METADATA, noise, some};
use crate::{ChangeDetection, MemoryTree};

#[test]
fn what_did_not_change_is_not_read() {
    let host = Host::new(METADATA);
    let tree = some();
    let (_, first) = host.keep(&tree);
    assert!(host.told(Level::Info, "every file is read: the guest has no archive"));
    let (second, stats) = host.keep(&tree);
    assert_eq!((stats.read, stats.new), (0, 0));
    assert_eq!(stats.archive_size, first.archive_size);
    assert!(host.told(Level::Info, "files that look as in main/ct/100/"));
    assert!(host.told(Level::Info, "22 files unchanged, 0 read: 0.0 MiB"));
    // The third believes what the second did not read.
    let mut changed = tree.clone();
    changed.set_time(UnixTime(1_690_000_000));
    changed.write("etc/07", b"seven");
    let (_, stats) = host.keep(&changed);
    assert_eq!(stats.read, 5);
    host.expect(&second, &tree);
}

#[test]
fn by_data_every_file_is_read_and_nothing_is_stored_twice() {
    let host = Host::new(ChangeDetection::Data);
    let tree = some();
    let (_, first) = host.keep(&tree);
    let (_, second) = host.keep(&tree);
    assert_eq!(second.read, first.read);
    assert_eq!(second.new, 0);
    assert!(host.told(
        Level::Info,
        "changes are not detected by what files look like"
    ));
}

#[test]
fn another_namespaces_archive_is_no_base() {
    let mut host = Host::new(METADATA);
    let tree = some();
    let (_, first) = host.keep(&tree);
    host.namespace = "other";
    assert_eq!(host.keep(&tree).1.read, first.read);
}

#[test]
fn a_forgotten_archive_is_no_base_until_it_is_taken_back() {
    let host = Host::new(METADATA);
    let tree = some();
    let (only, first) = host.keep(&tree);
    let name = only.as_str().parse().unwrap();
    host.repository().forget(&name).unwrap();
    let (second, stats) = host.keep(&tree);
    assert_eq!((stats.read, stats.new), (first.read, 0));
    host.expect(&second, &tree);
    let second = second.as_str().parse().unwrap();
    host.repository().forget(&second).unwrap();
    host.repository().take_back(&name).unwrap();
    assert_eq!(host.keep(&tree).1.read, 0);
}

#[test]
fn a_base_of_which_nothing_may_be_believed_is_passed_over() {
    let host = Host::new(METADATA);
    let mut tree = some();
    let young = tree.node("");
    young.entry.attributes.mtime.seconds = 1_900_000_000;
    let mut without = tree.clone();
    for path in ["etc", "var", "link", "var/large", "var/sparse", ""] {
        without.node(path).witness = None;
    }
    for number in 0..20 {
        without.node(format!("etc/{number:02}")).witness = None;
    }
    let (_, first) = host.keep(&without);
    assert_eq!(host.keep(&tree).1.read, first.read);
    assert!(host.told(Level::Info, "none of its files could be believed"));
    assert_eq!(host.keep(&tree).1.read, 0);
}

#[test]
fn a_damaged_base_is_passed_over_and_named() {
    let host = Host::new(METADATA);
    let tree = some();
    let (_, first) = host.keep(&tree);
    let (broken, _) = host.keep(&tree);
    let file: FileName = format!("snapshots/{broken}").parse().unwrap();
    host.storage.damage(&file, |bytes| bytes[60] ^= 1);
    // The one before it serves as well.
    assert_eq!(host.keep(&tree).1.read, 0);
    let words = format!("archive {broken}: it cannot be read");
    assert!(host.told(Level::Warn, &words));
    for name in host.repository().snapshots_of("main/ct/100").unwrap() {
        if name.as_str() == broken.as_str() {
            continue;
        }
        let file: FileName = format!("snapshots/{name}").parse().unwrap();
        host.storage.damage(&file, |bytes| bytes[60] ^= 1);
    }
    assert_eq!(host.keep(&tree).1.read, first.read);
    assert!(host.told(Level::Info, "every file is read: archive main/ct/100/"));
}

#[test]
fn a_file_of_which_a_chunk_is_missing_is_read_again() {
    let host = Host::new(METADATA);
    let mut tree = some();
    host.keep(&tree);
    // The next archive has packs of its own for what is new.
    let before = packs(&host);
    tree.file("var/new", &noise(2 << 20, 5));
    let (broken, _) = host.keep(&tree);
    let lost = packs(&host)
        .into_iter()
        .filter(|pack| !before.contains(pack));
    let mut removed = 0;
    for pack in lost {
        let bytes = host.storage.length(&pack).unwrap();
        if bytes > 1 << 20 {
            host.storage.remove(&pack).unwrap();
            removed += 1;
        }
    }
    assert!(removed > 0);
    for name in index_objects(&host) {
        // Whatever it says of packs that are gone, the repository looks for itself.
        host.storage.remove(&name).unwrap();
    }
    let mut source = tree.source();
    let (archive, stats) = host.back_up(&mut source).unwrap();
    assert_eq!(source.judged("var/new"), Some(Judgement::Read));
    assert_eq!(source.judged("var/large"), Some(Judgement::Known));
    assert_eq!(stats.read, 2 << 20);
    host.expect(&archive, &tree);
    // What was stored again mends the archive that lacked it.
    host.expect(&broken, &tree);
}

fn packs(host: &Host) -> Vec<FileName> {
    files(host, "packs")
}

fn index_objects(host: &Host) -> Vec<FileName> {
    files(host, "index")
}

fn files(host: &Host, folder: &str) -> Vec<FileName> {
    let mut all = Vec::new();
    let each = &mut |name: &FileName, _| {
        all.push(name.clone());
        Ok(())
    };
    host.storage.list(&folder.parse().unwrap(), each).unwrap();
    all
}

#[test]
fn a_file_system_that_lies_is_found_out_and_believed_no_more() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    let (_, first) = host.keep(&tree);
    tree.node("etc/11").forge(&noise(7700, 999));
    let mut source = tree.source().ahead(0);
    let (archive, stats) = host.back_up(&mut source).unwrap();
    host.expect(&archive, &tree);
    assert!(host.told(Level::Warn, "/etc/11 changed unnoticed"));
    assert!(host.told(Level::Info, "1 changed unnoticed"));
    assert_eq!(stats.read, first.read);
    // Before it they were audited; behind it nothing is believed, not even a folder's attributes.
    assert_eq!(source.judged("etc"), Some(Judgement::Known));
    assert_eq!(source.judged("etc/10"), Some(Judgement::Audit));
    for path in ["etc/12", "var", "var/large"] {
        assert_eq!(source.judged(path), Some(Judgement::Read), "{path}");
    }
    // What told the lie is not believed the next time either.
    let mut source = tree.source();
    host.back_up(&mut source).unwrap();
    assert_eq!(source.judged("etc/11"), Some(Judgement::Read));
}

#[test]
fn what_was_asked_about_before_a_lie_was_found_is_kept() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    host.keep(&tree);
    tree.node("etc/01").forge(&noise(700, 999));
    let mut source = tree.source().ahead(1000);
    let (archive, _) = host.back_up(&mut source).unwrap();
    assert_eq!(source.judged("link"), None);
    assert_eq!(source.judged("var"), Some(Judgement::Known));
    assert_eq!(source.judged("var/large"), Some(Judgement::Read));
    host.expect(&archive, &tree);
}

#[test]
fn an_audit_of_what_did_not_change_finds_nothing() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    tree.file("empty", b"");
    tree.sparse("hole", 1 << 41, &[]);
    tree.sparse("zeroes", 4 << 20, &[(0, &vec![0; 1 << 20])]);
    let (_, first) = host.keep(&tree);
    // The same bytes, otherwise laid out.
    let zeroes = tree.node("zeroes");
    zeroes.forge(&vec![0; 4 << 20]);
    let mut source = tree.source();
    let (archive, stats) = host.back_up(&mut source).unwrap();
    host.expect(&archive, &tree);
    assert_eq!(source.judged("var/sparse"), Some(Judgement::Audit));
    assert_eq!(stats.read, first.read + (3 << 20));
    assert!(!host.told(Level::Warn, ""));
}

#[test]
fn a_hole_where_data_was_is_a_lie() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    host.keep(&tree);
    let (entry, witness) = {
        let sparse = tree.get("var/sparse").unwrap();
        (sparse.entry.clone(), sparse.witness)
    };
    tree.sparse("var/sparse", 1 << 40, &[]);
    tree.node("var/sparse").entry = entry;
    tree.node("var/sparse").witness = witness;
    host.keep(&tree);
    assert!(host.told(Level::Warn, "/var/sparse changed unnoticed"));
}

#[test]
fn a_file_that_changed_between_the_question_and_its_reading_is_no_lie() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    host.keep(&tree);
    let old = tree.clone();
    tree.set_time(UnixTime(1_690_000_000));
    tree.write("etc/11", &noise(7700, 999));
    // It is asked about as it was.
    let mut source = Between {
        asks: old.source(),
        tells: tree.source(),
    };
    let (archive, _) = host.back_up(&mut source).unwrap();
    assert_eq!(source.asks.judged("etc/11"), Some(Judgement::Audit));
    host.expect(&archive, &tree);
    assert!(!host.told(Level::Warn, ""));
}

/// Asks about one tree and tells another with the same entries.
struct Between {
    asks: MemorySource,
    tells: MemorySource,
}

impl TreeSource for Between {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        let asked = self.asks.next(known)?;
        let mut told = self.tells.next(&mut Nothing)?;
        if let (
            Some(Step::Enter(asked) | Step::Entry(asked)),
            Some(Step::Enter(told) | Step::Entry(told)),
        ) = (asked, &mut told)
        {
            // All is told with its entry, whatever was answered.
            told.judged = asked.judged;
        }
        Ok(told)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        TreeSource::read(&mut self.tells, buffer)
    }
}

/// Knows nothing.
struct Nothing;

impl KnownTree for Nothing {
    fn judge(&mut self, _name: &Name, _found: &Found) -> Result<Judgement> {
        Ok(Judgement::Read)
    }
}

#[test]
fn content_that_cannot_be_compared_is_believed_no_more_and_fails_nothing() {
    let host = Host::new(AUDIT);
    let mut tree = some();
    tree.file("zz", b"after it");
    host.keep(&tree);
    let largest = packs(&host)
        .into_iter()
        .max_by_key(|pack| host.storage.length(pack).unwrap());
    // Within the large file's content.
    let middle = 2 << 20;
    (host.storage).damage(&largest.unwrap(), |bytes| bytes[middle] ^= 1);
    let mut source = tree.source().ahead(0);
    let (_, stats) = host.back_up(&mut source).unwrap();
    assert_eq!(stats.left_out, 0);
    assert!(host.told(Level::Warn, "the content of /var/large there"));
    assert!(!host.told(Level::Warn, "changed unnoticed"));
    assert_eq!(source.judged("var/large"), Some(Judgement::Audit));
    assert_eq!(source.judged("zz"), Some(Judgement::Read));
}

#[test]
fn a_base_that_is_damaged_anywhere_fails_nothing() {
    let mut host = Host::new(METADATA);
    let mut tree = MemoryTree::new();
    for number in 0..4000 {
        tree.file(format!("many/{number:05}"), &noise(20, number));
    }
    for folder in 0..30 {
        for number in 0..100 {
            tree.file(format!("{folder:03}/{number}"), b"x");
        }
    }
    host.keep(&tree);
    let whole = std::sync::Arc::clone(&host.storage);
    let mut warned = 0;
    for pack in packs(&host) {
        let length = usize::try_from(whole.length(&pack).unwrap()).unwrap();
        for place in 1..12 {
            host.storage = std::sync::Arc::new(whole.fork());
            (host.storage).damage(&pack, |bytes| bytes[length * place / 12] ^= 1);
            host.log.0.lock().unwrap().clear();
            let mut source = tree.source().ahead(7 * place * place);
            let (_, stats) = host.back_up(&mut source).unwrap();
            assert_eq!(stats.left_out, 0);
            assert_eq!(stats.read, source.bytes_read());
            let told = host.count(Level::Warn, "the rest of the files are all read");
            assert!(told <= 1);
            warned += told;
        }
    }
    assert!(warned > 1, "{warned}");
}

#[test]
fn some_files_are_audited_and_not_all() {
    let host = Host::new(ChangeDetection::Metadata { audit: 250 });
    let mut tree = MemoryTree::new();
    for number in 0..2000 {
        tree.file(format!("{number}"), b"x");
    }
    host.keep(&tree);
    let (_, stats) = host.keep(&tree);
    // 500 are expected; this far off it is once in 10^30 runs.
    assert!((270..=730).contains(&stats.read), "{}", stats.read);
}
