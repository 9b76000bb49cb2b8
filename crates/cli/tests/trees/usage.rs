//! What cannot be meant is refused before the repository is looked for.

use crate::Lab;
use crate::support::{Disk, ran, text};

const CONTAINER: &[&str] = &["backup", "container", "--guest", "web"];

#[test]
fn wrong_usage_is_told_before_the_repository_is_looked_for() {
    let folder = Disk::new();
    let with = |more: &[&'static str]| [CONTAINER, more].concat();
    let cases = [
        (
            with(&[
                "--directory",
                ".",
                "--change-detection",
                "data",
                "--audit",
                "5",
            ]),
            ["--audit", "--change-detection data"],
        ),
        (
            with(&["--lxc", "web", "--snapshot-hook", "bin/hook"]),
            ["--snapshot-hook bin/hook", "absolute path"],
        ),
        (vec!["find", "web", "!x*"], ["!x*", "\\!x*"]),
        (vec!["find", "web", "!é\\*"], ["!é\\*", "\\!é\\*"]),
        (vec!["find", "web", "/"], ["`/`", "the root itself"]),
        (vec!["find", "web", "[x"], ["[x", "]"]),
        (
            vec!["restore", "container", "web", "--lxc", "new", "--overwrite"],
            ["new container", "nothing to overwrite"],
        ),
        (
            vec![
                "restore",
                "container",
                "web",
                "--to",
                "out",
                "--idmap",
                "0:1",
            ],
            ["0:1", "snapkeep"],
        ),
        (
            vec!["extract", "web", "/etc", "--to", "out", "--idmap", "0:1"],
            ["0:1", "snapkeep"],
        ),
    ];
    for (args, words) in cases {
        // A repository that is not there would be 5.
        let done = ran(folder.path(), &args, 2);
        let said = String::from_utf8(done.stderr).unwrap();
        for word in words {
            assert!(said.contains(word), "{args:?}: {word} is not in {said}");
        }
    }
    ran(folder.path(), &["find", "web", "x*"], 5);
    let good = ["--directory", ".", "--audit", "5"];
    ran(folder.path(), &with(&good), 5);
}

#[test]
fn names_that_begin_with_an_exclamation_mark_are_found_as_the_message_says() {
    let lab = Lab::new("mkdir tree; touch tree/x 'tree/!x'");
    lab.back_up("web", "tree");
    let found = text(lab.folder(), &["find", "web", "\\!x"]);
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(found.trim_end().ends_with(" /!x"), "{found}");
}
