//! Programs that know such patterns too, where they mean the same: what of a tree they take, and
//! what we take of it. The patterns are random, but the same in every run.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use snapkeep_walk::exclude::{Decision, Patterns};

use super::spec::{Part, Spec, Token, specs, tokens};
use super::tree::Tree;

/// Comparisons with each program.
const CASES: usize = 40;

const BYTES: &[u8] = b"abc";
/// Bytes that mean something in patterns, or in no alphabet.
const ODD: &[u8] = b"a-z]![^*?\\. \t\xe4\xff";

/// Whether the program is here; a skip is told, and is a failure where there must be none.
fn is_here(test: &str, name: &str) -> bool {
    if Command::new(name).arg("--version").output().is_ok() {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} needs {name}");
    eprintln!("SKIP: {test}: needs {name}");
    false
}

/// Runs a program of the C locale to its end; returns what it prints.
#[track_caller]
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.env("LC_ALL", "C").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

/// What the strategy gives, the same in every run.
fn samples<S: Strategy>(strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..CASES)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// Folders and files of short names, three levels deep.
fn tree() -> Tree {
    let names = ["a", "b", "ab", "cab"];
    let mut paths = Vec::new();
    for first in names {
        paths.push(format!("{first}.f"));
        for second in names {
            paths.push(format!("{first}/c{second}"));
            paths.extend(names.map(|third| format!("b/a{second}{first}/{third}")));
            paths.extend(names.map(|third| format!("a{first}/x{second}/{third}/c")));
        }
    }
    Tree::new(paths)
}

fn write(tree: &Tree, root: &Path) {
    for (path, content) in tree.entries() {
        if path.ends_with('/') {
            fs::create_dir(root.join(path)).unwrap();
        } else {
            fs::write(root.join(path), content).unwrap();
        }
    }
}

fn arguments(start: &str, rules: &[Spec]) -> Vec<std::ffi::OsString> {
    let argument = |rule: &Spec| [start.as_bytes(), &rule.text()].concat();
    rules
        .iter()
        .map(|rule| OsStringExt::from_vec(argument(rule)))
        .collect()
}

/// Only patterns without `**`, which not all programs know.
fn without_folders(rules: &mut Vec<Spec>) {
    let names = |rule: &Spec| rule.parts.iter().all(|part| matches!(part, Part::Name(_)));
    rules.retain(names);
}

#[test]
fn find_matches_the_same_names() {
    if !is_here("find_matches_the_same_names", "find") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut names: Vec<Vec<u8>> = (1..=255)
        .filter(|&byte| byte != b'/')
        .map(|byte| vec![byte, b'x'])
        .collect();
    names.extend(
        (1..=255)
            .filter(|byte| !b"/.".contains(byte))
            .map(|byte| vec![byte]),
    );
    names.extend(samples(&vec(proptest::sample::select(ODD), 1..8)));
    names.retain(|name| name != b"." && name != b"..");
    for name in &names {
        fs::write(root.path().join(OsStr::from_bytes(name)), b"").unwrap();
    }
    let mut texts: Vec<Vec<u8>> = [
        "*",
        "?",
        "?x",
        "[a-c]*",
        "[!a-c]",
        "[^a-c]x",
        "[]x]",
        "[]-a]x",
        "[x-]?",
        "[-x]",
        "[!]a]",
        "[[:alnum:]]",
        "[[:alpha:]]",
        "[[:blank:]]",
        "[[:cntrl:]]",
        "[[:digit:]]",
        "[[:graph:]]",
        "[[:lower:]]",
        "[[:print:]]",
        "[[:punct:]]",
        "[[:space:]]",
        "[[:upper:]]",
        "[[:xdigit:]]",
        "[![:alnum:][:punct:]]x",
        "\\*",
        "\\\\*",
        "[\\]\\\\]",
        "[a\\-c]",
        "*x",
        "\\[*",
        "[[]?",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    let random = samples(&tokens(ODD));
    texts.extend(
        random
            .iter()
            .map(|tokens| tokens.iter().flat_map(Token::text).collect()),
    );
    for text in texts {
        let mut find = Command::new("find");
        find.arg(root.path()).args(["-mindepth", "1", "-name"]);
        let found = run(find
            .arg(OsStr::from_bytes(&text))
            .args(["-printf", "%f\\0"]));
        let mut found: Vec<_> = found
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .collect();
        found.sort_unstable();
        let patterns = Patterns::new(&[&text]).unwrap();
        let mut own: Vec<_> = names.iter().map(Vec::as_slice).collect();
        own.retain(|name| patterns.decide(name, false) == Decision::Excluded);
        own.sort_unstable();
        own.dedup();
        assert_eq!(found, own, "{}", text.escape_ascii());
    }
}

/// With options such as vzdump's, but that stars match no slash, and that the names do not begin with
/// `./`: some patterns, such as `*[!a]*`, would match that dot.
#[test]
fn tar_takes_the_same_of_a_tree() {
    if !is_here("tar_takes_the_same_of_a_tree", "tar") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let tree = tree();
    write(&tree, root.path());
    for mut rules in samples(&vec(specs(BYTES), 1..4)) {
        without_folders(&mut rules);
        for rule in &mut rules {
            rule.includes = false;
            rule.folders_only = false;
        }
        let texts: Vec<_> = rules.iter().map(Spec::text).collect();
        let (mut anchored, floating): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|rule| rule.anchored);
        for rule in &mut anchored {
            rule.anchored = false;
        }
        let mut tar = Command::new("tar");
        tar.args([
            "-cvf",
            "/dev/null",
            "--quoting-style=literal",
            "--no-wildcards-match-slash",
        ]);
        tar.arg("--directory").arg(root.path());
        tar.arg("--no-anchored")
            .args(arguments("--exclude=", &floating));
        tar.arg("--anchored")
            .args(arguments("--exclude=", &anchored));
        for entry in fs::read_dir(root.path()).unwrap() {
            tar.arg(entry.unwrap().file_name());
        }
        let printed = String::from_utf8(run(&mut tar)).unwrap();
        let mut names: Vec<_> = printed.lines().collect();
        names.sort_unstable();
        assert_eq!(tree.taken(&texts), names, "{rules:?}", rules = show(&texts));
    }
}

