//! What this host remembers of a repository, and what is said when that is gone.

use std::path::Path;

use serde_json::Value;

use crate::Lab;
use crate::support::{json, json_of, ran, sh, text};

fn lab() -> Lab {
    Lab::new("mkdir etc; echo one > etc/one")
}

/// What `list` tells to be gone.
#[track_caller]
fn gone(folder: &Path) -> Vec<String> {
    let list = json(folder, &["list"]);
    let told = list["rolled_back"].as_array().unwrap().iter();
    told.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What `doctor` says of it, with this exit code; it looks at nothing else.
#[track_caller]
fn doctor(folder: &Path, more: &[&str], code: i32) -> String {
    sh(folder, "mkdir -p none");
    let look = [
        "doctor",
        "--run-folder",
        "none",
        "--mounts",
        "none",
        "--fleecing",
        "none",
    ];
    let output = ran(folder, &[&look[..], more].concat(), code);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn a_repository_that_was_put_back_from_yesterdays_copy_is_told_by_every_verb_until_that_is_accepted()
 {
    let lab = lab();
    let folder = lab.folder();
    let first = lab.back_up("web", "etc");
    sh(folder, "cp -a repo yesterday");
    let second = lab.back_up("web", "etc");
    assert!(gone(folder).is_empty());
    doctor(folder, &[], 0);
    sh(folder, "rm -r repo; mv yesterday repo");
    let told = gone(folder);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains(&second) && told[0].contains("rolled back"),
        "{told:?}"
    );
    for verb in [
        &["list"][..],
        &["show", &first],
        &["restore", "container", &first, "--to", "new"],
        &["note", &first, "a note"],
        &["protect", &first],
        &["verify"],
        &["key", "list"],
        &[
            "backup",
            "container",
            "--guest",
            "web",
            "--directory",
            "etc",
        ],
    ] {
        let said = ran(folder, verb, 0);
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.contains(&second) && said.contains("rolled back"),
            "{verb:?}: {said}"
        );
    }
    // What nobody forgot is not pruned with what it needs.
    let refused = ran(folder, &["prune"], 1);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("nothing is pruned") && said.contains(&second),
        "{said}"
    );
    ran(folder, &["prune", "--confirm"], 0);
    // A backup does not make it good by itself.
    assert_eq!(gone(folder).len(), 1);
    let said = doctor(folder, &["--heal"], 9);
    assert!(
        said.starts_with("gone: ") && said.contains(&second),
        "{said}"
    );
    let said = doctor(folder, &["--accept-rollback"], 0);
    assert!(
        said.contains("accepted: ") && said.contains(&second),
        "{said}"
    );
    assert!(gone(folder).is_empty());
    doctor(folder, &[], 0);
    assert!(!text(folder, &["list"]).contains(&second));
}

#[test]
fn an_archive_that_was_taken_away_is_told_and_one_that_was_forgotten_is_not() {
    let lab = lab();
    let folder = lab.folder();
    lab.back_up("web", "etc");
    let forgotten = lab.back_up("web", "etc");
    let other = lab.back_up("db", "etc");
    json(folder, &["forget", &forgotten]);
    // As pruning does.
    sh(
        folder,
        &format!("rm -r repo/snapshots/{forgotten} repo/attributes/{forgotten}"),
    );
    assert!(gone(folder).is_empty());
    sh(folder, &format!("rm repo/snapshots/{other}"));
    let told = gone(folder);
    assert!(told.len() == 1 && told[0].contains(&other), "{told:?}");
    // Of the other guest it is remembered as before.
    lab.back_up("web", "etc");
    assert_eq!(gone(folder).len(), 1);
}

#[test]
fn what_another_host_wrote_is_remembered_once_it_was_listed() {
    let lab = lab();
    let folder = lab.folder();
    lab.back_up("web", "etc");
    sh(folder, "cp -a repo copy");
    let seen = lab.back_up("db", "etc");
    sh(folder, "rm -r state");
    json(folder, &["list"]);
    sh(folder, "rm -r repo; mv copy repo");
    let told = gone(folder);
    assert!(told.len() == 1 && told[0].contains(&seen), "{told:?}");
}

#[test]
fn another_repository_in_its_place_is_told() {
    let lab = lab();
    let folder = lab.folder();
    let archive = lab.back_up("web", "etc");
    // Somebody else has made it.
    sh(folder, "rm -r repo kit; mv state kept");
    crate::support::init(folder);
    sh(folder, "rm -rf state; mv kept state");
    let told = gone(folder);
    assert!(
        told.len() == 1 && told[0].contains("was replaced"),
        "{told:?}"
    );
    assert!(told[0].contains(&archive));
    let said = doctor(folder, &[], 9);
    assert!(said.contains("was replaced"), "{said}");
    doctor(folder, &["--accept-rollback"], 0);
    assert!(gone(folder).is_empty());
    // Of one that this host makes there itself it knows.
    lab.back_up("web", "etc");
    sh(folder, "rm -r repo kit");
    crate::support::init(folder);
    assert!(gone(folder).is_empty());
}

#[test]
fn an_archive_under_another_name_does_not_open() {
    let lab = lab();
    let folder = lab.folder();
    let first = lab.back_up("web", "etc");
    let second = lab.back_up("web", "etc");
    // The older one shown as the newest, and one of another guest.
    let elsewhere = second.replace("/web/", "/db/");
    let line = "mkdir -p repo/snapshots/main/ct/db; cp repo/snapshots/SECOND repo/snapshots/ELSE; \
        cp --remove-destination repo/snapshots/FIRST repo/snapshots/SECOND";
    let line = line.replace("SECOND", &second).replace("ELSE", &elsewhere);
    sh(folder, &line.replace("FIRST", &first));
    let list = json_of(folder, &["list"], 3);
    let damaged: Vec<&Value> = (list["damaged"].as_array().unwrap().iter())
        .map(|damaged| &damaged["archive"])
        .collect();
    assert_eq!(damaged, [elsewhere.as_str(), second.as_str()]);
    for name in [&elsewhere, &second] {
        ran(folder, &["restore", "container", name, "--to", "new"], 3);
    }
    assert!(!lab.path("new").exists());
}
