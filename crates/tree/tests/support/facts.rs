//! What the usual tools say of a folder, to compare it with another.

use std::path::Path;

use super::tools::sh;

/// Everything but inode flags.
pub(crate) fn facts(folder: &Path) -> String {
    [
        "find . -type d -printf '%P|%y|%m|%U|%G|%T@|%n\\0' -o -printf '%P|%y|%m|%U|%G|%s|%T@|%n|%l\\0' | sort -z | tr '\\0' '\\n'",
        "find . \\( -type c -o -type b \\) -exec stat -c '%n %t %T' {} + | sort",
        "find . -type f -size -2G -print0 | sort -z | xargs -0 sha256sum",
        "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex",
        "find . ! -type l -print0 | sort -z | xargs -0 getfacl -n",
        // Names of one inode, by the first.
        "find . ! -type d -links +1 -printf '%i %P\\0' | sort -z -k2 | awk -v RS='\\0' '{ if (!($1 in first)) first[$1] = $2; print first[$1], $0 }' | sed 's/ [0-9]* / /'",
        "find . -type f -size +64k -print0 | sort -z | xargs -0 stat -c '%n %b' | awk '{ print $1, int($NF / 64) }'",
    ]
    .map(|line| sh(folder, line))
    .join("\n")
}

/// Inode flags.
pub(crate) fn flags(folder: &Path) -> String {
    sh(
        folder,
        "lsattr -R -a . | grep -v '^$' | awk '{ gsub(/[eI]/, \"-\", $1); print }' | sort",
    )
}

/// Fails with the first lines that differ.
#[track_caller]
pub(crate) fn assert_same(a: &str, b: &str) {
    for (a, b) in a.lines().zip(b.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(a.lines().count(), b.lines().count());
}
