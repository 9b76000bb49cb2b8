//! What the usual tools say of a folder, to compare it with another.

/// What the entries are that a line of facts is about.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Options of `find` that leave entries out.
    pub(crate) without: &'static str,
    /// Options of `find` for what is known to have several names.
    pub(crate) linked: &'static str,
    /// Whether it is a file system that has inode flags, and blocks of its own.
    pub(crate) on_disk: bool,
    /// Whether inode flags were kept.
    pub(crate) flags: bool,
}

/// All of it.
pub(crate) const ALL: Wanted = Wanted {
    without: "",
    linked: "! -type d",
    on_disk: true,
    flags: true,
};
/// What a mount shows: archives count the names of files only.
pub(crate) const MOUNT: Wanted = Wanted {
    without: "",
    linked: "-type f",
    on_disk: false,
    flags: false,
};
/// What a tar archive holds.
pub(crate) const TAR: Wanted = Wanted {
    without: "! -type s",
    linked: "! -type d",
    on_disk: true,
    flags: false,
};
/// What GNU tar holds if it made the archive of a mount.
pub(crate) const TAR_OF_TAR: Wanted = Wanted {
    without: "! -type s",
    linked: "-type f",
    on_disk: true,
    flags: false,
};
/// What root of a user namespace can extract of one: Proxmox VE leaves devices in `dev` out, and the
/// folder itself as it is.
pub(crate) const TAR_IN_NAMESPACE: Wanted = Wanted {
    without: "-mindepth 1 ! -type s ! -path './dev/*' ! -path ./etc/zero",
    linked: "! -type d",
    on_disk: true,
    flags: false,
};

/// Lines of shell, each of which prints facts: those that differ show what differs.
pub(crate) fn lines(wanted: Wanted) -> Vec<(&'static str, String)> {
    let Wanted {
        without,
        linked,
        on_disk,
        flags,
    } = wanted;
    let mut lines = vec![
        (
            "folders",
            format!("find . {without} -type d -printf '%P|%m|%U|%G|%T@\\0' | sort -z"),
        ),
        (
            "entries",
            format!("find . {without} ! -type d -printf '%P|%y|%m|%U|%G|%s|%T@|%l\\0' | sort -z"),
        ),
        (
            "link counts",
            format!("find . {without} {linked} -printf '%P|%n\\0' | sort -z"),
        ),
        (
            "devices",
            format!("find . {without} \\( -type c -o -type b \\) -exec stat -c '%n %t %T' {{}} + | sort"),
        ),
        (
            "content",
            "find . -type f -size -2G -print0 | sort -z | xargs -0 sha256sum".to_owned(),
        ),
        (
            "the content of a vast file",
            "dd if=etc/vast bs=1M skip=499999 count=3 status=none | sha256sum; tail -c 100000 etc/vast | sha256sum".to_owned(),
        ),
        (
            "extended attributes",
            format!("find . {without} -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex"),
        ),
        (
            "ACLs",
            format!("find . {without} ! -type l -print0 | sort -z | xargs -0 getfacl -n"),
        ),
        (
            "hard links, by the first name",
            format!("find . {without} {linked} -links +1 -printf '%i %P\\0' | sort -z -k2 | awk -v RS='\\0' '{{ if (!($1 in first)) first[$1] = $2; print first[$1], $0 }}' | sed 's/ [0-9]* / /'"),
        ),
    ];
    if on_disk {
        let blocks = "find . -type f -size +64k -print0 | sort -z | xargs -0 stat -c '%n %b' | awk '{ print $1, int($NF / 64) }'";
        lines.push(("blocks", blocks.to_owned()));
    }
    if flags {
        // Extents and indexed folders are the file system's own affair.
        let listed =
            "lsattr -R -a . | grep -v '^$' | awk '{ gsub(/[eI]/, \"-\", $1); print }' | sort";
        lines.push(("inode flags", listed.to_owned()));
    }
    lines
}

/// Fails with the first facts that differ.
#[track_caller]
pub(crate) fn assert_same(what: &str, a: &[u8], b: &[u8]) {
    let split = |facts: &[u8]| -> Vec<String> {
        let parts = facts.split(|byte| matches!(byte, 0 | b'\n'));
        parts.map(|part| part.escape_ascii().to_string()).collect()
    };
    if a != b {
        let (a, b) = (split(a), split(b));
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a, b, "{what}");
        }
        assert_eq!(a.len(), b.len(), "{what}");
    }
}
