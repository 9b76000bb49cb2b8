//! Places where nothing can be mounted.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use snapkeep_api::ErrorKind;
use snapkeep_api::tree::{EntryKind, Timestamp};
use snapkeep_mount::{Node, Options, VolumeFile, cleanup, mount};

use crate::memory::{Item, MemoryVolume, Runs, tree};
use crate::tools::{Mount, are_here};

#[test]
fn only_an_empty_folder_is_mounted_at() {
    if !are_here("only_an_empty_folder_is_mounted_at", &[]) {
        return;
    }
    let other = Mount::new(tree(Item::folder([])));
    let own = other.own();
    fs::write(own.join("file"), "").unwrap();
    fs::create_dir(own.join("full")).unwrap();
    fs::write(own.join("full/file"), "").unwrap();
    symlink("mnt", own.join("link")).unwrap();
    for (target, word) in [
        ("file", "no folder"),
        ("full", "not empty"),
        ("mnt", "mounted there already"),
        ("link", "mounted there already"),
        ("absent\n", "absent\\n"),
    ] {
        let error = mount(
            &own.join(target),
            tree(Item::folder([])),
            Options::default(),
        );
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.chain().contains(word), "{}", error.chain());
    }
    assert!(!cleanup(&own.join("full")).unwrap());
    let error = cleanup(&own.join("link")).unwrap_err();
    assert!(error.chain().contains("still runs"), "{}", error.chain());
    let error = cleanup("/proc".as_ref()).unwrap_err();
    assert!(
        error.chain().contains("no archive but proc"),
        "{}",
        error.chain()
    );
    assert!(fs::read_dir(other.path()).unwrap().next().is_none());
}

#[test]
fn a_root_that_is_no_folder_is_not_mounted() {
    if !are_here("a_root_that_is_no_folder_is_not_mounted", &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let volume = Box::new(MemoryVolume(5, Runs::default()));
    let file = VolumeFile::new(volume, Timestamp::default());
    for root in [
        Node::Bytes(Arc::new(file)),
        tree(Item::new(EntryKind::Fifo)),
    ] {
        assert!(mount(folder.path(), root, Options::default()).is_err());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }
    // It can still be used.
    let mounted = mount(folder.path(), tree(Item::folder([])), Options::default());
    assert_eq!(mounted.unwrap().target(), folder.path());
}
