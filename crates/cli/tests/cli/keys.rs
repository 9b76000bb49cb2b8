//! Keys of the real program: wrong ones, changed ones, and who may read their files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::{fails, json, snapkeep};

/// An encrypted repository `repo` with the key file `key`, and another one.
fn encrypted() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (repo, key, kit) in [("repo", "key", "kit"), ("other", "other.key", "other.kit")] {
        let init = [
            "-r",
            repo,
            "init",
            "--new-key-file",
            key,
            "--write-recovery-kit",
            kit,
        ];
        json(&folder, &init);
    }
    fs::write(folder.path().join("secret"), "correct horse\n").unwrap();
    fs::set_permissions(folder.path().join("secret"), Permissions::from_mode(0o600)).unwrap();
    folder
}

#[test]
fn a_wrong_key_is_named_and_leaves_nothing_behind() {
    let folder = encrypted();
    let path = |name: &str| folder.path().join(name);
    let whole = fs::read_to_string(path("key")).unwrap();
    fs::write(path("cut.key"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("mistyped.key"), whole.replacen('-', "-0", 3)).unwrap();
    fs::write(path("empty.key"), "").unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
        names.len()
    };
    let before = names();
    let cases = [
        (&["--key-file", "other.key"][..], &["opens none"][..]),
        (&["--key-file", "cut.key"], &["cut.key", "too short"]),
        (
            &["--key-file", "empty.key"],
            &["empty.key", "no line begins with"],
        ),
        (&["--key-file", "kit"], &["kit", "this is no key file"]),
        (&["--recovery-kit", "other.kit"], &["of another repository"]),
        (&["--passphrase-file", "secret"], &["opens none"]),
        (&[], &["it is encrypted"]),
    ];
    for (secret, said) in cases {
        for verb in [
            &["list"][..],
            &["restore", "vm", "web", "--into", "out"],
            &["key", "recovery-kit", "--write", "out.kit"],
            &["key", "change", "--new-key-file", "out.key"],
            &["nbd", "serve", "web", "--socket", "out.sock"],
        ] {
            fails(&folder, &[&["-r", "repo"], secret, verb].concat(), 6, said);
        }
    }
    for missing in [
        ["--key-file", "missing.key"],
        ["--passphrase-file", "missing.pass"],
        ["--recovery-kit", "missing.kit"],
    ] {
        let list = [&["-r", "repo"], &missing[..], &["list"]].concat();
        fails(&folder, &list, 5, &[missing[1]]);
    }
    let mistyped = ["-r", "repo", "--key-file", "mistyped.key", "list"];
    fails(&folder, &mistyped, 6, &["mistyped.key"]);
    assert_eq!(names(), before);
}

#[test]
fn a_label_names_one_key_and_two_that_have_the_same_are_told_apart_by_their_names() {
    let folder = encrypted();
    let key = |more: &[&'static str]| [&["-r", "repo", "--key-file", "key", "key"], more].concat();
    let add = key(&["add", "--new-key-file", "a.key", "--label", "office"]);
    let first = json(&folder, &add)["added"]["name"].clone();
    let first = first.as_str().unwrap();
    for again in [
        &["add", "--new-key-file", "b.key", "--label", "office"][..],
        &["add-host", "office", "--new-key-file", "b.key"],
        &["change", "--new-key-file", "b.key", "--label", "office"],
    ] {
        fails(
            &folder,
            &key(again),
            1,
            &["\"office\"", first, "key remove"],
        );
        assert!(!folder.path().join("b.key").exists());
    }
    // Whoever changes a key keeps its label.
    let own = ["-r", "repo", "--key-file", "a.key", "key", "change"];
    let own = [&own[..], &["--new-key-file", "b.key", "--label", "office"]].concat();
    let second = json(&folder, &own)["added"]["name"].clone();
    // What older programs made.
    let slots = folder.path().join("repo/keys");
    let slot = fs::read(slots.join(second.as_str().unwrap())).unwrap();
    fs::write(slots.join(first), slot).unwrap();
    let labels = || {
        let list = json(&folder, &key(&["list"]));
        let keys = list["keys"].as_array().unwrap().iter();
        keys.filter(|key| key["label"] == "office").count()
    };
    assert_eq!(labels(), 2);
    let remove = ["-r", "repo", "--key-file", "key", "key", "remove", first];
    json(&folder, &remove);
    assert_eq!(labels(), 1);
}

#[test]
fn a_secret_that_others_can_read_is_told_by_name() {
    let folder = encrypted();
    let list = ["-r", "repo", "--key-file", "key", "list"];
    assert!(snapkeep(&folder, &list).stderr.is_empty());
    for mode in [0o644, 0o640, 0o602] {
        let key = folder.path().join("key");
        fs::set_permissions(key, Permissions::from_mode(mode)).unwrap();
        let told = snapkeep(&folder, &list);
        assert!(told.status.success(), "it is told, not refused");
        let said = String::from_utf8(told.stderr).unwrap();
        assert!(
            said.contains(&format!("the key file key has the mode {mode:04o}")),
            "{said}"
        );
        let quiet = snapkeep(&folder, &[&list[..], &["-q"]].concat());
        assert!(quiet.stderr.is_empty(), "{quiet:?}");
    }
}

#[test]
fn a_key_is_changed_and_the_recovery_kit_written_again() {
    let folder = encrypted();
    let run = |key: &str, args: &[&str]| {
        let kind = if key == "secret" {
            "--passphrase-file"
        } else {
            "--key-file"
        };
        json(&folder, &[&["-r", "repo", kind, key], args].concat())
    };
    let change = [
        "key",
        "change",
        "--label",
        "office",
        "--new-key-file",
        "new.key",
    ];
    let changed = run("key", &change);
    assert_eq!(changed["added"]["label"], "office");
    fails(
        &folder,
        &["-r", "repo", "--key-file", "key", "list"],
        6,
        &["opens none"],
    );
    let again = run(
        "new.key",
        &["key", "change", "--new-passphrase-file", "secret"],
    );
    assert_eq!(again["removed"], changed["added"]["name"]);
    fails(
        &folder,
        &["-r", "repo", "--key-file", "new.key", "list"],
        6,
        &["opens none"],
    );
    let keys = run("secret", &["key", "list"]);
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(
        (&keys[0]["label"], &keys[0]["used"]),
        (&"office".into(), &true.into())
    );
    run("secret", &["key", "recovery-kit", "--write", "again"]);
    let read = |name| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("again"), read("kit"));
    let mode = fs::metadata(folder.path().join("again"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    json(&folder, &["-r", "repo", "--recovery-kit", "again", "list"]);
    let exists = [
        "-r",
        "repo",
        "--recovery-kit",
        "kit",
        "key",
        "recovery-kit",
        "--write",
        "again",
    ];
    fails(&folder, &exists, 1, &["again"]);
    let by_kit = [
        "-r",
        "repo",
        "--recovery-kit",
        "kit",
        "key",
        "change",
        "--new-key-file",
        "x",
    ];
    fails(&folder, &by_kit, 1, &["recovery kit never changes"]);
}