/// Its first pattern that matches decides, not its last.
#[test]
fn rsync_takes_the_same_of_a_tree() {
    if !is_here("rsync_takes_the_same_of_a_tree", "rsync") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let target = tempfile::tempdir().unwrap();
    let tree = tree();
    write(&tree, root.path());
    for mut rules in samples(&vec(specs(BYTES), 1..6)) {
        without_folders(&mut rules);
        let texts: Vec<_> = rules.iter().map(Spec::text).collect();
        let mut rsync = Command::new("rsync");
        rsync.args(["-rn", "--out-format=%n"]);
        for mut rule in rules.into_iter().rev() {
            let start = if std::mem::take(&mut rule.includes) {
                "--include="
            } else {
                "--exclude="
            };
            rsync.args(arguments(start, &[rule]));
        }
        rsync.arg(root.path().join("")).arg(target.path());
        let printed = String::from_utf8(run(&mut rsync)).unwrap();
        let mut names: Vec<_> = printed.lines().filter(|name| *name != "./").collect();
        names.sort_unstable();
        assert_eq!(tree.taken(&texts), names, "{rules:?}", rules = show(&texts));
    }
}

/// With files of patterns in two folders. To git a slash in the middle anchors a pattern, and it
/// knows no empty folders.
#[test]
fn git_takes_the_same_files_of_a_tree() {
    if !is_here("git_takes_the_same_files_of_a_tree", "git") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    let mut tree = tree();
    write(&tree, &root);
    let git = || {
        let mut git = Command::new("git");
        git.env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        git.arg("--git-dir")
            .arg(folder.path().join("git"))
            .arg("--work-tree")
            .arg(&root);
        git.current_dir(&root);
        git
    };
    run(git().args(["init", "--quiet"]));
    let lists = (vec(specs(BYTES), 1..6), vec(specs(BYTES), 1..6));
    for (mut above, mut below) in samples(&lists) {
        for rule in above.iter_mut().chain(&mut below) {
            if !rule.anchored && rule.parts.len() > 1 {
                rule.parts.insert(0, Part::Folders);
            }
        }
        for (path, rules) in [(".pxarexclude", &above), ("b/.pxarexclude", &below)] {
            let lines: Vec<_> = rules.iter().map(Spec::text).collect();
            let content = lines.join(&b'\n');
            fs::write(root.join(path), &content).unwrap();
            tree.add(path, &content);
        }
        let mut list = git();
        list.args([
            "ls-files",
            "--others",
            "--exclude-per-directory=.pxarexclude",
            "-z",
        ]);
        let printed = String::from_utf8(run(&mut list)).unwrap();
        let mut names: Vec<_> = printed.split_terminator('\0').collect();
        names.sort_unstable();
        let mut taken = tree.taken::<&str>(&[]);
        taken.retain(|path| !path.ends_with('/'));
        assert_eq!(taken, names, "{above:?} {below:?}");
    }
}

fn show(texts: &[Vec<u8>]) -> String {
    texts.join(&b' ').escape_ascii().to_string()
}
