//! What the documents say, ours and those of Proxmox: each table names its source.

use snapkeep_walk::exclude::STANDARD;

use super::tree::Tree;

/// The tables of docs/EXCLUDE.md whose columns are: patterns, left out, taken.
#[test]
fn the_examples_of_our_document_are_true() {
    let document = include_str!("../../../../docs/EXCLUDE.md");
    let mut in_table = false;
    let mut rows = 0;
    for line in document.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        in_table = line.starts_with("| pattern") || in_table && line.starts_with('|');
        if !in_table || line.starts_with("| pattern") || line.starts_with("|---") {
            continue;
        }
        assert!(cells.len() == 3, "{line}");
        let given = quoted(cells[0]);
        let (out, taken) = (quoted(cells[1]), quoted(cells[2]));
        let tree = Tree::new(
            out.iter()
                .chain(&taken)
                .map(|path| path.trim_start_matches('/')),
        );
        let found = tree.taken(&given);
        let is_taken = |path: &str| {
            found
                .iter()
                .any(|taken| taken == path.trim_start_matches('/'))
        };
        for path in out {
            assert!(!is_taken(path), "{line}: {path} is taken");
        }
        for path in taken {
            assert!(is_taken(path), "{line}: {path} is left out");
        }
        rows += 1;
    }
    assert!(rows >= 20, "{rows} examples");
}

/// What is between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Patterns, a tree, and what of it is left out (the rest is taken, but for what is in it).
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

#[track_caller]
fn check(rows: &[Row]) {
    for (given, tree, out) in rows {
        let tree = Tree::new(*tree);
        let taken = tree.taken(given);
        let below = |path: &str| {
            out.iter()
                .any(|out| path == *out || out.ends_with('/') && path.starts_with(out))
        };
        let expected = tree
            .entries()
            .map(|(path, _)| path)
            .filter(|path| !below(path));
        let expected: Vec<_> = expected.collect();
        assert_eq!(taken, expected, "{given:?}");
    }
}

/// Proxmox VE, vzdump(1), "File Exclusions", and what vzdump passes on.
#[test]
fn the_examples_of_vzdump_hold() {
    const TREE: &[&str] = &[
        "bar",
        "bar2",
        "tmp/x",
        "tmp/.y",
        "tmp/d/z",
        "var/bar/x",
        "var/foo",
        "var/foo.d/x",
        "var/foobar/x",
        "var/fo",
        "var/foo2/bar",
        "var/tmp/x",
        "var/run/a.pid",
        "var/run/.pid",
        "var/run/a.pid2",
        "var/run/d/a.pid",
        "srv/tmp/x",
        "srv/var/foo",
    ];
    check(&[
        // "vzdump skips the following files by default": the folders themselves stay.
        (
            &STANDARD,
            TREE,
            &["tmp/x", "tmp/.y", "tmp/d/", "var/tmp/x", "var/run/a.pid"],
        ),
        // "excludes the directory /tmp/ and any file or directory named /var/foo, /var/foobar,
        // and so on"
        (
            &["/tmp/", "/var/foo*"],
            TREE,
            &["tmp/", "var/foo", "var/foo.d/", "var/foobar/", "var/foo2/"],
        ),
        // "excludes any file or directory named /bar, /var/bar, /var/foo/bar, and so on, but not
        // /bar2"
        (&["bar"], TREE, &["bar", "var/bar/", "var/foo2/bar"]),
        // "patterns with a trailing slash will match directories, but not files"
        (&["bar/", "foo/"], TREE, &["var/bar/"]),
    ]);
}

/// Proxmox Backup Server, "Backup Client Usage", "Excluding Files/Directories from a Backup": the
/// example with two files and what it restores.
#[test]
fn the_example_of_proxmox_backup_holds() {
    let mut tree = Tree::default();
    tree.add(
        ".pxarexclude",
        b"/subfolder0/file1\n/subfolder1/*\n!/subfolder1/file2\n",
    );
    tree.add("subfolder0/.pxarexclude", b"file3\n");
    for folder in ["subfolder0", "subfolder1"] {
        for file in ["file0", "file1", "file2", "file3"] {
            tree.add(&format!("{folder}/{file}"), b"");
        }
    }
    let restored = [
        ".pxarexclude",
        "subfolder0/",
        "subfolder0/.pxarexclude",
        "subfolder0/file0",
        "subfolder0/file2",
        "subfolder1/",
        "subfolder1/file2",
    ];
    assert_eq!(tree.taken::<&str>(&[]), restored);
}

