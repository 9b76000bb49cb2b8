//! `verify`: how much is read, of what, and what is remembered.

use std::fs;

use serde_json::Value;
use snapkeep_api::{Clock, SystemClock};

use crate::shape::check;
use crate::{fails, json as run_json, snapkeep, with_archive};

const REPO: [&str; 4] = ["-r", "repo", "--state", "state"];

#[track_caller]
fn run(folder: &tempfile::TempDir, args: &[&str]) -> Value {
    run_json(folder, &[&REPO[..], &["verify"], args].concat())
}

#[test]
fn each_way_to_verify_says_how_closely_it_looked_and_the_archive_keeps_it() {
    let (folder, _) = with_archive();
    let kept = || {
        let list = run_json(&folder, &[&REPO[..], &["list"]].concat());
        list["archives"][0]["verification"].clone()
    };
    let found = run(&folder, &["--metadata"]);
    assert_eq!(
        (&found["mode"], &found["packs"]),
        (&"metadata".into(), &0.into())
    );
    assert_eq!(kept()["mode"], "metadata");
    assert_eq!(kept()["everything_utc"], Value::Null);
    let text = snapkeep(&folder, &[&REPO[..], &["list"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(", its metadata verified"), "{text}");
    let found = run(&folder, &[]);
    assert_eq!(found["mode"], "everything");
    let whole = kept()["everything_utc"].clone();
    assert!(whole.is_string());
    let found = run(&folder, &["--sample", "50", "--seed", "7"]);
    assert_eq!(
        (&found["mode"], &found["seed"]),
        (&"sample".into(), &7.into())
    );
    let again = run(&folder, &["--sample", "50", "--seed", "7"]);
    assert_eq!(found, again);
    assert!(run(&folder, &["--sample", "50"])["seed"].is_u64());
    assert_eq!(kept()["mode"], "sample");
    assert_eq!(kept()["everything_utc"], whole);
    // Nothing is left of runs that came to their ends.
    assert!(!folder.path().join("state/verify").exists());
}

#[test]
fn archives_are_chosen_by_name_guest_and_age() {
    let (folder, _) = with_archive();
    let list = run_json(&folder, &[&REPO[..], &["list"]].concat());
    let name = list["archives"][0]["archive"].as_str().unwrap();
    let archives = |args: &[&str]| run(&folder, args)["archives"].clone();
    assert_eq!(archives(&["--older-than", "1", "--metadata"]), 1);
    assert_eq!(archives(&["--older-than", "1", "--metadata"]), 0);
    assert_eq!(archives(&["--older-than", "1"]), 1);
    assert_eq!(archives(&["--older-than", "1"]), 0);
    for one in [&[name][..], &["web"], &["--guest", "web"]] {
        let found = run(&folder, one);
        assert_eq!(
            (&found["archives"], &found["packs"]),
            (&1.into(), &0.into())
        );
    }
    let verify = |args: &[&'static str]| [&REPO[..], &["verify"], args].concat();
    fails(&folder, &verify(&["--guest", "db"]), 5, &["db"]);
    let other = "main/vm/web/2001-01-01T00:00:00Z-0123456789abcdef";
    fails(&folder, &verify(&[other]), 5, &[other]);
    fails(&folder, &verify(&["--seed", "1"]), 2, &["--sample"]);
    fails(&folder, &verify(&["--sample", "0"]), 2, &["proves nothing"]);
}

#[test]
fn a_run_that_was_interrupted_is_gone_on_with() {
    let (folder, _) = with_archive();
    let whole = run(&folder, &[]);
    assert_eq!(whole["packs_before"], 0);
    // What a killed run leaves: what it wanted, and what it had proven.
    let verify = folder.path().join("state/verify");
    fs::create_dir_all(&verify).unwrap();
    let repository = repository_id(&folder);
    let begun = SystemClock::new().now().0;
    let wanted = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "repository": repository, "metadata": false,
        "sample": null, "seed": null, "chosen": [], "begun": begun,
    });
    let journal = verify.join(&repository);
    let mut lines = vec![wanted.to_string()];
    for part in fs::read_dir(folder.path().join("repo/packs")).unwrap() {
        let part = part.unwrap();
        for pack in fs::read_dir(part.path()).unwrap() {
            let (part, pack) = (part.file_name(), pack.unwrap().file_name());
            let (part, pack) = (part.to_str().unwrap(), pack.to_str().unwrap());
            lines.push(format!("packs/{part}/{pack}"));
        }
    }
    let packs = lines.len() - 1;
    let lines = lines.join("\n");
    fs::write(&journal, &lines).unwrap();
    let found = run(&folder, &[]);
    assert_eq!(found["packs_before"], packs);
    assert_eq!(found["packs"], 0);
    assert_eq!(found["archives"], whole["archives"]);
    assert!(!journal.exists());
    fs::create_dir_all(&verify).unwrap();
    fs::write(&journal, &lines).unwrap();
    assert_eq!(run(&folder, &["--anew"])["packs_before"], 0);
}

#[test]
fn who_has_no_key_finds_what_was_changed() {
    let (folder, _) = with_archive();
    // Nothing of what opens it.
    fs::remove_dir_all(folder.path().join("repo/keys")).unwrap();
    let verify = [&REPO[..], &["verify", "--without-key"]].concat();
    let found = run_json(&folder, &verify);
    check("`verify --without-key`", &found);
    assert_eq!(found["damage"], serde_json::json!([]));
    let snapshots = folder.path().join("repo/snapshots/main/vm/web");
    let snapshot = fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(snapshot.path()).unwrap();
    bytes[70] ^= 1;
    fs::write(snapshot.path(), bytes).unwrap();
    let name = snapshot.file_name();
    fails(&folder, &[&verify[..], &["--json"]].concat(), 3, &[]);
    let said = String::from_utf8(snapkeep(&folder, &verify).stdout).unwrap();
    assert!(said.contains(name.to_str().unwrap()), "{said}");
}

#[test]
fn the_last_lines_say_what_is_damaged_what_is_whole_and_what_was_read() {
    let (folder, _) = with_archive();
    let said = |args: &[&str]| {
        let output = snapkeep(&folder, &[&REPO[..], &["verify"], args].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = said(&[]);
    let begins = whole.starts_with("nothing is damaged: 1 archive is whole; ");
    assert!(begins && whole.contains(" packs ("), "{whole}");
    assert_eq!(whole.lines().count(), 1, "{whole}");
    let metadata = said(&["--metadata"]);
    assert!(metadata.contains("for no data was read"), "{metadata}");
    let sample = said(&["--sample", "100"]);
    assert!(sample.contains("as far as a sample shows"), "{sample}");
    let chosen = said(&["web"]);
    assert!(
        chosen.contains("whole; all that they need was read"),
        "{chosen}"
    );
    let keyless = said(&["--without-key"]);
    let begins = keyless.starts_with("nothing is damaged: ");
    assert!(begins && keyless.contains("only a key tells"), "{keyless}");

    let snapshots = folder.path().join("repo/snapshots/main/vm/web");
    let snapshot = fs::read_dir(&snapshots).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(snapshot.path()).unwrap();
    bytes[70] ^= 1;
    fs::write(snapshot.path(), bytes).unwrap();
    let damaged = said(&[]);
    let lines: Vec<&str> = damaged.lines().collect();
    let [object, sum, advice] = lines[..] else {
        panic!("{damaged}");
    };
    assert!(object.starts_with("damaged: main/vm/web/"), "{damaged}");
    let sum_is_right =
        sum.starts_with("DAMAGED: 1 object, named above; no archive was found whole");
    assert!(sum_is_right, "{damaged}");
    assert!(advice.starts_with("`snapkeep repair` tells"), "{damaged}");
    assert!(said(&["--without-key"]).contains("DAMAGED: 1 file: "));
}

fn repository_id(folder: &tempfile::TempDir) -> String {
    let config = fs::read_to_string(folder.path().join("repo/config")).unwrap();
    let said: Value = serde_json::from_str(config.lines().nth(1).unwrap()).unwrap();
    said["repository"].as_str().unwrap().to_owned()
}
