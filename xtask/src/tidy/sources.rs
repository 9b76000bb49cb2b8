//! The shape of source files, and text that must not be in any tracked file.

use super::File;

/// Longer than this and a file holds more than one idea.
const MAX_LINES: usize = 600;

/// Text nothing committed contains: places and papers of somebody's workplace,
/// hosts of package registries (a machine's own configuration names them), and
/// marks of unfinished work. Cut in two so that this file passes.
const FORBIDDEN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/tmp/res", "earch"),
    concat!("../sha", "red"),
    concat!(".lib", "rary"),
    concat!("prod", "uct.md"),
    concat!("contr", "act.md"),
    concat!("fau", "lts.md"),
    concat!("pe", "ers.md"),
    concat!("perfor", "mance.md"),
    concat!("depend", "encies.md"),
    concat!("sty", "le.md"),
    concat!("qe", "mu.md"),
    concat!("api_", "sketch"),
    concat!("pve-", "harness"),
    concat!("debian", ".org"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("#[", "ignore"),
    concat!("#[", "should_panic"),
];

/// Rust files that are too long or do not say what they are.
pub(super) fn wrong_shape(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let text = file.text();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            found.push(format!(
                "{}: {lines} lines, more than {MAX_LINES}",
                file.path
            ));
        }
        if !text.starts_with("//! ") {
            found.push(format!("{}: does not start with a //! header", file.path));
        }
    }
    found
}

/// Forbidden text, with the file and line it is in.
pub(super) fn forbidden_text(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text().lines()) {
            for pattern in FORBIDDEN
                .iter()
                .filter(|pattern| contains_word(line, pattern))
            {
                found.push(format!("{}:{number}: {pattern}", file.path));
            }
        }
    }
    found
}

pub(super) fn missing_lock_file(files: &[File]) -> Vec<String> {
    let tracked = files.iter().any(|file| file.path == "Cargo.lock");
    if tracked {
        Vec::new()
    } else {
        vec!["Cargo.lock is not tracked".to_owned()]
    }
}

/// Whether `line` contains `pattern`, and not as a part of a longer word.
fn contains_word(line: &str, pattern: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + pattern.len()..].chars().next();
        let joined_before = is_word(before) && is_word(pattern.chars().next());
        let joined_after = is_word(after) && is_word(pattern.chars().next_back());
        !joined_before && !joined_after
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::{FORBIDDEN, forbidden_text, missing_lock_file, wrong_shape};

    #[test]
    fn a_long_file_and_a_file_without_header_are_found() {
        assert!(wrong_shape(&[file("a.rs", "//! A.\n")]).is_empty());
        assert_eq!(wrong_shape(&[file("a.rs", "fn a() {}\n")]).len(), 1);
        assert_eq!(
            wrong_shape(&[file("a.rs", &"//! A.\n".repeat(601))]).len(),
            1
        );
    }

    #[test]
    fn every_forbidden_text_is_found_where_it_is() {
        for pattern in FORBIDDEN {
            let found = forbidden_text(&[file("a.md", &format!("one\n({pattern} x)\n"))]);
            assert_eq!(found, [format!("a.md:2: {pattern}")]);
        }
    }

    #[test]
    fn longer_words_are_not_forbidden() {
        let template = "mktemp -d a.".to_owned() + &"X".repeat(6);
        assert!(forbidden_text(&[file("a.sh", &template)]).is_empty());
    }

    #[test]
    fn an_untracked_lock_file_is_found() {
        assert_eq!(missing_lock_file(&[file("a", "")]).len(), 1);
        assert!(missing_lock_file(&[file("Cargo.lock", "")]).is_empty());
    }
}
