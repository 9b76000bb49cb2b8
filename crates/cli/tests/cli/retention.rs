//! `forget` by a retention policy.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};
use snapkeep_api::UnixTime;
use snapkeep_repo::{AttributeChange, Verification, VerificationMode, VerificationState};
use tempfile::TempDir;

use crate::shape::check;
use crate::{back_up, fails, json as run_json, repository, snapkeep, with_repository};

const REPO: [&str; 2] = ["-r", "repo"];
const DAILY: [&str; 6] = [
    "forget",
    "--keep-daily",
    "2",
    "--time-zone",
    "UTC",
    "--all-guests",
];

fn run(folder: &TempDir, args: &[&str]) -> Value {
    run_json(folder, &[&REPO[..], args].concat())
}

fn refused(folder: &TempDir, args: &[&str], code: i32, names: &[&str]) {
    fails(folder, &[&REPO[..], args].concat(), code, names);
}

/// Archives of a guest, from the oldest on.
fn archives(folder: &TempDir, guest: &str, times: &[&str]) {
    for time in times {
        let time: Timestamp = time.parse().unwrap();
        back_up(folder, guest, UnixTime(time.as_second()), b"");
    }
}

/// Three days of two archives each.
fn three_days() -> TempDir {
    let folder = with_repository();
    let times = [
        "2026-03-01T08:00:00Z",
        "2026-03-01T20:00:00Z",
        "2026-03-02T08:00:00Z",
        "2026-03-02T20:00:00Z",
        "2026-03-03T08:00:00Z",
        "2026-03-03T20:00:00Z",
    ];
    archives(&folder, "web", &times);
    folder
}

/// The times of a guest's listed archives.
fn listed(folder: &TempDir, guest: &str) -> Vec<String> {
    let list = run(folder, &["list", "--guest", guest]);
    let archives = list["archives"].as_array().unwrap().iter();
    archives
        .map(|archive| archive["time_utc"].as_str().unwrap().to_owned())
        .collect()
}

fn names(folder: &TempDir) -> Vec<String> {
    let list = run(folder, &["list"]);
    let archives = list["archives"].as_array().unwrap().iter();
    archives
        .map(|archive| archive["archive"].as_str().unwrap().to_owned())
        .collect()
}

fn reasons(done: &Value) -> Vec<Value> {
    let archives = done["archives"].as_array().unwrap().iter();
    archives.map(|archive| archive["reasons"].clone()).collect()
}

const NEWEST: [&str; 2] = ["2026-03-02T20:00:00Z", "2026-03-03T20:00:00Z"];

#[test]
fn what_no_rule_keeps_is_forgotten_and_the_next_time_nothing() {
    let folder = three_days();
    let done = run(&folder, &DAILY);
    check("`forget` with a policy", &done);
    assert_eq!(done["time_zone"], "UTC");
    let none = json!([]);
    let daily = json!(["daily"]);
    let expected = [&none, &none, &none, &daily, &none, &daily].map(Clone::clone);
    assert_eq!(reasons(&done), expected);
    assert_eq!(listed(&folder, "web"), NEWEST);
    let again = run(&folder, &DAILY);
    assert_eq!(reasons(&again), [daily.clone(), daily]);
    assert_eq!(listed(&folder, "web"), NEWEST);
}

#[test]
fn a_dry_run_tells_the_same_and_forgets_nothing() {
    let folder = three_days();
    let told = run(&folder, &[&DAILY[..], &["--dry-run"]].concat());
    check("`forget` with a policy", &told);
    assert_eq!(listed(&folder, "web").len(), 6);
    let text = snapkeep(&folder, &[&REPO[..], &DAILY, &["--dry-run"]].concat());
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.ends_with("\n2 kept, 4 would be forgotten\n"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].ends_with("  would be forgotten"), "{text}");
    assert!(lines[3].ends_with("  kept: daily"), "{text}");
    let done = run(&folder, &DAILY);
    assert_eq!(done["archives"], told["archives"]);
}

