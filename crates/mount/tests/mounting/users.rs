//! Who may look.

use snapkeep_mount::Options;

use crate::memory::{Item, name, tree};
use crate::tools::{Mount, are_here, sh, sh_fails};

fn root() -> Item {
    let file = |permissions, uid| {
        let mut file = Item::file(b"content\n");
        file.entry.attributes.permissions = permissions;
        file.entry.attributes.uid = uid;
        file
    };
    Item::folder([
        (name("secret"), file(0o600, 0)),
        (name("open"), file(0o644, 0)),
        (name("theirs"), file(0o600, 1000)),
    ])
}

const AS_OTHER: &str = "setpriv --reuid=1000 --regid=1000 --clear-groups";

#[test]
fn nobody_but_root_gets_in() {
    if !are_here("nobody_but_root_gets_in", &["setpriv"]) {
        return;
    }
    let mount = Mount::new(tree(root()));
    sh(mount.own(), "chmod 755 .");
    assert_eq!(sh(mount.own(), "cat mnt/secret"), "content\n");
    for path in ["mnt/open", "mnt/theirs", "mnt"] {
        let said = sh_fails(mount.own(), &format!("{AS_OTHER} stat {path}"));
        assert!(said.contains("Permission denied"), "{said}");
    }
}

#[test]
fn others_get_what_the_permissions_allow_if_they_are_let_in() {
    if !are_here("others_get_what_the_permissions_allow", &["setpriv"]) {
        return;
    }
    let options = Options {
        allow_other: true,
        ..Options::default()
    };
    let mount = Mount::with(tree(root()), options);
    sh(mount.own(), "chmod 755 .");
    for path in ["open", "theirs"] {
        let read = format!("{AS_OTHER} cat mnt/{path}");
        assert_eq!(sh(mount.own(), &read), "content\n");
    }
    let said = sh_fails(mount.own(), &format!("{AS_OTHER} cat mnt/secret"));
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(sh(mount.own(), "cat mnt/secret"), "content\n");
}
