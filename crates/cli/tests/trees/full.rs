//! A repository on a full file system: each verb says what happened to what, what is well all the
//! same, and what makes room.

use std::process::Output;

use crate::Lab;
use crate::support::{Disk, has_rights, init, program, sh};

/// What a verb says, having failed because there is no room.
#[track_caller]
fn full(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in [
        "No space left",
        "Nothing that was stored before is harmed",
        "Make room",
        "`snapkeep prune`",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    said
}

#[test]
fn on_a_full_disk_each_verb_says_what_is_well_and_what_makes_room() {
    if !has_rights("on_a_full_disk_each_verb_says_what_is_well_and_what_makes_room") {
        return;
    }
    let disk = Disk::new();
    sh(
        disk.path(),
        "mkdir full && mount -t tmpfs -o size=8M,mode=700 snapkeep-test full && ln -s full repo",
    );
    init(disk.path());
    let lab = Lab(disk);
    sh(
        lab.folder(),
        "mkdir tree more && head -c 100000 /dev/urandom > tree/file && head -c 100000 /dev/urandom > more/file",
    );
    let archives = [lab.back_up("web", "tree"), lab.back_up("web", "tree")];
    // A file whose name is none of a repository's.
    sh(lab.folder(), "cat /dev/zero > repo/.ballast || true");
    let run = |args: &[&str]| program(lab.folder(), args).output().unwrap();

    let backup = [
        "backup",
        "container",
        "--guest",
        "db",
        "--directory",
        "more",
    ];
    let said = full(&run(&backup));
    assert!(said.contains("cannot back up container db"), "{said}");
    let said = full(&run(&["forget", &archives[0], &archives[1]]));
    let deed = format!("cannot forget archive {}: ", archives[0]);
    assert!(said.contains(&deed), "{said}");
    full(&run(&["prune"]));
    let verify = run(&["verify"]);
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert_eq!(verify.status.code(), Some(0), "{said}");
    let mut told = archives.iter().map(|archive| {
        let is_whole = format!("archive {archive} is whole, but `snapkeep list` will not show it");
        said.contains(&is_whole)
    });
    assert!(told.any(|told| told), "{said}");
    assert!(said.contains("with 1 more archive\n"), "{said}");
    // The other repository has room: the full one is that which the path names.
    sh(lab.folder(), "rm repo kit && mkdir repo");
    init(lab.folder());
    let mail = lab.back_up("mail", "more");
    let said = full(&run(&["copy", "--to", "full", "--all"]));
    assert!(
        said.contains(&format!("cannot copy archive {mail}: cannot write full/")),
        "{said}"
    );
}