/// The sentences of the same chapter, each as a row.
#[test]
fn the_sentences_of_proxmox_backup_hold() {
    check(&[
        // "Lines ending in / match only on directories."
        (&["x/"], &["x/f", "d/x"], &["x/"]),
        // "patterns with a leading / will only match in the current directory"
        (&["/x"], &["x", "d/x"], &["x"]),
        // "Patterns without a leading / will also match in subdirectories"
        (&["x"], &["x", "d/x", "d/e/x"], &["x", "d/x", "d/e/x"]),
        // "\ is used to escape special glob characters."
        (
            &["\\*", "\\[a]", "\\!b"],
            &["*", "a", "[a]", "!b", "b"],
            &["*", "[a]", "!b"],
        ),
        // "? matches any single character."
        (&["a?"], &["a", "ab", "abc", "d/ax"], &["ab", "d/ax"]),
        // "* matches any character, including an empty string."
        (&["a*b"], &["ab", "axxb", "abc", "d/a/b"], &["ab", "axxb"]),
        // "with the pattern **/*.tmp, it would exclude all files ending in .tmp within a directory
        // and its subdirectories"
        (
            &["**/*.tmp"],
            &["a.tmp", "d/b.tmp", "d/e/.tmp", "tmp"],
            &["a.tmp", "d/b.tmp", "d/e/.tmp"],
        ),
        // "[...] matches a single character from any of the provided characters"
        (&["[abc]"], &["a", "b", "c", "d", "ab"], &["a", "b", "c"]),
        // "[!...] does the complementary"
        (&["[!abc]"], &["a", "d", "!", "dd"], &["d", "!"]),
        // "[a-z] matches any lowercase alphabetic character, and [0-9] matches any single digit"
        (
            &["[a-z][0-9]"],
            &["a0", "z9", "A0", "aa", "a00"],
            &["a0", "z9"],
        ),
        // "later entries override earlier ones"
        (&["*", "!a"], &["a", "b"], &["b"]),
        (&["!a", "*"], &["a", "b"], &["a", "b"]),
    ]);
}

/// "Excluded directories will not be read by the backup client. Thus, a .pxarexclude file in an
/// excluded subdirectory will have no effect."
#[test]
fn nothing_in_an_excluded_folder_can_be_included_again() {
    let mut tree = Tree::new(["d/keep", "d/lose", "e/keep", "e/lose"]);
    tree.add("d/.pxarexclude", b"!keep\n!*\n");
    assert_eq!(
        tree.taken(&["d", "!d/keep", "/e/*", "!keep"]),
        ["e/", "e/keep"]
    );
}

/// "This is also true for match patterns encountered deeper down the directory tree, which can
/// override a previous exclusion."
#[test]
fn a_deeper_file_overrides_one_above_and_what_the_administrator_gives() {
    let mut tree = Tree::new(["a.log", "d/a.log", "d/e/a.log", "d/b.log"]);
    tree.add("d/.pxarexclude", b"!a.log\n");
    tree.add("d/e/.pxarexclude", b"*.log\n");
    let taken = tree.taken(&["*.log"]);
    assert!(taken.contains(&"d/a.log".to_owned()));
    assert!(
        !taken
            .iter()
            .any(|path| path == "a.log" || path == "d/e/a.log" || path == "d/b.log")
    );
}

/// "The directory containing the .pxarexclude file is considered to be the root of the given
/// patterns. It is only possible to match files in this directory and its subdirectories." So the
/// folder's own name is no part of what a pattern is held against.
#[test]
fn the_patterns_of_a_file_hold_in_its_folder_only() {
    let mut tree = Tree::new(["a", "d/a", "d/d/a", "d/*/a", "d/*/b", "e/a"]);
    tree.add("d/.pxarexclude", b"/a\nd/a\n");
    tree.add("d/*/.pxarexclude", b"/b\n");
    let taken = tree.taken::<&str>(&[]);
    let out = ["d/a", "d/d/a", "d/*/b"];
    let expected = tree
        .entries()
        .map(|(path, _)| path)
        .filter(|path| !out.contains(path));
    let expected: Vec<_> = expected.collect();
    assert_eq!(taken, expected);
}
