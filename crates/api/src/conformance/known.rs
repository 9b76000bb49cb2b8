//! Properties of what a provider takes for unchanged in a container. It need not take anything for
//! that.

use super::drive::{GUEST, START, text};
use super::trees::{back_up, expect_tree, kept, noise, read_ahead, run, run_mapped, sample, start};
use super::{Check, Factory};
use crate::memory::tree::{MemorySource, MemoryTree, Mishap};
use crate::tree::{
    Content, EntryKind, Judgement, KnownTree, Step, Timestamp, Told, TreeSource, Witness,
};
use crate::{Error, ErrorKind, IdMap, Outcome, Provider, Result, UnixTime};

/// A second after all that the kit's trees have, and before each backup.
const LATER: UnixTime = UnixTime(1_650_000_000);

/// Fails if what is at this path was taken for unchanged.
fn expect_read(source: &MemorySource, path: &str, why: &str) -> Check {
    match source.judged(path) {
        None => Err(format!("{path} was not asked about")),
        Some(Judgement::Read) => Ok(()),
        Some(judged @ (Judgement::Known | Judgement::Audit)) => {
            Err(format!("{path} was judged {judged:?}, but {why}"))
        }
    }
}

pub(super) fn only_what_looks_unchanged_is_known(factory: Factory<'_>) -> Check {
    type Change = fn(&mut MemoryTree);
    let changes: [(&str, Change); 8] = [
        ("its size is another", |tree| {
            let times = times(tree);
            tree.write("file", b"longer content");
            set(tree, times);
        }),
        ("its mtime is another", |tree| {
            tree.node("file").entry.attributes.mtime.nanos += 1;
        }),
        ("its mtime is earlier", |tree| {
            tree.node("file").entry.attributes.mtime.seconds -= 1;
        }),
        ("its ctime is another", |tree| {
            witness(tree, |witness| witness.ctime.nanos += 1);
        }),
        ("its ctime is earlier", |tree| {
            witness(tree, |witness| witness.ctime.seconds -= 1);
        }),
        ("its inode is another", |tree| {
            witness(tree, |witness| witness.inode += 100);
        }),
        ("it was a folder", |tree| {
            let times = times(tree);
            tree.directory("file");
            set(tree, times);
        }),
        ("it was not there", |tree| tree.remove("file")),
    ];
    for (why, change) in changes {
        let provider = factory();
        let mut tree = MemoryTree::new();
        tree.file("file", b"content");
        tree.file("other", b"content");
        let now = tree.clone();
        let mut before = tree;
        // What is known is as the change left it.
        change(&mut before);
        kept(&*provider, GUEST, &before)?;
        let (_, source) = kept(&*provider, GUEST, &now)?;
        expect_read(&source, "file", why)?;
    }
    Ok(())
}

pub(super) fn nothing_is_known_of_another_user_namespace(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = sample();
    tree.file("file", b"content");
    tree.set_time(LATER);
    let mut judged = Vec::new();
    // The last as the one before it: what may be known then is not asked here.
    for map in ["0:100000:65536", "0:200000:65536"] {
        let map: IdMap = map.parse().map_err(|e: Error| text(&e))?;
        let mut job = provider.start_job(START).map_err(|e| text(&e))?;
        let mut backup = start(&mut *job, GUEST)?;
        let mut source = tree.source();
        run_mapped(&mut *backup, &mut source, &map).map_err(|e| text(&e))?;
        backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
        job.finish(&Outcome::Success).map_err(|e| text(&e))?;
        judged.push(source);
    }
    let unmapped = kept(&*provider, GUEST, &tree)?.1;
    for source in judged.iter().chain([&unmapped]) {
        expect_read(
            source,
            "file",
            "its owners were those of another user namespace",
        )?;
    }
    Ok(())
}

pub(super) fn what_was_read_ahead_is_kept_as_it_is_at_the_end(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut early = sample();
    early.file("stays", &noise(300_000, 1));
    early.file("changes", b"early");
    early.file("goes", b"early");
    early.hard_link("link", "goes");
    early.file("folder/in it", b"early");
    early.set_time(LATER);
    let mut tree = early.clone();
    tree.write("changes", b"later");
    tree.remove("link");
    tree.remove("goes");
    tree.file("comes", b"later");
    tree.remove("folder");
    tree.file("folder", b"later");
    // With an archive before and without one.
    for _ in 0..2 {
        let mut job = provider.start_job(START).map_err(|e| text(&e))?;
        let mut backup = start(&mut *job, GUEST)?;
        let name = backup.archive_name().clone();
        read_ahead(&mut *backup, &mut early.source()).map_err(|e| text(&e))?;
        if provider.open_archive(&name).is_ok() {
            return Err("what was read ahead is an archive".to_owned());
        }
        run(&mut *backup, &mut tree.source()).map_err(|e| text(&e))?;
        backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
        job.finish(&Outcome::Success).map_err(|e| text(&e))?;
        expect_tree(&*provider, &name, &tree.archived())?;
    }
    kept(&*provider, GUEST, &tree)?;
    Ok(())
}

