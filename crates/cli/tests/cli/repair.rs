//! `repair`: what it tells, and what it does.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::shape::Shape;
use crate::{fails, json as run_json, snapkeep, with_archive};

const REPO: [&str; 4] = ["-r", "repo", "--state", "state"];

/// Runs it to this exit code; its JSON object.
#[track_caller]
fn repair(folder: &TempDir, args: &[&str], code: i32) -> Value {
    let args = [&REPO[..], &["repair", "--json"], args].concat();
    let output = snapkeep(folder, &args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packs(folder: &TempDir) -> Vec<PathBuf> {
    let parts = fs::read_dir(folder.path().join("repo/packs")).unwrap();
    let packs = parts.flat_map(|part| fs::read_dir(part.unwrap().path()).unwrap());
    packs.map(|pack| pack.unwrap().path()).collect()
}

#[test]
fn what_is_damaged_is_told_and_with_apply_repaired() {
    let (folder, _) = with_archive();
    let shapes = Shape::of("`repair`; `--rebuild-index`; `--lost-config`");
    let told = repair(&folder, &[], 0);
    shapes[0].check(&told);
    assert_eq!(told["done"], Value::Null);
    for pack in packs(&folder) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[140] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
    let before = packs(&folder);
    let told = repair(&folder, &[], 3);
    assert_eq!(told["packs"].as_array().unwrap().len(), before.len());
    assert!(
        !told["archives"][0]["lost"].as_array().unwrap().is_empty(),
        "{told}"
    );
    assert_eq!(packs(&folder), before);
    let text = snapkeep(&folder, &[&REPO[..], &["repair"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("--apply repairs this"), "{text}");
    let told = repair(&folder, &["--apply"], 3);
    shapes[0].check(&told);
    assert_eq!(told["done"]["packs"], before.len());
    assert!(packs(&folder).iter().all(|pack| !before.contains(pack)));
    let rebuilt = repair(&folder, &["--apply", "--rebuild-index"], 0);
    shapes[1].check(&rebuilt);
}

#[test]
fn a_file_that_nobody_knows_is_moved_away_by_its_name() {
    let (folder, _) = with_archive();
    let junk = [7; 300];
    let id = blake3::hash(&junk).to_hex();
    let name = format!("packs/{}/{id}", &id[..2]);
    let path = folder.path().join("repo").join(&name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, junk).unwrap();
    let told = repair(&folder, &["--apply"], 3);
    assert_eq!(told["strange"][0]["object"], name);
    assert!(path.exists());
    let away = ["--apply", "--into", "away", "--move-away"];
    fails(
        &folder,
        &[&REPO[..], &["repair"], &away[..], &["packs/00/00"]].concat(),
        1,
        &["packs/00/00"],
    );
    let moves = [&REPO[..], &["repair"], &away[..], &[&name]].concat();
    let output = snapkeep(&folder, &moves);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("moved away: away/"), "{said}");
    assert!(!said.contains("nothing was done"), "{said}");
    assert!(!said.contains("it stays"), "{said}");
    assert!(!path.exists());
    let moved = folder.path().join("away").join(name.replace('/', "-"));
    assert_eq!(fs::read(moved).unwrap(), junk);
    repair(&folder, &[], 0);
    for apply in [&[][..], &["--apply"]] {
        let output = snapkeep(&folder, &[&REPO[..], &["repair"], apply].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "nothing is damaged\n");
    }
}

#[test]
fn a_config_that_was_lost_is_made_again() {
    let (folder, _) = with_archive();
    let config = folder.path().join("repo/config");
    let old = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    fails(&folder, &[&REPO[..], &["list"]].concat(), 5, &["config"]);
    let kit = ["--lost-config", "--recovery-kit", "kit"];
    let told = repair(&folder, &kit, 0);
    assert_eq!(told["applied"], false);
    assert!(!config.exists());
    // The kit may be named before the verb too, as everywhere.
    let before = ["--recovery-kit", "kit", "repair", "--lost-config"];
    run_json(&folder, &[&REPO[..2], &before].concat());
    repair(&folder, &[&kit[..], &["--apply"]].concat(), 0);
    assert_eq!(fs::read(&config).unwrap(), old);
    run_json(&folder, &[&REPO[..], &["list"]].concat());
    let text = ["repair", "--lost-config"];
    fails(&folder, &[&REPO[..], &text].concat(), 2, &["recovery-kit"]);
}

#[test]
fn of_packs_that_are_gone_it_is_said_what_brings_them_back() {
    let (folder, _) = with_archive();
    for pack in packs(&folder) {
        fs::remove_file(pack).unwrap();
    }
    for (apply, word) in [
        (&[][..], "has nothing to do"),
        (&["--apply"], "repaired: 0"),
    ] {
        let output = snapkeep(&folder, &[&REPO[..], &["repair"], apply].concat());
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        for word in [word, "by the next backup", "snapkeep forget"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!said.contains("--apply repairs this"), "{said}");
    }
}
