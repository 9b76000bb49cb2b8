//! Warnings, limits and the bookkeeping of folders.

use super::*;

fn of_file(content: &[u8]) -> Patterns {
    let mut patterns = Patterns::new::<&str>(&[]).unwrap();
    patterns.add_file(content);
    patterns
}

#[test]
fn a_pattern_that_cannot_be_used_is_an_error_that_shows_it() {
    let error = |text: &[u8]| Patterns::new(&[b"/fine".as_slice(), text]).unwrap_err();
    for (text, said) in [
        (b"".as_slice(), "exclude pattern ``: it is empty"),
        (b"!", "exclude pattern `!`: it is empty"),
        (b"!!x", "`!!`"),
        (b"/a\\", "ends with a backslash"),
        (b"/a/[b", "the class that begins at byte 4 has no `]`"),
        (b"a\0b", "contains a NUL byte"),
        (b"\n[", "exclude pattern `\\n[`: the class"),
        (&[b'x'; 4097], "longer than 4096 bytes"),
        (&b"/x".repeat(65), "more than 64 parts"),
    ] {
        let error = error(text);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let message = error.to_string();
        assert!(message.contains(said), "{message}");
    }
    assert!(Patterns::new(&[b"/x".repeat(64)]).is_ok());
    assert!(Patterns::new(&vec!["x"; 1024]).is_ok());
    assert!(Patterns::new(&vec!["x"; 1025]).is_err());
}

#[test]
fn a_pattern_that_can_match_nothing_is_told() {
    let given = ["/", "!/", "../x", "/a/./b", "/.x", "//"];
    let warnings = Patterns::new(&given).unwrap().take_warnings();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert!(warnings[0].contains("`/`: it names the root"));
    assert!(warnings[2].contains("`../x`: no entry"));
}

#[test]
fn a_bad_line_is_told_with_file_and_line_and_the_others_count() {
    let mut patterns = Patterns::new::<&str>(&[]).unwrap();
    patterns.enter(b"srv");
    patterns.enter(b"a\nb");
    patterns.add_file(b"# [\n\nold\n[x\n  new \r\n");
    let warnings = patterns.take_warnings();
    let expected = "/srv/a\\nb/.pxarexclude, line 4: `[x` is ignored: \
                    the class that begins at byte 1 has no `]`";
    assert_eq!(warnings, [expected]);
    assert_eq!(patterns.decide(b"old", false), Decision::Excluded);
    assert_eq!(patterns.decide(b"new", false), Decision::Excluded);
    assert_eq!(patterns.decide(b"[x", false), Decision::Unmatched);
    assert_eq!(patterns.take_warnings(), [""; 0]);

    patterns.leave();
    patterns.enter(b"c");
    patterns.add_file(b"[");
    patterns.leave();
    patterns.leave();
    patterns.add_file(b"[");
    let warnings = patterns.take_warnings();
    assert!(warnings[0].starts_with("/srv/c/.pxarexclude, line 1: "));
    assert!(warnings[1].starts_with("/.pxarexclude, line 1: "));
}

#[test]
fn warnings_are_bounded_and_counted() {
    let mut patterns = of_file(&b"[\n".repeat(1000));
    patterns.add_file(&b"[\n".repeat(1000));
    let warnings = patterns.take_warnings();
    assert_eq!(warnings.len(), 100);
    assert!(warnings[99].contains("no longer named"));
    assert_eq!(patterns.warnings(), 2000);
}

#[test]
fn a_file_beyond_a_limit_is_ignored_as_a_whole() {
    let mut long = b"x\n".to_vec();
    long.resize(limits::FILE_BYTES_MAX + 1, b'\n');
    let many = b"x\n".repeat(1025);
    for content in [long.as_slice(), &many] {
        let mut patterns = of_file(content);
        assert_eq!(patterns.decide(b"x", false), Decision::Unmatched);
        let warnings = patterns.take_warnings();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("/.pxarexclude is ignored: "),
            "{warnings:?}"
        );
    }
    long.pop();
    let patterns = of_file(&long);
    assert_eq!(patterns.decide(b"x", false), Decision::Excluded);
    let patterns = of_file(&many[2..]);
    assert_eq!(patterns.decide(b"x", false), Decision::Excluded);
}

#[test]
fn the_files_of_all_folders_above_share_a_limit() {
    let mut patterns = Patterns::new(&["given"]).unwrap();
    patterns.add_file(&b"x\n".repeat(600));
    patterns.enter(b"a");
    patterns.add_file(&b"y\n".repeat(600));
    assert_eq!(patterns.decide(b"y", false), Decision::Unmatched);
    assert_eq!(patterns.take_warnings().len(), 1);
    patterns.add_file(&b"y\n".repeat(424));
    assert_eq!(patterns.decide(b"y", false), Decision::Excluded);
    patterns.leave();
    patterns.enter(b"b");
    patterns.add_file(&b"y\n".repeat(424));
    assert_eq!(patterns.decide(b"y", false), Decision::Excluded);
    assert_eq!(patterns.take_warnings(), [""; 0]);

    // Bytes count too.
    let line = [&[b'z'; 4000], b"\n".as_slice()].concat();
    let mut patterns = of_file(&line.repeat(16));
    patterns.enter(b"a");
    patterns.add_file(&line.repeat(16));
    patterns.enter(b"b");
    assert_eq!(patterns.take_warnings(), [""; 0]);
    patterns.add_file(&line.repeat(2));
    assert_eq!(patterns.take_warnings().len(), 1);
}

#[test]
fn patterns_that_cannot_match_below_are_dropped_and_come_back() {
    let given = ["/tmp/?*", "/var/tmp/?*", "*.o", "/a/**/b", "!x/y"];
    let mut patterns = Patterns::new(&given).unwrap();
    let live = |patterns: &Patterns| -> Vec<usize> {
        patterns.folder.live.iter().map(|live| live.rule).collect()
    };
    assert_eq!(live(&patterns), [0, 1, 2, 3, 4]);
    patterns.enter(b"var");
    assert_eq!(live(&patterns), [1, 2, 4]);
    patterns.enter(b"lib");
    assert_eq!(live(&patterns), [2, 4]);
    patterns.leave();
    patterns.leave();
    patterns.leave();
    assert_eq!(live(&patterns), [0, 1, 2, 3, 4]);
    patterns.enter(b"a");
    assert_eq!(live(&patterns), [2, 3, 4]);
}

#[test]
fn a_deep_path_costs_no_memory_for_patterns() {
    let given: Vec<_> = (0..1000).map(|number| format!("*.{number}")).collect();
    let mut patterns = Patterns::new(&given).unwrap();
    for _ in 0..5000 {
        patterns.enter(b"d");
    }
    let root = patterns.above[0].live.clone();
    assert!(
        patterns
            .above
            .iter()
            .all(|folder| Arc::ptr_eq(&folder.live, &root))
    );
}

/// A matcher that tries every way to share out the path would not end.
#[test]
fn a_hostile_pattern_of_folders_ends() {
    let given = ["**/a*a/".repeat(30) + "**/b", "a*/**/".repeat(20) + "c"];
    let mut patterns = Patterns::new(&given).unwrap();
    let name = [b'a'; 255];
    for depth in 0..300 {
        let of_depth = |least| {
            if depth < least {
                Decision::Unmatched
            } else {
                Decision::Excluded
            }
        };
        assert_eq!(patterns.decide(&name, true), Decision::Unmatched);
        assert_eq!(patterns.decide(b"b", true), of_depth(30));
        assert_eq!(patterns.decide(b"c", true), of_depth(20));
        patterns.enter(&name);
    }
}
