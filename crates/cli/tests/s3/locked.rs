//! The program with a repository whose objects are locked.

use std::fs;

use crate::{Lab, same};

const LOCKS: &str = "x-amz-bucket-object-lock-enabled: true\r\n";

/// With a repository whose objects are locked for 30 days.
fn locked(test: &str) -> Option<Lab> {
    let lab = Lab::with(test, LOCKS)?;
    let init = [
        "init",
        "--new-key-file",
        "key",
        "--write-recovery-kit",
        "kit",
    ];
    let made = lab.json(&[&init[..], &["--object-lock", "30"]].concat());
    assert_eq!(made["object_lock"]["mode"], "compliance", "{made}");
    assert_eq!(made["object_lock"]["days"], 30, "{made}");
    assert_eq!(made["storage"]["object_lock"], true, "{made}");
    assert_eq!(made["storage"]["keeps_versions"], true, "{made}");
    Some(lab)
}

#[test]
fn a_repository_with_locks_is_backed_up_pruned_and_restored() {
    let Some(lab) = locked("a_repository_with_locks_is_backed_up_pruned_and_restored") else {
        return;
    };
    let first = lab.back_up();
    let large: Vec<u8> = (7..2_000_007u32).flat_map(u32::to_be_bytes).collect();
    fs::write(lab.path("tree/large"), large).unwrap();
    lab.back_up();
    let key = ["--key-file", "key"];
    let archive = first["archive"].as_str().unwrap();
    let forgotten = lab.good(&[&key[..], &["forget", archive]].concat());
    let said = String::from_utf8_lossy(&forgotten.stderr).into_owned();
    assert!(
        said.contains("stay in the bucket until their locks end (30 days"),
        "{said}"
    );
    let at_once = ["prune", "--any-grace", "--grace=0s", "--confirm"];
    let prune = |more: &[&str]| lab.json(&[&key[..], &at_once[..], more].concat());
    let told = prune(&["--dry-run"]);
    assert_eq!(told["locks"]["renewed"], 0, "{told}");
    assert!(told["locks"]["looked"].as_u64().unwrap() >= 1, "{told}");
    prune(&[]);
    let swept = prune(&[]);
    assert_eq!(swept["deleted"]["archives"], 1, "{swept}");
    assert_eq!(swept["deleted"]["locked_files"], 0, "{swept}");
    let locks = &swept["locks"];
    assert!(locks["locked_versions"].as_u64().unwrap() >= 3, "{swept}");
    assert!(locks["locked_bytes"].as_u64().unwrap() > 1000, "{swept}");
    assert!(
        locks["locked_until_utc"].as_str().unwrap().ends_with('Z'),
        "{swept}"
    );
    assert!(locks["not_freed"].is_null(), "{swept}");
    // What comes and goes in a pruning is not locked, and leaves nothing.
    let versions = format!("GET /{}?versions&prefix=site/a/prune/", lab.bucket);
    let kept = lab.moto.ask(&versions, "", b"");
    assert_eq!(kept.matches("<DeleteMarker>").count(), 0, "{kept}");
    lab.good(&[&key[..], &["verify"]].concat());
    lab.good(
        &[
            &key[..],
            &["restore", "container", "web", "--to", "restored"],
        ]
        .concat(),
    );
    same(&lab.path("tree"), &lab.path("restored"));
    let doctor = ["doctor", "--run-folder", "run", "--mounts", "mounts"];
    let told = lab.good(&[&doctor[..], &["--fleecing", "tree"]].concat());
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("locks what it puts for 30 days, mode compliance"),
        "{told}"
    );
}