#[test]
fn each_guest_is_judged_by_itself_and_only_those_that_are_meant() {
    let folder = three_days();
    archives(
        &folder,
        "db",
        &["2020-01-01T08:00:00Z", "2020-01-02T08:00:00Z"],
    );
    let web = ["forget", "--keep-last", "1", "--guest", "web"];
    run(&folder, &web);
    assert_eq!(listed(&folder, "web"), ["2026-03-03T20:00:00Z"]);
    assert_eq!(listed(&folder, "db").len(), 2);
    let containers = ["forget", "--keep-last", "1", "--all-guests", "--kind", "ct"];
    assert_eq!(run(&folder, &containers)["archives"], json!([]));
    let machines = ["forget", "--keep-last", "1", "--all-guests", "--kind", "vm"];
    run(&folder, &machines);
    assert_eq!(listed(&folder, "db"), ["2020-01-02T08:00:00Z"]);
}

#[test]
fn a_protected_archive_is_kept_and_told_and_counts_for_nothing() {
    let folder = three_days();
    let all = names(&folder);
    run(&folder, &["protect", &all[0], &all[5]]);
    let done = run(&folder, &DAILY);
    assert_eq!(done["archives"][5]["reasons"], json!(["protected"]));
    let expected = [
        "2026-03-01T08:00:00Z",
        "2026-03-02T20:00:00Z",
        "2026-03-03T08:00:00Z",
        "2026-03-03T20:00:00Z",
    ];
    assert_eq!(listed(&folder, "web"), expected);
}

#[test]
fn an_archive_that_was_found_damaged_does_not_push_out_a_good_one() {
    let folder = three_days();
    let newest = names(&folder)[5].clone();
    let change = AttributeChange {
        verification: Some(Verification {
            mode: VerificationMode::Everything,
            everything: None,
            state: VerificationState::Damaged,
            time: 0,
            problem: None,
            program: String::new(),
        }),
        caller_error: Some("the hook failed".to_owned()),
        ..AttributeChange::default()
    };
    let opened = repository(&folder);
    opened
        .change_attributes(&newest.parse().unwrap(), &change)
        .unwrap();
    let last = ["forget", "--keep-last", "1", "--guest", "web"];
    let done = run(&folder, &last);
    assert_eq!(done["archives"][5]["damaged"], true);
    assert_eq!(done["archives"][5]["caller_error"], "the hook failed");
    let expected = ["2026-03-03T08:00:00Z", "2026-03-03T20:00:00Z"];
    assert_eq!(listed(&folder, "web"), expected);
}

