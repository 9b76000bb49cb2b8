//! What holds for all patterns and all names.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use snapkeep_walk::exclude::{Decision, Patterns};

use super::spec::{Spec, escape, specs};

const BYTES: &[u8] = b"ab.";
const NAMES: [&[u8]; 4] = [b"a", b"b", b"ab", b".a"];
const DEPTH: usize = 4;

/// A folder, as the names on the way to it.
type Path = Vec<&'static [u8]>;

fn paths() -> impl Strategy<Value = Path> {
    vec(select(NAMES.to_vec()), 0..DEPTH)
}

/// Any name there can be.
fn names() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![1..=46_u8, 48..=255_u8], 1..20)
}

/// Text that is a pattern more often than chance has it.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    vec(select(b"ab.*?/[]!^-\\:#\n\xff".to_vec()), 0..12)
}

fn decide(given: &[Vec<u8>], path: &[&[u8]], is_directory: bool) -> Option<Decision> {
    let mut patterns = Patterns::new(given).ok()?;
    let (name, folders) = path.split_last()?;
    for folder in folders {
        patterns.enter(folder);
    }
    Some(patterns.decide(name, is_directory))
}

/// Holds every entry below here, whether its folder is excluded or not, against the model.
fn visit(
    patterns: &mut Patterns,
    path: &mut Path,
    given: &[Spec],
    files: &BTreeMap<Path, Vec<Spec>>,
) -> Result<(), TestCaseError> {
    if let Some(rules) = files.get(path) {
        let lines: Vec<_> = rules.iter().map(Spec::text).collect();
        patterns.add_file(&lines.join(&b'\n'));
    }
    for name in NAMES {
        for is_directory in [false, true] {
            path.push(name);
            let own = (0..path.len()).filter_map(|depth| {
                let rules = files.get(&path[..depth])?;
                Some(rules.iter().map(move |rule| (depth, rule)))
            });
            let mut rules = given.iter().map(|rule| (0, rule)).chain(own.flatten());
            let last = rules.rfind(|(depth, rule)| rule.matches(&path[*depth..], is_directory));
            let expected = match last {
                None => Decision::Unmatched,
                Some((_, rule)) if rule.includes => Decision::Included,
                Some(_) => Decision::Excluded,
            };
            let found = patterns.decide(name, is_directory);
            prop_assert_eq!(found, expected, "{:?} {}", path, is_directory);
            path.pop();
        }
    }
    if path.len() + 1 < DEPTH {
        for name in NAMES {
            path.push(name);
            patterns.enter(name);
            visit(patterns, path, given, files)?;
            patterns.leave();
            path.pop();
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn going_down_the_tree_decides_as_matching_whole_paths_does(
        given in vec(specs(BYTES), 0..4),
        files in btree_map(paths(), vec(specs(BYTES), 1..4), 0..6),
    ) {
        let texts: Vec<_> = given.iter().map(Spec::text).collect();
        let mut patterns = Patterns::new(&texts).unwrap();
        visit(&mut patterns, &mut Vec::new(), &given, &files)?;
    }

    #[test]
    fn an_escaped_name_matches_itself_alone(name in names(), other in names(), at in any::<usize>()) {
        let escaped: Vec<u8> = name.iter().flat_map(|&byte| escape(byte)).collect();
        let backslashes: Vec<u8> = name.iter().flat_map(|&byte| [b'\\', byte]).collect();
        let mut close = name.clone();
        let at = at % name.len();
        close[at] = if close[at] == b'x' { b'y' } else { b'x' };
        for text in [escaped, backslashes] {
            for text in [text.clone(), [b"/", text.as_slice()].concat()] {
                let matches = |name: &[u8]| {
                    decide(std::slice::from_ref(&text), &[name], false) == Some(Decision::Excluded)
                };
                prop_assert!(name == b"." || name == b".." || matches(&name));
                prop_assert!(!matches(&close));
                prop_assert!(other == name || !matches(&other));
            }
        }
    }

    #[test]
    fn a_pattern_that_includes_takes_back_what_the_same_one_excludes(
        text in texts(), path in paths(), is_directory in any::<bool>(),
    ) {
        let again = [b"!", text.as_slice()].concat();
        let alone = decide(std::slice::from_ref(&text), &path, is_directory);
        let both = decide(&[text, again], &path, is_directory);
        prop_assert_ne!(both, Some(Decision::Excluded));
        if both.is_some() {
            let was_excluded = alone == Some(Decision::Excluded);
            prop_assert_eq!(both == Some(Decision::Included), was_excluded);
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides(
        rules in vec(specs(BYTES), 1..5), path in paths(), is_directory in any::<bool>(),
    ) {
        let texts: Vec<_> = rules.iter().map(Spec::text).collect();
        let (last, before) = texts.split_last().unwrap();
        let alone = decide(std::slice::from_ref(last), &path, is_directory);
        let expected = if alone == Some(Decision::Unmatched) {
            decide(before, &path, is_directory)
        } else {
            alone
        };
        prop_assert_eq!(decide(&texts, &path, is_directory), expected);
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing_for_folders_and_all_for_others(
        spec in specs(BYTES), path in paths(),
    ) {
        let plain = Spec { includes: false, folders_only: false, ..spec };
        let slash = Spec { folders_only: true, ..plain.clone() };
        let of_slash = |is_directory| decide(&[slash.text()], &path, is_directory);
        prop_assert_eq!(of_slash(true), decide(&[plain.text()], &path, true));
        prop_assert_ne!(of_slash(false), Some(Decision::Excluded));
    }

    #[test]
    fn a_line_of_the_roots_file_means_what_the_administrators_pattern_means(
        spec in specs(BYTES), path in paths(), is_directory in any::<bool>(),
    ) {
        let text = spec.text();
        let mut patterns = Patterns::new::<Vec<u8>>(&[]).unwrap();
        patterns.add_file(&[b"\n# x\n\t ", text.as_slice(), b" \r\n"].concat());
        if let Some((name, folders)) = path.split_last() {
            for folder in folders {
                patterns.enter(folder);
            }
            let found = patterns.decide(name, is_directory);
            prop_assert_eq!(Some(found), decide(&[text], &path, is_directory));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        given in vec(texts(), 0..3), any_bytes in vec(any::<u8>(), 0..40),
        file in texts(), path in vec(names(), 1..5),
    ) {
        let mut given = given;
        given.retain(|text| Patterns::new(std::slice::from_ref(text)).is_ok());
        if let Err(error) = Patterns::new(&[&any_bytes]) {
            prop_assert!(!error.to_string().contains('\n'));
        }
        let mut patterns = Patterns::new(&given).unwrap();
        for name in &path {
            patterns.add_file(&file);
            patterns.add_file(&any_bytes);
            patterns.decide(name, true);
            patterns.enter(name);
        }
        for _ in 0..=path.len() {
            patterns.leave();
        }
        let warnings = patterns.take_warnings();
        prop_assert!(warnings.iter().all(|warning| !warning.contains('\n')));
    }
}
