//! Trees that are read back.

use snapkeep_api::tree::{Place, TreeNode, TreePath, TreeReader, find};
use snapkeep_api::{ErrorKind, Provider, UnixTime};
use snapkeep_repo::{FileName, Storage};

use super::{Host, METADATA, noise, some};

fn node(reader: &dyn TreeReader, path: &str) -> TreeNode {
    let path = TreePath::typed(path.as_bytes()).unwrap();
    find(reader, &path).unwrap().unwrap()
}

#[test]
fn only_equal_content_has_one_identity() {
    let host = Host::new(METADATA);
    let mut tree = some();
    tree.file("a/x", &noise(400_000, 7));
    tree.file("b/x", &noise(400_000, 7));
    tree.file("c/x", &noise(400_000, 8));
    tree.sparse("d", 500_000, &[(0, &noise(400_000, 7))]);
    let (first, _) = host.keep(&tree);
    tree.set_time(UnixTime(1_690_000_000));
    tree.write("etc/03", b"three");
    let (second, _) = host.keep(&tree);
    let (one, two) = (host.tree(&first), host.tree(&second));
    let same = |a: &str, b: &str| {
        let [a, b] = [a, b].map(|path| node(&*one, path).identity);
        assert!(a.is_some());
        a == b
    };
    assert!(same("a/x", "b/x"));
    assert!(same("a", "b"));
    assert!(!same("a/x", "c/x"));
    assert!(!same("a", "c"));
    assert!(!same("a/x", "d"));
    assert_eq!(node(&*one, "link").identity, None);
    let kept = |path: &str| node(&*one, path).identity == node(&*two, path).identity;
    for path in ["a", "var", "var/large", "var/sparse", "etc/02"] {
        assert!(kept(path), "{path}");
    }
    for path in ["", "etc", "etc/03"] {
        assert!(!kept(path), "{path}");
    }
}

#[test]
fn what_is_damaged_is_named_and_never_restored() {
    let host = Host::new(METADATA);
    let (archive, _) = host.keep(&some());
    let mut packs = Vec::new();
    let each = &mut |name: &FileName, length| {
        packs.push((name.clone(), length));
        Ok(())
    };
    host.storage.list(&"packs".parse().unwrap(), each).unwrap();
    let (data, _) = packs.iter().max_by_key(|(_, length)| *length).unwrap();
    host.storage.damage(data, |bytes| bytes[1 << 20] ^= 1);
    let reader = host.tree(&archive);
    let large = node(&*reader, "var/large");
    let mut bytes = vec![0; 3 << 20];
    let error = reader.read_at(&large, 0, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.chain().contains(archive.as_str()),
        "{}",
        error.chain()
    );
    assert!(error.chain().contains("chunk"), "{}", error.chain());
}

#[test]
fn another_readers_nodes_are_refused() {
    let host = Host::new(METADATA);
    let (archive, _) = host.keep(&some());
    let reader = host.tree(&archive);
    let mut foreign = node(&*reader, "etc");
    foreign.place = Place::new("elsewhere");
    let error = reader.list(&foreign, None, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    let mut foreign = node(&*reader, "var/large");
    foreign.place = Place::new(7u8);
    for error in [
        reader.read_at(&foreign, 0, &mut [0]).unwrap_err(),
        reader.next_data(&foreign, 0).unwrap_err(),
        reader.list(&node(&*reader, "link"), None, 1).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}

#[test]
fn a_reader_is_read_by_several_threads() {
    let host = Host::new(METADATA);
    let mut tree = some();
    tree.file("more", &noise(5 << 20, 77));
    let (archive, _) = host.keep(&tree);
    let reader = host.tree(&archive);
    let expected = noise(5 << 20, 77);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (reader, expected) = (&*reader, &expected);
            scope.spawn(move || {
                let file = node(reader, "more");
                for step in 0..40 {
                    let offset = (thread * 999_983 + step * 131_071) % (5 << 20);
                    let length = 100_000.min((5 << 20) - offset);
                    let mut bytes = vec![0; length];
                    reader.read_at(&file, offset as u64, &mut bytes).unwrap();
                    assert!(bytes == expected[offset..offset + length]);
                }
            });
        }
    });
}

#[test]
fn an_archive_of_a_container_is_opened_without_its_host() {
    let host = Host::new(METADATA);
    let tree = some();
    let (archive, _) = host.keep(&tree);
    let opened = host.provider().open_archive(&archive).unwrap();
    assert_eq!(opened.guest_config().unwrap(), b"arch: amd64\n");
    assert_eq!(opened.firewall_config().unwrap(), None);
    assert_eq!(opened.guest_kind(), snapkeep_api::GuestKind::Lxc);
}