pub(super) fn a_failed_reading_ahead_leaves_nothing(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = sample();
    tree.file("file", &noise(100_000, 2));
    tree.set_time(LATER);
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, GUEST)?;
    let name = backup.archive_name().clone();
    let mut failing = tree.clone();
    failing.node("file").mishap = Some(Mishap::FailsAt(99_999, ErrorKind::Source));
    // A provider may read nothing ahead, so nothing fails then.
    drop(read_ahead(&mut *backup, &mut failing.source()));
    if provider.open_archive(&name).is_ok() {
        return Err("a reading ahead that failed is an archive".to_owned());
    }
    run(&mut *backup, &mut tree.source()).map_err(|e| text(&e))?;
    backup.finish(&Outcome::Success).map_err(|e| text(&e))?;
    job.finish(&Outcome::Success).map_err(|e| text(&e))?;
    expect_tree(&*provider, &name, &tree.archived())
}

fn times(tree: &MemoryTree) -> (Timestamp, Option<Witness>) {
    let file = tree.get("file").expect("it was made");
    (file.entry.attributes.mtime, file.witness)
}

fn set(tree: &mut MemoryTree, (mtime, witness): (Timestamp, Option<Witness>)) {
    let file = tree.node("file");
    file.entry.attributes.mtime = mtime;
    file.witness = witness;
}

fn witness(tree: &mut MemoryTree, change: fn(&mut Witness)) {
    change(tree.node("file").witness.as_mut().expect("it has one"));
}

pub(super) fn what_is_known_restores_as_it_was(factory: Factory<'_>) -> Check {
    for ahead in [0, 1, 7, 10_000] {
        let provider = factory();
        let mut tree = sample();
        for number in 0..300 {
            tree.file(format!("home/{number}"), &noise(number, number as u64));
        }
        tree.set_time(LATER);
        let mut archives = vec![(kept(&*provider, GUEST, &tree)?.0, tree.clone())];
        for round in 0..3u64 {
            // Something new before, between and after what stays, something gone, something else.
            tree.file(format!("a{round}/b/c"), b"new");
            tree.file(format!("home/15{round}5"), &noise(70_000, round));
            tree.file(format!("zz{round}"), b"new");
            tree.remove(format!("home/{}", 100 + round));
            tree.write(format!("home/{}", 200 + round), &noise(999, round));
            if round == 1 {
                tree.remove("run");
                tree.remove("usr/bin/vi");
                tree.file("usr/bin/vi/now/a/folder", b"1");
                tree.remove("etc");
                tree.symlink("etc", b"zz1");
            }
            let mut source = tree.source().ahead(ahead);
            let (archive, _) = back_up(&*provider, GUEST, &mut source)?.archive()?;
            expect_tree(&*provider, &archive, &tree)?;
            archives.push((archive, tree.clone()));
        }
        for (archive, tree) in &archives {
            expect_tree(&*provider, archive, tree)?;
        }
    }
    Ok(())
}

/// Backs this tree up, then another, in which something is judged `Read` because of this.
fn expect_unknown(
    provider: &dyn Provider,
    first: &MemoryTree,
    then: &MemoryTree,
    path: &str,
    why: &str,
) -> Check {
    kept(provider, GUEST, first)?;
    let (_, source) = kept(provider, GUEST, then)?;
    expect_read(&source, path, why)
}

pub(super) fn what_changed_while_it_was_read_is_not_known(factory: Factory<'_>) -> Check {
    let mut tree = MemoryTree::new();
    tree.file("file", &noise(100_000, 1));
    let clean = tree.clone();
    for mishap in [Mishap::Changes, Mishap::Shrinks(50_000), Mishap::Shrinks(0)] {
        tree.node("file").mishap = Some(mishap);
        let why = "it was changed while it was read";
        expect_unknown(&*factory(), &tree, &clean, "file", why)?;
        // Nor by another file of the length that was told.
        let mut short = tree.archived();
        short.node("file").mishap = None;
        expect_unknown(&*factory(), &tree, &short, "file", why)?;
    }
    Ok(())
}

pub(super) fn what_has_no_witness_is_not_known(factory: Factory<'_>) -> Check {
    let mut tree = MemoryTree::new();
    tree.file("folder/file", b"content");
    let clean = tree.clone();
    for path in ["folder", "folder/file"] {
        tree.node(path).witness = None;
        let why = "it was told without a witness";
        expect_unknown(&*factory(), &tree, &clean, path, why)?;
    }
    Ok(())
}

