//! `stats`: numbers that can be counted by other means.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use snapkeep_api::UnixTime;
use tempfile::TempDir;

use crate::shape::check;
use crate::{back_up, json as run_json, snapkeep, with_repository};

const REPO: [&str; 2] = ["-r", "repo"];

fn stats(folder: &TempDir) -> Value {
    let told = run_json(folder, &[&REPO[..], &["stats"]].concat());
    check("`stats`", &told);
    told
}

/// Bytes of the files below a folder.
fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                bytes_of(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

#[test]
fn a_repository_is_told_in_numbers_that_the_storage_bears_out() {
    let folder = with_repository();
    let empty = stats(&folder);
    assert_eq!(
        (
            &empty["archives"],
            &empty["guests"],
            &empty["deduplication"]
        ),
        (&json!(0), &json!([]), &Value::Null)
    );
    assert_eq!(empty["unused_bytes"], 0);
    for (guest, seconds) in [("web", 0), ("web", 100), ("db", 0)] {
        back_up(&folder, guest, UnixTime(seconds), b"name: guest\n");
    }
    let told = stats(&folder);
    assert_eq!(told["archives"], 3);
    let sizes: Vec<_> = (told["guests"].as_array().unwrap().iter())
        .map(|of| (&of["guest"], &of["size_bytes"], &of["newest_bytes"]))
        .collect();
    let (one, two) = (json!(2 << 20), json!(4 << 20));
    assert_eq!(
        sizes,
        [(&json!("db"), &one, &one), (&json!("web"), &two, &one)]
    );
    assert_eq!(told["size_bytes"], 6 << 20);
    let repo = folder.path().join("repo");
    let packs = bytes_of(&repo.join("packs"));
    assert_eq!(told["packs_bytes"], packs);
    assert_eq!(told["metadata_bytes"], bytes_of(&repo) - packs);
    // All disks are the same: one chunk, and each configuration.
    let chunks = told["chunks_bytes"].as_u64().unwrap();
    assert!(chunks < 2 << 20, "{told}");
    let deduplication = told["deduplication"].as_f64().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "these are few")]
    let expected = f64::from(6 << 20) / chunks as f64;
    assert!((deduplication - expected).abs() < 0.01, "{told}");
    assert!(told["compression"].as_f64().unwrap() > 10.0, "{told}");
    assert_eq!(told["unused_bytes"], 0);
    let text = snapkeep(&folder, &[&REPO[..], &["stats"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("main/vm/web  2 archives, the newest 2.0 MiB"),
        "{text}"
    );
}

#[test]
fn what_was_forgotten_is_needed_by_nothing_and_counts_no_more() {
    let folder = with_repository();
    back_up(&folder, "web", UnixTime(0), b"name: web\n");
    let list = run_json(&folder, &[&REPO[..], &["list"]].concat());
    let name = list["archives"][0]["archive"].as_str().unwrap();
    run_json(&folder, &[&REPO[..], &["forget", name]].concat());
    let told = stats(&folder);
    assert_eq!(told["archives"], 0);
    let unused = told["unused_bytes"].as_u64().unwrap();
    assert!(
        unused >= told["chunks_stored_bytes"].as_u64().unwrap() && unused > 0,
        "{told}"
    );
    let packs = told["packs_bytes"].as_u64().unwrap();
    assert!(unused < packs, "{told}");
}

#[test]
fn what_is_damaged_is_named_and_nothing_is_guessed() {
    let folder = with_repository();
    back_up(&folder, "web", UnixTime(0), b"name: web\n");
    let list = run_json(&folder, &[&REPO[..], &["list"]].concat());
    let name = list["archives"][0]["archive"].as_str().unwrap();
    let record = folder.path().join("repo/snapshots").join(name);
    let mut bytes = fs::read(&record).unwrap();
    bytes[60] ^= 1;
    fs::write(&record, bytes).unwrap();
    let output = snapkeep(&folder, &[&REPO[..], &["stats", "--json"]].concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["damaged"], json!([name]));
    assert_eq!(told["unused_bytes"], Value::Null);
}
