//! Parts of an archive: a file by any of its names, and targets that lead elsewhere.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use crate::Lab;
use crate::support::{json, ran, text};

/// A file with two names in two folders, and its archive.
fn linked() -> Lab {
    let lab = Lab::new(
        "mkdir -p tree/a tree/b; head -c 3000000 /dev/urandom > tree/a/first; ln tree/a/first tree/b/second
         ln -s nowhere tree/b/link; ln tree/b/link tree/c; cp tree/a/first content",
    );
    lab.back_up("web", "tree");
    lab
}

#[test]
fn the_second_name_of_a_file_is_printed_as_the_first() {
    let lab = linked();
    let content = fs::read(lab.path("content")).unwrap();
    let listed = text(lab.folder(), &["ls", "-l", "web", "/b/second"]);
    assert!(listed.contains("-> /a/first"), "{listed}");
    for path in ["/a/first", "b/second"] {
        assert!(ran(lab.folder(), &["cat", "web", path], 0).stdout == content);
    }
    // What is another name of a symbolic link is no file.
    let done = ran(lab.folder(), &["cat", "web", "/c"], 1);
    assert!(String::from_utf8_lossy(&done.stderr).contains("/c"));
}

#[test]
fn a_hard_link_is_extracted_without_its_other_name_as_a_file() {
    let lab = linked();
    let content = fs::read(lab.path("content")).unwrap();
    for (number, part) in ["/b/second", "/b"].into_iter().enumerate() {
        let out = format!("out{number}");
        let done = json(lab.folder(), &["extract", "web", part, "--to", &out]);
        assert_eq!(done["problems"], 0, "{done}");
        let made = lab.path(&out).join("b/second");
        let facts = fs::symlink_metadata(&made).unwrap();
        assert!(facts.is_file() && facts.nlink() == 1, "{facts:?}");
        assert!(fs::read(&made).unwrap() == content);
        assert!(!lab.path(&out).join("a").exists());
    }
    // With its other name it is one file.
    json(
        lab.folder(),
        &["extract", "web", "/b", "/a", "--to", "both"],
    );
    let inode = |name: &str| fs::metadata(lab.path("both").join(name)).unwrap().ino();
    assert_eq!(inode("a/first"), inode("b/second"));
}

#[test]
fn links_in_the_target_never_lead_out_of_it() {
    let lab = linked();
    let content = fs::read(lab.path("content")).unwrap();
    let outside = lab.path("outside");
    let trap = |out: &str, link: &str, to: &std::path::Path| {
        fs::create_dir_all(lab.path(out).join(link).parent().unwrap()).unwrap();
        symlink(to, lab.path(out).join(link)).unwrap();
    };
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("second"), "mine").unwrap();
    let untouched = || {
        let names = fs::read_dir(&outside).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names == ["second"] && fs::read(outside.join("second")).unwrap() == b"mine"
    };
    let cases = [
        // A folder on the way, a folder that is extracted, the file itself; absolute and relative.
        ("way", "b", outside.clone(), "/b/second"),
        ("folder", "b", "../outside".into(), "/b"),
        (
            "file",
            "b/second",
            "../../outside/second".into(),
            "/b/second",
        ),
        ("new", "b/second", outside.join("new"), "/b/second"),
    ];
    for (out, link, to, part) in cases {
        trap(out, link, &to);
        let extract = ["extract", "web", part, "--to", out];
        // What is there is not written over unasked.
        let refused = ran(lab.folder(), &extract, 1);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("not empty"), "{out}: {said}");
        assert_eq!(fs::read_link(lab.path(out).join(link)).unwrap(), to);
        assert!(untouched(), "{out}");
        let done = json(lab.folder(), &[&extract[..], &["--overwrite"]].concat());
        assert_eq!(done["problems"], 0, "{out}: {done}");
        assert!(untouched(), "{out}");
        // The link was replaced.
        let made = lab.path(out).join("b/second");
        assert!(
            fs::symlink_metadata(lab.path(out).join("b"))
                .unwrap()
                .is_dir()
        );
        assert!(fs::symlink_metadata(&made).unwrap().is_file());
        assert!(fs::read(made).unwrap() == content, "{out}");
    }
}
