//! Walkers that break every rule there is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use snapkeep_api::tree::{
    Attributes, Content, Entry, EntryKind, Found, FoundKind, Judgement, KnownTree, Name,
    ProblemKind, Step, Timestamp, TreePath, TreeSource, Witness,
};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::{Options, Pull};
use crate::limits;
use crate::stream::{self, Kind, Telling};
use crate::testing::{Nothing, Tree, patient, request, sockets};

/// What a walker says, message by message.
#[derive(Clone, Default)]
struct Words(Vec<Vec<u8>>);

impl Words {
    /// The greeting and the root.
    fn begin() -> Self {
        Self::default()
            .with(stream::hello)
            .told(Kind::Enter, None, Some(EntryKind::Directory))
    }

    fn with(mut self, make: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut message = Vec::new();
        make(&mut message);
        self.0.push(message);
        self
    }

    fn raw(self, kind: u8, length: u32, payload: &[u8]) -> Self {
        self.with(|out| {
            out.extend(length.to_le_bytes());
            out.push(kind);
            out.extend(payload);
        })
    }

    fn told(self, kind: Kind, name: Option<&[u8]>, entry: Option<EntryKind>) -> Self {
        self.told_as(kind, name, entry, false)
    }

    fn told_as(
        self,
        kind: Kind,
        name: Option<&[u8]>,
        entry: Option<EntryKind>,
        linked: bool,
    ) -> Self {
        let entry = entry.map(|kind| Entry {
            attributes: Attributes::default(),
            kind,
        });
        let telling = Telling {
            name,
            entry: entry.as_ref(),
            witness: None,
            linked,
        };
        self.with(|out| stream::told(out, kind, &telling))
    }

    fn enter(self, name: &str) -> Self {
        self.told(
            Kind::Enter,
            Some(name.as_bytes()),
            Some(EntryKind::Directory),
        )
    }

    fn entry(self, name: &str, kind: EntryKind) -> Self {
        self.told(Kind::Entry, Some(name.as_bytes()), Some(kind))
    }

    fn fifo(self, name: &str) -> Self {
        self.entry(name, EntryKind::Fifo)
    }

    fn file(self, name: &str, size: u64) -> Self {
        self.entry(name, EntryKind::File { size, links: 1 })
    }

    fn data(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap();
        self.raw(Kind::Data.number(), length, bytes)
    }

    fn empty(self, kind: Kind) -> Self {
        self.with(|out| stream::empty(out, kind))
    }

    fn end(self) -> Self {
        self.with(|out| stream::text(out, Kind::End, None))
    }

    fn ask(self, names: &[&str]) -> Self {
        let witness = Witness {
            inode: 1,
            ctime: Timestamp::default(),
        };
        let found = Found {
            kind: FoundKind::File { size: 1 },
            mtime: Timestamp::default(),
            witness,
        };
        let all = names.iter().map(|name| (name.as_bytes(), found));
        self.with(|out| stream::batch(out, all))
    }

    fn leave(self) -> Self {
        self.empty(Kind::Leave)
    }

    fn done(self) -> Self {
        self.leave().empty(Kind::Done)
    }

    /// Says it all and hangs up; what comes back is read away.
    fn pull(&self, known: &mut dyn KnownTree) -> Result<Tree> {
        let (ours, theirs) = sockets();
        let mut theirs = UnixStream::from(theirs);
        thread::scope(|scope| {
            let mut reading = theirs.try_clone().unwrap();
            scope.spawn(move || {
                let mut room = [0; 4096];
                while reading.read(&mut room).is_ok_and(|read| read > 0) {}
            });
            scope.spawn(move || {
                for message in &self.0 {
                    // The reader may have had enough.
                    if theirs.write_all(message).is_err() {
                        break;
                    }
                }
                theirs.shutdown(std::net::Shutdown::Write)
            });
            let mut pull = Pull::new(ours, &request("/".as_ref()), patient())?;
            let tree = Tree::pull(&mut pull, known);
            if let Err(error) = &tree {
                // It stays an error.
                assert_eq!(pull.next(known).unwrap_err().chain(), error.chain());
            }
            tree
        })
    }

