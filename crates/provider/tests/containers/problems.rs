//! What people are told of entries that are not in the archive, or not as one would expect.

use snapkeep_api::memory::tree::{MemoryTree, Mishap};
use snapkeep_api::tree::limits::DEPTH_MAX;
use snapkeep_api::tree::{
    Attributes, Content, Entry, EntryKind, Judgement, KnownTree, Name, Step, Told, TreePath,
    TreeSource,
};
use snapkeep_api::{ErrorKind, Level, Result};

use super::{Host, METADATA, some};

#[test]
fn every_problem_is_told_with_its_path_and_counted() {
    let host = Host::new(METADATA);
    let mut tree = some();
    tree.file("var/a\nb", b"x").mishap = Some(Mishap::Lost(0));
    for (path, mishap) in [
        ("etc/01", Mishap::LeftOut),
        ("etc/02", Mishap::Lost(100)),
        ("etc/03", Mishap::Vanishes),
        ("etc/04", Mishap::Warning),
        ("etc/05", Mishap::Changes),
        ("etc/06", Mishap::Shrinks(1)),
    ] {
        tree.node(path).mishap = Some(mishap);
    }
    let (_, stats) = host.keep(&tree);
    assert_eq!(stats.left_out, 3);
    for line in [
        "/etc/01 is left out: permission denied",
        "/etc/02 is left out: an input/output error",
        "/var/a\\nb is left out: ",
        "/etc/04 is kept, but: it is odd",
        "/etc/05 is kept, but: it was changed while it was read",
        "/etc/06 is kept, but: it was changed while it was read",
    ] {
        assert!(host.told(Level::Warn, line), "{line}");
    }
    assert!(host.told(Level::Info, "/etc/03 vanished: it is gone"));
    let summary = "3 left out, 1 vanished, 3 with warnings";
    assert!(host.told(Level::Info, summary));
}

#[test]
fn problems_without_end_are_counted_and_some_are_told() {
    let host = Host::new(METADATA);
    let mut tree = MemoryTree::new();
    for number in 0..1000 {
        tree.file(format!("{number}"), b"x").mishap = Some(Mishap::LeftOut);
    }
    let (_, stats) = host.keep(&tree);
    assert_eq!(stats.left_out, 1000);
    assert_eq!(host.count(Level::Warn, "is left out: "), 200);
    assert!(host.told(
        Level::Warn,
        "200 entries were told of which this is so: is left out"
    ));
}

/// A walk down a chain of folders, each with a file behind the next folder.
struct Chain {
    folders: usize,
    depth: usize,
    up: bool,
    file: bool,
}

impl TreeSource for Chain {
    fn next(&mut self, _known: &mut dyn KnownTree) -> Result<Option<Step>> {
        if !self.up && self.depth <= self.folders {
            let name = (self.depth > 0).then_some("d");
            self.depth += 1;
            return Ok(Some(Step::Enter(told(name, EntryKind::Directory))));
        }
        self.up = true;
        if self.depth == 0 {
            return Ok(None);
        }
        self.file = !self.file;
        if self.file {
            return Ok(Some(Step::Entry(told(Some("e"), EntryKind::Fifo))));
        }
        self.depth -= 1;
        Ok(Some(Step::Leave))
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<Content> {
        Ok(Content::End { changed: None })
    }
}

#[test]
fn what_is_deeper_than_an_archive_can_have_it_is_left_out_and_named() {
    let host = Host::new(METADATA);
    let mut chain = Chain {
        folders: DEPTH_MAX + 2,
        depth: 0,
        up: false,
        file: false,
    };
    let (archive, stats) = host.back_up(&mut chain).unwrap();
    // The folder with the one name too many, and what is beside it.
    assert_eq!(stats.left_out, 2);
    assert!(host.told(Level::Warn, "it is deeper than an archive can have it"));
    let reader = host.tree(&archive);
    // The root, the folders, and a pipe in each but the last.
    let entries = (1 + DEPTH_MAX + DEPTH_MAX) as u64;
    assert_eq!(reader.totals().entries, entries);
    let deepest = TreePath::new(vec!["d"; DEPTH_MAX].join("/")).unwrap();
    assert!(
        snapkeep_api::tree::find(&*reader, &deepest)
            .unwrap()
            .is_some()
    );
    // All of it is walked again beside the new walk.
    let (depth, up, file) = (0, false, false);
    let mut chain = Chain {
        folders: DEPTH_MAX,
        depth,
        up,
        file,
    };
    let (_, stats) = host.back_up(&mut chain).unwrap();
    assert_eq!(stats.left_out, 1);
}

fn told(name: Option<&str>, kind: EntryKind) -> Told {
    Told {
        name: name.map(|name| Name::new(name.as_bytes()).unwrap()),
        judged: Judgement::Read,
        entry: Some(Entry {
            attributes: Attributes::default(),
            kind,
        }),
        witness: None,
    }
}

/// These steps; what is a file has holes without end.
struct Steps(std::vec::IntoIter<Step>);

impl TreeSource for Steps {
    fn next(&mut self, _known: &mut dyn KnownTree) -> Result<Option<Step>> {
        Ok(self.0.next())
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<Content> {
        Ok(Content::Hole(1000))
    }
}

#[test]
fn a_walk_that_breaks_a_rule_is_refused() {
    let root = || Step::Enter(told(None, EntryKind::Directory));
    let folder = || told(Some("a"), EntryKind::Directory);
    let (size, links) = (999, 1);
    let file = || told(Some("a"), EntryKind::File { size, links });
    for (words, steps) in [
        ("the root alone has no name", vec![Step::Enter(folder())]),
        ("the root alone has no name", vec![root(), root()]),
        ("ends before its root is left", vec![root()]),
        ("left that was not entered", vec![Step::Leave]),
        (
            "has no name",
            vec![root(), Step::Entry(told(None, EntryKind::Fifo))],
        ),
        (
            "told without entering it",
            vec![root(), Step::Entry(folder())],
        ),
        (
            "longer than it was said to be",
            vec![root(), Step::Entry(file())],
        ),
    ] {
        let host = Host::new(METADATA);
        let error = host.back_up(&mut Steps(steps.into_iter())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{words}");
        assert!(error.chain().contains(words), "{}", error.chain());
        assert!(host.repository().snapshots().unwrap().is_empty());
    }
}
