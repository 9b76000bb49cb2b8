//! A virtual machine and a container of the same name.

use std::fs;

use crate::{fails, json, snapkeep, with_archive};

#[test]
fn a_verb_for_one_kind_means_that_of_two_guests_of_one_name() {
    let (folder, bytes) = with_archive();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/file"), "content").unwrap();
    let repo = ["-r", "repo", "--state", "state"];
    let run = |args: &[&str]| json(&folder, &[&repo[..], args].concat());
    let backup = [
        "backup",
        "container",
        "--guest",
        "web",
        "--directory",
        "tree",
    ];
    let container = run(&backup)["archive"].as_str().unwrap().to_owned();
    let list = run(&["list", "--guest", "web"]);
    let names: Vec<_> = (list["archives"].as_array().unwrap().iter())
        .map(|archive| archive["archive"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{list}");
    let vm = *names.iter().find(|name| **name != container).unwrap();
    assert!(
        vm.contains("/vm/web/") && container.contains("/ct/web/"),
        "{list}"
    );

    // The container's verbs.
    assert_eq!(run(&["ls", "web"])["archive"], container.as_str());
    assert_eq!(
        run(&["find", "web", "file"])["matches"][0]["archive"],
        container.as_str()
    );
    let cat = snapkeep(&folder, &[&repo[..], &["cat", "web", "/file"]].concat());
    assert_eq!(cat.stdout, b"content");
    run(&["extract", "web", "/file", "--to", "part"]);
    run(&["restore", "container", "web", "--to", "all"]);
    for part in ["part", "all"] {
        assert_eq!(fs::read(at(part).join("file")).unwrap(), b"content");
    }
    assert_eq!(run(&["diff", &container, "web"])["new"], container.as_str());
    // The machine's.
    let restored = run(&["restore", "vm", "web", "--to", "disk"]);
    assert_eq!(restored["archive"], vm);
    assert!(fs::read(at("disk")).unwrap() == bytes);
    // Those of both ask which.
    let show = ["-r", "repo", "show", "web"];
    fails(&folder, &show, 2, &[vm, &container]);
    for name in [vm, &container] {
        assert_eq!(run(&["show", name])["archive"], name);
    }
    // An archive of the other kind is told from one that is not there.
    let wrong = ["-r", "repo", "ls", vm];
    fails(&folder, &wrong, 1, &[vm]);
    let wrong = ["-r", "repo", "restore", "vm", &container, "--to", "x"];
    fails(&folder, &wrong, 1, &[&container]);
    assert_eq!(run(&["verify"])["archives"], 2);
}