    fn fault(&self) -> Error {
        self.pull(&mut Nothing).unwrap_err()
    }
}

struct All;

impl KnownTree for All {
    fn judge(&mut self, _: &Name, _: &Found) -> Result<Judgement> {
        Ok(Judgement::Known)
    }
}

#[test]
fn a_walker_that_keeps_the_rules_is_believed() {
    let words = Words::begin()
        .ask(&["a", "b", "gone"])
        .file("a", 3)
        .data(b"ab")
        .empty(Kind::KeepAlive)
        .data(b"c")
        .end()
        .ask(&["h"])
        .enter("h")
        .fifo("x")
        .leave()
        .fifo("i")
        .done();
    let tree = words.pull(&mut Nothing).unwrap();
    assert_eq!(tree.order, ["/", "/a", "/h", "/h/x", "/i"]);
    assert_eq!(tree.node("/a").content, b"abc");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_breaks_a_rule_is_refused() {
    let long = "x".repeat(256);
    let begin = Words::begin;
    let link = |to: &str| EntryKind::HardLink {
        to: TreePath::new(to).unwrap(),
    };
    let linked = |words: Words| {
        let kind = Some(EntryKind::Fifo);
        words.told_as(Kind::Entry, Some(b"a"), kind, true)
    };
    let cases: Vec<(&str, Words)> = vec![
        ("no greeting", Words::default().enter("a")),
        ("two greetings", begin().with(stream::hello)),
        (
            "another greeting",
            Words::default().raw(1, 10, b"snapwalk\x09\0"),
        ),
        ("a message of no kind", begin().raw(99, 0, b"")),
        ("a request", begin().raw(14, 0, b"")),
        ("a long message", begin().raw(5, 1 << 30, b"")),
        ("a long answer", begin().raw(4, 1, b"x")),
        (
            "a name that is too long",
            begin().raw(5, 258, format!("\0\u{7f}{long}").as_bytes()),
        ),
        ("a name with a slash", begin().fifo("a/b")),
        ("a name that leads up", begin().fifo("..")),
        (
            "an entry without a name",
            begin().told(Kind::Entry, None, Some(EntryKind::Fifo)),
        ),
        (
            "a root with a name",
            Words::default().with(stream::hello).enter("a"),
        ),
        (
            "a root twice",
            begin().told(Kind::Enter, None, Some(EntryKind::Directory)),
        ),
        ("a root after the root", {
            let words = begin().leave();
            words.told(Kind::Enter, None, Some(EntryKind::Directory))
        }),
        ("a wrong order", begin().fifo("b").fifo("a")),
        ("a name twice", begin().fifo("a").fifo("a")),
        (
            "a folder and a file of one name",
            begin().enter("a").leave().fifo("a"),
        ),
        (
            "a folder as an entry",
            begin().entry("a", EntryKind::Directory),
        ),
        (
            "an entry as a folder",
            begin().told(Kind::Enter, Some(b"a"), Some(EntryKind::Fifo)),
        ),
        ("an impossible entry", begin().file("a", 1 << 63)),
        (
            "a file without a name",
            begin().entry("a", EntryKind::File { size: 0, links: 0 }),
        ),
        (
            "an unknown entry that is not told",
            begin().told(Kind::Entry, Some(b"a"), None),
        ),
        ("data without a file", begin().data(b"x")),
        (
            "data after a file",
            begin().file("a", 1).data(b"x").end().data(b"x"),
        ),
        ("data of what is none", begin().fifo("a").data(b"x")),
        ("more data than announced", begin().file("a", 1).data(b"xy")),
        ("a hole past the end", {
            begin()
                .file("a", 9)
                .data(b"x")
                .with(|out| stream::hole(out, u64::MAX))
        }),
        (
            "an empty hole",
            begin().file("a", 9).with(|out| stream::hole(out, 0)),
        ),
        (
            "a short file without a reason",
            begin().file("a", 2).data(b"x").end(),
        ),
        (
            "a file without an end",
            begin().file("a", 1).data(b"x").fifo("b"),
        ),
        ("a folder left within a file", begin().file("a", 1).leave()),
        ("a root left twice", begin().leave().leave()),
        ("an end within the tree", begin().empty(Kind::Done)),
        ("a problem after the end", {
            begin()
                .leave()
                .with(|out| stream::problem(out, None, ProblemKind::Warning, "x"))
        }),
        ("a link to nothing", begin().entry("b", link("a"))),
        ("a link to itself", begin().entry("a", link("a"))),
        (
            "a link to what has one name",
            begin().fifo("a").entry("b", link("a")),
        ),
        (
            "a link to a folder",
            begin().enter("a").leave().entry("b", link("a")),
        ),
        ("a link elsewhere", linked(begin()).entry("b", link("c/a"))),
        ("a link with links", {
            let kind = Some(link("a"));
            linked(begin()).told_as(Kind::Entry, Some(b"b"), kind, true)
        }),
        ("a folder with links", {
            begin().told_as(Kind::Enter, Some(b"a"), Some(EntryKind::Directory), true)
        }),
        ("a link to what was lost", {
            let kind = Some(EntryKind::File { size: 1, links: 2 });
            let words = begin().told_as(Kind::Entry, Some(b"a"), kind, true);
            words
                .with(|out| stream::text(out, Kind::Lost, Some("no")))
                .entry("b", link("a"))
        }),
        ("a question twice", begin().ask(&["a"]).ask(&["a"])),
        ("a question in the wrong order", begin().ask(&["b", "a"])),
        (
            "a question about what was told",
            begin().fifo("b").ask(&["a"]),
        ),
        ("a question about nothing", begin().raw(2, 0, b"")),
        ("a question outside", begin().leave().ask(&["a"])),
        (
            "a question open at a folder",
            begin().ask(&["a", "z"]).enter("b"),
        ),
    ];
    for (what, words) in cases {
        let error = words.done().fault();
        assert_eq!(
            error.kind(),
            ErrorKind::Protocol,
            "{what}: {}",
            error.chain()
        );
    }
}

#[test]
fn what_is_known_must_be_told_as_such() {
    let cases = [
        Words::begin().ask(&["a"]).fifo("a"),
        Words::begin()
            .ask(&["a"])
            .told(Kind::Enter, Some(b"a"), None),
    ];
    for words in cases {
        let error = words.done().pull(&mut All).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{}", error.chain());
    }
    let words = Words::begin()
        .ask(&["a"])
        .told_as(Kind::Entry, Some(b"a"), None, true);
    let to = TreePath::new("a").unwrap();
    let tree = words
        .entry("b", EntryKind::HardLink { to })
        .done()
        .pull(&mut All)
        .unwrap();
    assert_eq!(tree.node("/a").told.judged, Judgement::Known);
}

#[test]
fn a_tree_deeper_than_any_is_refused() {
    let words = (0..8192).fold(Words::begin(), |words, _| words.enter("d"));
    let tree = (0..8192).fold(words.clone().fifo("x"), |words, _| words.leave());
    let error = words.enter("d").done().fault();
    assert!(error.chain().contains("too deep"), "{}", error.chain());
    // The folders are above an entry, which is not one of them.
    let error = tree.done().fault();
    assert!(error.chain().contains("too deep"), "{}", error.chain());
}

#[test]
fn a_walker_that_dies_at_any_message_is_named() {
    let words = Words::begin()
        .file("a", 3)
        .data(b"abc")
        .end()
        .enter("d")
        .leave()
        .done();
    let all = words.0.concat();
    for length in 0..all.len() {
        let error = Words(vec![all[..length].to_vec()]).fault();
        assert_eq!(
            error.kind(),
            ErrorKind::Source,
            "{length}: {}",
            error.chain()
        );
        assert!(
            error.chain().contains("ended"),
            "{length}: {}",
            error.chain()
        );
    }
    assert!(words.pull(&mut Nothing).is_ok());
}

#[test]
fn a_walker_that_says_nothing_is_not_waited_for_for_ever() {
    let mut one = Words::begin().file("a", 1);
    for words in [Words::default(), Words::begin(), one.clone(), {
        // A part of a message is no message.
        one.0.push(vec![1, 0]);
        one
    }] {
        let (ours, theirs) = sockets();
        let mut theirs = UnixStream::from(theirs);
        theirs.write_all(&words.0.concat()).unwrap();
        let options = Options {
            hang_limit: Duration::from_millis(50),
            ..Options::default()
        };
        let mut pull = Pull::new(ours, &request("/".as_ref()), options).unwrap();
        let error = Tree::pull(&mut pull, &mut Nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains("hangs"), "{}", error.chain());
    }
}

#[test]
fn a_walker_that_never_reads_is_not_waited_for_for_ever() {
    let (ours, theirs) = sockets();
    let mut theirs = UnixStream::from(theirs);
    theirs.write_all(&Words::begin().0.concat()).unwrap();
    let options = Options {
        hang_limit: Duration::from_millis(50),
        ..Options::default()
    };
    let mut large = request("/".as_ref());
    large.exclude = vec![vec![b'x'; 4000]; 1000];
    let mut pull = Pull::new(ours, &large, options).unwrap();
    let error = Tree::pull(&mut pull, &mut Nothing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{}", error.chain());
}

#[test]
fn a_walk_that_is_cancelled_ends() {
    let (ours, theirs) = sockets();
    let cancel = Cancel::new();
    let options = Options {
        cancel: cancel.clone(),
        ..Options::default()
    };
    let mut pull = Pull::new(ours, &request("/".as_ref()), options).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || cancel.cancel());
        let error = pull.next(&mut Nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
    drop(theirs);
}

#[test]
fn a_failed_walk_says_why_and_a_problem_is_passed_on() {
    let words = Words::begin().with(|out| stream::text(out, Kind::Fatal, Some("no\nroom")));
    let error = words.fault();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.chain().contains("no\\nroom"), "{}", error.chain());
    let words = Words::begin().with(|out| {
        stream::problem(out, Some(b"a"), ProblemKind::LeftOut, "it cannot be opened");
    });
    let tree = words.done().pull(&mut Nothing).unwrap();
    assert_eq!(
        tree.problem("/a"),
        (ProblemKind::LeftOut, "it cannot be opened")
    );
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let (ours, theirs) = sockets();
    let words = Words::begin()
        .file("a", 200_000)
        .data(&vec![7; 200_000])
        .end()
        .file("b", 0);
    let words = words.end().done();
    thread::scope(|scope| {
        scope.spawn(|| {
            UnixStream::from(theirs)
                .write_all(&words.0.concat())
                .unwrap();
        });
        let mut pull = Pull::new(ours, &request("/".as_ref()), patient()).unwrap();
        let mut next = || pull.next(&mut Nothing).unwrap().unwrap();
        assert!(matches!(next(), Step::Enter(_)));
        assert!(matches!(next(), Step::Entry(_)));
        let mut room = [0; 10];
        assert_eq!(pull.read(&mut room).unwrap(), Content::Data(10));
        assert!(pull.read(&mut []).is_err());
        let Some(Step::Entry(told)) = pull.next(&mut Nothing).unwrap() else {
            panic!()
        };
        assert_eq!(told.name.unwrap().as_bytes(), b"b");
        assert_eq!(
            pull.read(&mut room).unwrap(),
            Content::End { changed: None }
        );
        assert!(pull.read(&mut room).is_err());
        assert_eq!(pull.next(&mut Nothing).unwrap(), Some(Step::Leave));
        assert_eq!(pull.next(&mut Nothing).unwrap(), None);
        assert_eq!(pull.next(&mut Nothing).unwrap(), None);
    });
}

#[test]
fn an_error_of_who_judges_ends_the_walk() {
    struct Failing;
    impl KnownTree for Failing {
        fn judge(&mut self, _: &Name, _: &Found) -> Result<Judgement> {
            Err(Error::new(ErrorKind::Corrupt, "the base is damaged"))
        }
    }
    let error = Words::begin()
        .ask(&["a"])
        .done()
        .pull(&mut Failing)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn an_endless_message_takes_no_more_memory_than_one_may() {
    let length = u32::try_from(limits::TOLD_BYTES_MAX).unwrap();
    let words = Words::begin().raw(
        Kind::Entry.number(),
        length,
        &vec![0; limits::TOLD_BYTES_MAX],
    );
    let error = words.fault();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}