pub(super) fn what_may_be_younger_than_the_backup_is_not_known(factory: Factory<'_>) -> Check {
    for seconds in [START.0, START.0 + 1, i64::MAX] {
        for path in ["folder", "folder/file"] {
            let mut tree = MemoryTree::new();
            tree.file("folder/file", b"content");
            let why = format!("its time is {seconds} and the backup's is {}", START.0);
            let mut modified = tree.clone();
            modified.node(path).entry.attributes.mtime.seconds = seconds;
            expect_unknown(&*factory(), &modified, &modified, path, &why)?;
            let witness = tree.node(path).witness.as_mut().expect("it has one");
            witness.ctime.seconds = seconds;
            expect_unknown(&*factory(), &tree, &tree, path, &why)?;
        }
    }
    Ok(())
}

pub(super) fn what_a_failed_backup_saw_is_not_known(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = MemoryTree::new();
    tree.file("file", b"old content");
    kept(&*provider, GUEST, &tree)?;
    tree.set_time(LATER);
    tree.write("file", b"new content");
    let mut failing = tree.clone();
    failing.file("last", b"x").mishap = Some(Mishap::Fails(ErrorKind::Source));
    let failed = back_up(&*provider, GUEST, &mut failing.source())?;
    if failed.ran.is_ok() {
        return Err("the backup succeeded although its walk failed".to_owned());
    }
    let (_, source) = kept(&*provider, GUEST, &tree)?;
    expect_read(&source, "file", "only a failed backup saw it")
}

pub(super) fn what_is_audited_is_read_again(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut tree = MemoryTree::new();
    let paths: Vec<_> = (0..50).map(|number| format!("{number}")).collect();
    for path in &paths {
        tree.file(path, &noise(1000, 1));
    }
    kept(&*provider, GUEST, &tree)?;
    // The file system lies: other content, and nothing tells.
    let mut lied = tree.clone();
    for path in &paths {
        lied.node(path).forge(&noise(1000, 2));
    }
    let mut source = lied.source();
    let (archive, _) = back_up(&*provider, GUEST, &mut source)?.archive()?;
    // What was judged `Known` is what it was; all else is what it is.
    let known = |path: &&String| source.judged(path) == Some(Judgement::Known);
    for path in paths.iter().filter(known) {
        *lied.node(path) = tree.node(path).clone();
    }
    expect_tree(&*provider, &archive, &lied)
}

pub(super) fn another_guests_tree_is_not_known(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut mine = sample();
    let (archive, _) = kept(&*provider, GUEST, &mine)?;
    // It claims to be the same, down to the inodes.
    let (_, source) = kept(&*provider, "101", &mine)?;
    for path in ["etc", "etc/shadow", "usr/bin/sudo"] {
        expect_read(&source, path, "that is known of another guest only")?;
    }
    let before = mine.clone();
    for path in ["etc/shadow", "usr/bin/sudo"] {
        let size = usize::try_from(mine.node(path).size()).unwrap_or(0);
        mine.node(path).forge(&noise(size, 9));
    }
    let mut liar = mine.source();
    back_up(&*provider, "102", &mut liar)?.archive()?;
    expect_tree(&*provider, &archive, &before)?;
    // Nor does the guest itself get to see what the other told.
    let (second, _) = back_up(&*provider, GUEST, &mut before.source())?.archive()?;
    expect_tree(&*provider, &second, &before)
}

/// A walk that tells a file as known about which it never asked.
struct Liar(u32);

impl TreeSource for Liar {
    fn next(&mut self, _known: &mut dyn KnownTree) -> Result<Option<Step>> {
        self.0 += 1;
        let root = MemoryTree::new().root().entry.clone();
        let told = |name: Option<&str>, entry| -> Result<Told> {
            let name = name.map(|name| crate::tree::Name::new(name.as_bytes()));
            Ok(Told {
                name: name.transpose()?,
                judged: Judgement::Known,
                entry,
                witness: None,
            })
        };
        Ok(match self.0 {
            1 => Some(Step::Enter(told(None, Some(root))?)),
            2 => Some(Step::Entry(told(Some("never-seen"), None)?)),
            3 => Some(Step::Leave),
            _ => None,
        })
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<Content> {
        Ok(Content::End { changed: None })
    }
}

pub(super) fn what_was_never_known_cannot_be_told_as_known(factory: Factory<'_>) -> Check {
    let provider = factory();
    let mut other = MemoryTree::new();
    other.file("never-seen", b"a secret");
    let (archive, _) = kept(&*provider, "101", &other)?;
    for with_base in [false, true] {
        if with_base {
            let mut tree = MemoryTree::new();
            tree.put("another", EntryKind::Fifo);
            kept(&*provider, GUEST, &tree)?;
        }
        match back_up(&*provider, GUEST, &mut Liar(0))?.ran {
            Ok(_) => return Err("a file that nobody ever saw is in an archive".to_owned()),
            Err(e) if e.kind() == ErrorKind::Protocol => {}
            Err(e) => return Err(format!("not of kind Protocol: {}", text(&e))),
        }
    }
    expect_tree(&*provider, &archive, &other)
}