#[test]
fn an_archive_whose_record_is_damaged_is_kept_and_is_no_success() {
    let folder = three_days();
    let newest: PathBuf = ["repo", "snapshots", &names(&folder)[5]].iter().collect();
    let newest = folder.path().join(newest);
    let whole = fs::read(&newest).unwrap();
    let mut bytes = whole.clone();
    bytes[60] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let last = ["-r", "repo", "forget", "--keep-last", "1", "--guest", "web"];
    let output = snapkeep(&folder, &[&last[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    fs::write(&newest, whole).unwrap();
    let expected = ["2026-03-03T08:00:00Z", "2026-03-03T20:00:00Z"];
    assert_eq!(listed(&folder, "web"), expected);
}

#[test]
fn archives_of_the_future_are_told_and_push_nothing_out() {
    let folder = three_days();
    archives(&folder, "web", &["2199-01-01T00:00:00Z"]);
    let args = [
        "-r",
        "repo",
        "forget",
        "--keep-last",
        "1",
        "--keep-within",
        "1d",
        "--guest",
        "web",
    ];
    let output = snapkeep(&folder, &args);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 archive is of a later time than"), "{said}");
    let expected = [
        "2026-03-02T20:00:00Z",
        "2026-03-03T08:00:00Z",
        "2026-03-03T20:00:00Z",
        "2199-01-01T00:00:00Z",
    ];
    assert_eq!(listed(&folder, "web"), expected);
}

#[test]
fn all_of_a_guest_is_forgotten_only_by_the_word_for_it() {
    let folder = three_days();
    let zero = ["forget", "--keep-last", "0", "--guest", "web"];
    refused(&folder, &zero, 2, &["no archive", "--keep-none"]);
    let any = ["forget", "--keep-none", "--all-guests"];
    refused(&folder, &any, 2, &["--guest"]);
    assert_eq!(listed(&folder, "web").len(), 6);
    run(&folder, &["protect", &names(&folder)[2]]);
    run(&folder, &["forget", "--keep-none", "--guest", "web"]);
    assert_eq!(listed(&folder, "web"), ["2026-03-02T08:00:00Z"]);
}

#[test]
fn what_cannot_be_meant_is_refused_and_forgets_nothing() {
    let folder = three_days();
    let name = names(&folder)[0].clone();
    refused(&folder, &["forget"], 2, &["--keep-daily"]);
    refused(&folder, &["forget", "--guest", "web"], 2, &["--keep-daily"]);
    refused(
        &folder,
        &["forget", "--keep-last", "1"],
        2,
        &["--all-guests"],
    );
    refused(
        &folder,
        &["forget", &name, "--keep-last", "1"],
        2,
        &["cannot be used"],
    );
    refused(
        &folder,
        &["forget", &name, "--guest", "web"],
        2,
        &["cannot be used"],
    );
    refused(
        &folder,
        &["forget", &name, "--dry-run"],
        2,
        &["cannot be used"],
    );
    let within = ["forget", "--keep-within", "7w", "--all-guests"];
    refused(&folder, &within, 2, &["7w", "30d"]);
    let zone = [
        "forget",
        "--keep-last",
        "1",
        "--all-guests",
        "--time-zone",
        "Here",
    ];
    refused(&folder, &zone, 2, &["Here"]);
    let gone = [
        "forget",
        "--keep-last",
        "1",
        "--guest",
        "web",
        "--guest",
        "gone",
    ];
    refused(&folder, &gone, 5, &["gone", "nothing was forgotten"]);
    let configured = ["forget", "--configured"];
    refused(&folder, &configured, 2, &["[retention]"]);
    assert_eq!(listed(&folder, "web").len(), 6);
}

#[test]
fn each_guest_has_the_policy_that_the_configuration_says() {
    let folder = three_days();
    archives(
        &folder,
        "db",
        &["2020-01-01T08:00:00Z", "2020-01-02T08:00:00Z"],
    );
    archives(
        &folder,
        "old",
        &["2020-01-01T08:00:00Z", "2020-01-02T08:00:00Z"],
    );
    let config = "repository = 'repo'\ntime-zone = 'UTC'\n[retention]\nkeep-last = 1\n\
                  [guests.web.retention]\nkeep-daily = 2\nkeep-within = '1h'\n\
                  [guests.old.retention]\nkeep-all = true\n";
    let path = folder.path().join("c.toml");
    fs::write(&path, config).unwrap();
    let args = ["--config", "c.toml", "forget", "--configured"];
    run_json(&folder, &args);
    assert_eq!(listed(&folder, "web"), NEWEST);
    assert_eq!(listed(&folder, "db"), ["2020-01-02T08:00:00Z"]);
    assert_eq!(listed(&folder, "old").len(), 2);
    // Who has only policies of guests keeps everything of others.
    archives(&folder, "db", &["2020-01-03T08:00:00Z"]);
    fs::write(&path, config.replace("[retention]\nkeep-last = 1\n", "")).unwrap();
    run_json(&folder, &args);
    assert_eq!(listed(&folder, "db").len(), 2);
}

#[test]
fn a_configured_policy_that_keeps_nothing_is_refused_by_its_table() {
    let folder = three_days();
    for (table, value) in [
        ("[retention]", ""),
        ("[guests.web.retention]", "keep-last = 0"),
        ("[retention]", "keep-all = true\nkeep-last = 1"),
        ("[retention]", "keep-within = '0h'"),
        ("[retention]", "keep-minutely = 3"),
    ] {
        let config = format!("repository = 'repo'\n{table}\n{value}\n");
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let args = ["--config", "c.toml", "forget", "--configured"];
        fails(&folder, &args, 2, &["c.toml"]);
    }
    assert_eq!(listed(&folder, "web").len(), 6);
}
