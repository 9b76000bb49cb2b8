//! Walkers that break every rule there is.

mod words;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use snapkeep_api::tree::{
    Content, EntryKind, Found, Judgement, KnownTree, Name, ProblemKind, Step, TreePath, TreeSource,
};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::{Options, Pull};
use crate::limits;
use crate::stream::{self, Kind};
use crate::testing::{Nothing, Tree, patient, request, sockets};
use words::Words;

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
    let cases: Vec<(&str, &str, Words)> = vec![
        ("no greeting", "no greeting", Words::default().enter("a")),
        ("two greetings", "no greeting", begin().with(stream::hello)),
        (
            "another greeting",
            "another version",
            Words::default().raw(1, 10, b"snapwalk\x09\0"),
        ),
        (
            "a message of no kind",
            "no known kind",
            begin().raw(99, 0, b""),
        ),
        ("a request", "where it must not", begin().raw(14, 0, b"")),
        (
            "a long message",
            "longer than its kind",
            begin().raw(5, 1 << 30, b""),
        ),
        (
            "a long answer",
            "longer than its kind",
            begin().raw(4, 1, b"x"),
        ),
        (
            "a message with more than it says",
            "longer than what it says",
            begin().raw(5, 258, format!("\0\u{7f}{long}").as_bytes()),
        ),
        (
            "a name with a slash",
            "impossible name",
            begin().fifo("a/b"),
        ),
        (
            "a name that leads up",
            "impossible name",
            begin().fifo(".."),
        ),
        (
            "an entry without a name",
            "without a name",
            begin().told(Kind::Entry, None, Some(EntryKind::Fifo)),
        ),
        (
            "a root with a name",
            "the root",
            Words::default().with(stream::hello).enter("a"),
        ),
        (
            "a root twice",
            "without a name",
            begin().told(Kind::Enter, None, Some(EntryKind::Directory)),
        ),
        ("a root after the root", "outside of the root", {
            let words = begin().leave();
            words.told(Kind::Enter, None, Some(EntryKind::Directory))
        }),
        ("a wrong order", "wrong order", begin().fifo("b").fifo("a")),
        ("a name twice", "wrong order", begin().fifo("a").fifo("a")),
        (
            "a folder and a file of one name",
            "wrong order",
            begin().enter("a").leave().fifo("a"),
        ),
        (
            "a folder as an entry",
            "something else",
            begin().entry("a", EntryKind::Directory),
        ),
        (
            "an entry as a folder",
            "something else",
            begin().told(Kind::Enter, Some(b"a"), Some(EntryKind::Fifo)),
        ),
        (
            "an impossible entry",
            "impossible",
            begin().file("a", 1 << 63),
        ),
        (
            "a file without a name",
            "impossible",
            begin().entry("a", EntryKind::File { size: 0, links: 0 }),
        ),
        (
            "an unknown entry that is not told",
            "something else",
            begin().told(Kind::Entry, Some(b"a"), None),
        ),
        (
            "data without a file",
            "where it must not",
            begin().data(b"x"),
        ),
        (
            "data after a file",
            "where it must not",
            begin().file("a", 1).data(b"x").end().data(b"x"),
        ),
        (
            "data of what is none",
            "where it must not",
            begin().fifo("a").data(b"x"),
        ),
        (
            "more data than announced",
            "longer than announced",
            begin().file("a", 1).data(b"xy"),
        ),
        ("a hole past the end", "longer than announced", {
            begin()
                .file("a", 9)
                .data(b"x")
                .with(|out| stream::hole(out, u64::MAX))
        }),
        (
            "an empty hole",
            "a hole is empty",
            begin().file("a", 9).with(|out| stream::hole(out, 0)),
        ),
        (
            "a short file without a reason",
            "shorter than announced",
            begin().file("a", 2).data(b"x").end(),
        ),
        (
            "a file without an end",
            "no end",
            begin().file("a", 1).data(b"x").fifo("b"),
        ),
        (
            "a folder left within a file",
            "no end",
            begin().file("a", 1).leave(),
        ),
        (
            "a root left twice",
            "outside of the root",
            begin().leave().leave(),
        ),
        (
            "an end within the tree",
            "within the tree",
            begin().empty(Kind::Done),
        ),
        ("a problem after the end", "outside of the root", {
            begin()
                .leave()
                .with(|out| stream::problem(out, None, ProblemKind::Warning, "x"))
        }),
        (
            "a link to nothing",
            "what was not told",
            begin().entry("b", link("a")),
        ),
        (
            "a link to itself",
            "what was not told",
            begin().entry("a", link("a")),
        ),
        (
            "a link to what has one name",
            "what was not told",
            begin().fifo("a").entry("b", link("a")),
        ),
        (
            "a link to a folder",
            "what was not told",
            begin().enter("a").leave().entry("b", link("a")),
        ),
        (
            "a link elsewhere",
            "what was not told",
            linked(begin()).entry("b", link("c/a")),
        ),
        ("a link with links", "what was not told", {
            let kind = Some(link("a"));
            linked(begin()).told_as(Kind::Entry, Some(b"b"), kind, true)
        }),
        ("a folder with links", "links to a folder", {
            begin().told_as(Kind::Enter, Some(b"a"), Some(EntryKind::Directory), true)
        }),
        ("a link to what was lost", "what was not told", {
            let kind = Some(EntryKind::File { size: 1, links: 2 });
            let words = begin().told_as(Kind::Entry, Some(b"a"), kind, true);
            words
                .with(|out| stream::text(out, Kind::Lost, Some("no")))
                .entry("b", link("a"))
        }),
        (
            "a question twice",
            "wrong order",
            begin().ask(&["a"]).ask(&["a"]),
        ),
        (
            "a question in the wrong order",
            "wrong order",
            begin().ask(&["b", "a"]),
        ),
        (
            "a question about what was told",
            "wrong order",
            begin().fifo("b").ask(&["a"]),
        ),
        (
            "a question about nothing",
            "about nothing",
            begin().raw(2, 0, b""),
        ),
        (
            "a question outside",
            "outside of the root",
            begin().leave().ask(&["a"]),
        ),
        (
            "a question open at a folder",
            "before a folder",
            begin().ask(&["a", "z"]).enter("b"),
        ),
    ];
    for (what, why, words) in cases {
        let error = words.done().fault();
        assert!(error.chain().contains(why), "{what}: {}", error.chain());
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

#[test]
fn a_walker_that_only_says_that_it_lives_is_no_longer_waited_for() {
    let alive = Words::begin().empty(Kind::KeepAlive).empty(Kind::KeepAlive);
    let within = Words::begin()
        .file("a", 1)
        .empty(Kind::KeepAlive)
        .empty(Kind::KeepAlive);
    for words in [alive, within] {
        let (ours, theirs) = sockets();
        let mut theirs = UnixStream::from(theirs);
        for message in &words.0 {
            theirs.write_all(message).unwrap();
        }
        let mut pull = Pull::new(ours, &request(Path::new("/")), patient()).unwrap();
        pull.peer.idle_limit = Duration::ZERO;
        let error = Tree::pull(&mut pull, &mut Nothing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.chain().contains("no further"), "{}", error.chain());
    }
}

#[test]
fn a_walker_that_does_something_between_may_live_long() {
    let (ours, _theirs) = sockets();
    let mut peer = super::Peer::new(ours, patient());
    peer.idle_limit = Duration::from_secs(3600);
    peer.only_alive().unwrap();
    peer.only_alive().unwrap();
    peer.idle_limit = Duration::ZERO;
    assert!(peer.only_alive().is_err());
    peer.said_something();
    peer.idle_limit = Duration::from_secs(3600);
    peer.only_alive().unwrap();
}