#[test]
fn locks_are_refused_where_there_are_none() {
    let Some(lab) = Lab::new("locks_are_refused_where_there_are_none") else {
        return;
    };
    let init = |args: &[&str]| {
        let all = ["init", "--no-encryption", "--write-recovery-kit", "kit"];
        let output = lab.run(&[&all[..], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!lab.path("kit").exists());
        (output.status.code(), said)
    };
    let (code, said) = init(&["--object-lock", "30"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--object-lock-enabled-for-bucket"), "{said}");
    for (args, word) in [
        (&["--object-lock", "0"][..], "1 to 3650"),
        (&["--object-lock", "3651"], "1 to 3650"),
        (
            &["--object-lock", "30", "--object-lock-mode", "soft"],
            "compliance or governance",
        ),
        (&["--object-lock-mode", "governance"], "--object-lock"),
        (&["-r", "folder", "--object-lock", "30"], "in a bucket"),
    ] {
        let (code, said) = init(args);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(word), "{word}: {said}");
    }
    // Nothing was made that keeps a repository without locks from being made.
    lab.init();
}

#[test]
fn what_a_killed_init_with_locks_left_is_gone_on_with_by_the_same_alone() {
    let test = "what_a_killed_init_with_locks_left_is_gone_on_with_by_the_same_alone";
    let Some(lab) = Lab::with(test, LOCKS) else {
        return;
    };
    let feature = FEATURE;
    let put = format!("PUT /{}/site/a/{feature}", lab.bucket);
    assert!(lab.moto.ask(&put, "", b"").contains("200 "));
    let init = ["init", "--no-encryption", "--write-recovery-kit", "kit"];
    for args in [&[][..], &["--object-lock", "31"]] {
        let output = lab.run(&[&init[..], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(feature), "{said}");
    }
    lab.good(&[&init[..], &["--object-lock", "30"]].concat());
}

#[test]
fn a_bucket_that_keeps_versions_without_locks_is_not_said_to_be_freed() {
    let test = "a_bucket_that_keeps_versions_without_locks_is_not_said_to_be_freed";
    let Some(lab) = Lab::new(test) else {
        return;
    };
    lab.init();
    let key = ["--key-file", "key"];
    let at_once = ["prune", "--any-grace", "--grace=0s", "--confirm"];
    let forget_and_prune = || {
        let archive = lab.back_up()["archive"].as_str().unwrap().to_owned();
        lab.good(&[&key[..], &["forget", &archive]].concat());
        lab.good(&[&key[..], &at_once[..]].concat());
        let swept = lab.good(&[&key[..], &at_once[..]].concat());
        let told = String::from_utf8_lossy(&swept.stdout).into_owned();
        assert!(told.contains("deleted 1 archive"), "{told}");
        told
    };
    let told = forget_and_prune();
    assert!(!told.contains("old versions"), "{told}");
    let versioning = format!("PUT /{}?versioning", lab.bucket);
    let enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    assert!(lab.moto.ask(&versioning, "", enabled).contains("200 "));
    let told = forget_and_prune();
    assert!(told.contains("keeps as old versions"), "{told}");
}

/// What `doctor` says, with this exit code.
#[track_caller]
fn doctor(lab: &Lab, more: &[&str], code: i32) -> String {
    let look = ["doctor", "--run-folder", "run", "--mounts", "mounts"];
    let output = lab.run(&[&look[..], &["--fleecing", "tree"], more].concat());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

const FEATURE: &str = "features/compatible-object-lock-1-compliance-30";

#[test]
fn a_repository_that_says_no_more_that_it_locks_raises_an_alarm_and_is_locked_on() {
    let test = "a_repository_that_says_no_more_that_it_locks_raises_an_alarm_and_is_locked_on";
    let Some(lab) = locked(test) else {
        return;
    };
    lab.back_up();
    doctor(&lab, &[], 0);
    // As whoever has a host's credentials can: the old version stays.
    let feature = format!("/{}/site/a/{FEATURE}", lab.bucket);
    let hidden = lab.moto.ask(&format!("DELETE {feature}"), "", b"");
    assert!(hidden.starts_with("HTTP/1.1 204"), "{hidden}");

    // A host that never saw it is told by the old version.
    let said = doctor(&lab, &["--state", "other"], 9);
    for word in ["gone: ", "30 days, compliance", "old version", FEATURE] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let said = doctor(&lab, &[], 9);
    for word in ["gone: ", "30 days, compliance", "locks nothing", FEATURE] {
        assert!(said.contains(word), "{word}: {said}");
    }
    fs::write(lab.path("tree/new"), "new\n").unwrap();
    let backup = ["--key-file", "key", "backup", "container", "--guest", "web"];
    let backup = [&backup[..], &["--directory", "tree", "--json"]].concat();
    let output = lab.run(&backup);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--accept-rollback"), "{said}");
    // The archive is there, and as locked as the others.
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lock = |archive: &str| {
        let key = format!("HEAD /{}/site/a/snapshots/{archive}", lab.bucket);
        let head = lab.moto.ask(&key, "", b"");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        head.to_lowercase()
            .contains("x-amz-object-lock-mode: compliance")
    };
    assert!(lock(made["archive"].as_str().unwrap()), "{made}");
    let list = lab.json(&["--key-file", "key", "list"]);
    assert_eq!(list["rolled_back"].as_array().unwrap().len(), 1, "{list}");
    let pruned = lab.run(&["--key-file", "key", "prune", "--json"]);
    let told = String::from_utf8_lossy(&pruned.stdout).into_owned();
    assert_eq!(pruned.status.code(), Some(1), "{told}");
    assert!(told.contains("\"renewed\":"), "{told}");

    // Brought back as doctor says, all is as before; taken away again and accepted, nothing is locked.
    let put = lab.moto.ask(&format!("PUT {feature}"), "", b"");
    assert!(put.contains("200 "), "{put}");
    doctor(&lab, &[], 0);
    assert!(lock(lab.back_up()["archive"].as_str().unwrap()));
    lab.moto.ask(&format!("DELETE {feature}"), "", b"");
    let said = doctor(&lab, &["--accept-rollback"], 0);
    assert!(said.contains("accepted: "), "{said}");
    doctor(&lab, &[], 0);
    let made = lab.back_up();
    assert!(!lock(made["archive"].as_str().unwrap()), "{made}");
}
