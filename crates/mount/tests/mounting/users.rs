//! Who may look.

use snapkeep_api::tree::Xattr;
use snapkeep_mount::Options;

use crate::memory::{Item, name, tree};
use crate::tools::{Mount, are_here, sh, sh_fails};

/// As the kernel has them: the owner may read and write, user 1000 may read, nobody else anything
/// (`linux/posix_acl_xattr.h`).
fn acl() -> Vec<u8> {
    let nobody = u32::MAX;
    let lines: [(u16, u16, u32); 5] = [
        (0x01, 6, nobody),
        (0x02, 4, 1000),
        (0x04, 0, nobody),
        (0x10, 4, nobody),
        (0x20, 0, nobody),
    ];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in lines {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

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
        (name("listed"), {
            let mut listed = file(0o640, 0);
            let attributes = &mut listed.entry.attributes;
            let name = b"system.posix_acl_access".to_vec();
            let value = acl();
            attributes.xattrs = vec![Xattr { name, value }];
            listed
        }),
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
    for path in ["open", "theirs", "listed"] {
        let read = format!("{AS_OTHER} cat mnt/{path}");
        assert_eq!(sh(mount.own(), &read), "content\n");
    }
    // The group of a file with an ACL has no more than its own line says.
    let as_group = "setpriv --reuid=2000 --regid=0 --clear-groups";
    for read in [
        format!("{AS_OTHER} cat mnt/secret"),
        format!("{as_group} cat mnt/listed"),
    ] {
        let said = sh_fails(mount.own(), &read);
        assert!(said.contains("Permission denied"), "{said}");
    }
    assert_eq!(sh(mount.own(), "cat mnt/secret"), "content\n");
}
