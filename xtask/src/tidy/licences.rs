//! Licences of everything in the lock file, against a list of allowed ones.

use serde_json::Value;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
const ALLOWED_EXCEPTION: (&str, &str) = ("Apache-2.0", "LLVM-exception");

/// The packages whose licence expression the allowed licences do not satisfy.
pub(super) fn refused(metadata: &Value) -> Vec<String> {
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    if packages.is_empty() {
        return vec!["cargo metadata lists no package".to_owned()];
    }
    let mut found = Vec::new();
    for package in packages {
        let licence = package["license"]
            .as_str()
            .unwrap_or("no licence expression");
        if !satisfied(licence) {
            found.push(format!(
                "{} {}: {licence}",
                package["name"], package["version"]
            ));
        }
    }
    found
}

/// Whether the allowed licences satisfy an SPDX expression. An old form with `/`
/// for OR is read too; what cannot be read is not satisfied.
fn satisfied(expression: &str) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any(&mut words) == Some(true) && words.is_empty()
}

/// `all OR all …`; the words are in reverse, the next one last.
fn any(words: &mut Vec<&str>) -> Option<bool> {
    let mut result = all(words)?;
    while words.pop_if(|word| *word == "OR").is_some() {
        result |= all(words)?;
    }
    Some(result)
}

/// `one AND one …`, which binds tighter than OR.
fn all(words: &mut Vec<&str>) -> Option<bool> {
    let mut result = one(words)?;
    while words.pop_if(|word| *word == "AND").is_some() {
        result &= one(words)?;
    }
    Some(result)
}

fn one(words: &mut Vec<&str>) -> Option<bool> {
    let word = words.pop()?;
    if word == "(" {
        let result = any(words)?;
        return (words.pop()? == ")").then_some(result);
    }
    if words.pop_if(|next| *next == "WITH").is_some() {
        return Some((word, words.pop()?) == ALLOWED_EXCEPTION);
    }
    Some(ALLOWED.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::{refused, satisfied};

    #[test]
    fn one_allowed_choice_suffices() {
        assert!(satisfied("MIT OR GPL-3.0-only"));
        assert!(satisfied("GPL-3.0-only/MIT"));
        assert!(satisfied("ISC AND (GPL-3.0-only OR OpenSSL)"));
        assert!(satisfied("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only"));
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        assert!(!satisfied("MIT AND GPL-3.0-only"));
        assert!(!satisfied("GPL-3.0-only WITH LLVM-exception"));
        assert!(!satisfied("MIT AND (MIT"));
        assert!(!satisfied("MIT MIT"));
        assert!(!satisfied(""));
    }

    #[test]
    fn a_package_without_a_licence_is_found() {
        let package = serde_json::json!({"name": "p", "version": "1", "license": null});
        assert_eq!(
            refused(&serde_json::json!({"packages": [package]})).len(),
            1
        );
        assert_eq!(refused(&serde_json::json!({})).len(), 1);
    }
}
