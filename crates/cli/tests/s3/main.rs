//! The program with a repository in a bucket.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking and tells what it skips"
)]

#[path = "../../../s3/tests/s3/support/moto.rs"]
mod moto;
#[path = "../../../s3/tests/s3/support/sign.rs"]
mod sign;

mod credentials;
mod locked;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use moto::Moto;

/// A folder with a configuration that names a bucket, and a tree to back up.
struct Lab {
    folder: TempDir,
    moto: &'static Moto,
    bucket: String,
}

impl Lab {
    /// None if there is no server.
    fn new(test: &str) -> Option<Self> {
        Self::with(test, "")
    }

    /// The same, whose bucket is made with these headers.
    fn with(test: &str, headers: &str) -> Option<Self> {
        let moto = moto::moto(test)?;
        let lab = Self {
            folder: tempfile::tempdir().unwrap(),
            moto,
            bucket: moto.bucket_with(headers),
        };
        let credentials = format!("{}\n{}\n", sign::ACCESS, sign::SECRET);
        fs::write(lab.path("credentials"), credentials).unwrap();
        lab.configure("");
        let tree = lab.path("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/hostname"), "web\n").unwrap();
        let large: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        fs::write(tree.join("large"), large).unwrap();
        Some(lab)
    }

    /// Writes the configuration, with further lines of `[s3]`.
    fn configure(&self, lines: &str) {
        let text = format!(
            "repository = \"s3://{}/site/a\"\n[s3]\nendpoint = \"http://{}\"\nregion = \"eu-1\"\n\
             cache = \"cache\"\ncredentials-file = \"credentials\"\n{lines}",
            self.bucket, self.moto.address
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_snapkeep"))
            .args(["--config", "config.toml"])
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("SNAPKEEP_STATE", self.path("state"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn good(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let output = self.good(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn init(&self) {
        self.good(&[
            "init",
            "--new-key-file",
            "key",
            "--write-recovery-kit",
            "kit",
        ]);
    }

    #[track_caller]
    fn back_up(&self) -> Value {
        let backup = ["--key-file", "key", "backup", "container", "--guest", "web"];
        self.json(&[&backup[..], &["--directory", "tree"]].concat())
    }
}

fn same(one: &Path, other: &Path) {
    for file in ["etc/hostname", "large"] {
        let read = |root: &Path| fs::read(root.join(file)).unwrap();
        assert!(read(one) == read(other), "{file}");
    }
}

#[test]
fn all_verbs_work_on_a_repository_in_a_bucket() {
    let Some(lab) = Lab::new("all_verbs_work_on_a_repository_in_a_bucket") else {
        return;
    };
    lab.init();
    let first = lab.back_up();
    assert!(first["requests"]["put"].as_u64().unwrap() >= 3, "{first}");
    assert!(
        first["requests"]["sent_bytes"].as_u64().unwrap() > 1_000_000,
        "{first}"
    );
    let second = lab.back_up();
    assert_eq!(second["new_bytes"], 0, "{second}");
    let key = ["--key-file", "key"];
    let with_key = |args: &[&str]| lab.good(&[&key[..], args].concat());
    with_key(&["restore", "container", "web", "--to", "restored"]);
    same(&lab.path("tree"), &lab.path("restored"));
    let archive = first["archive"].as_str().unwrap();
    with_key(&["note", archive, "before the change"]);
    with_key(&["protect", archive]);
    let shown = with_key(&["show", archive]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("before the change"));
    with_key(&["unprotect", archive]);
    with_key(&["forget", archive]);
    let listed = lab.json(&["--key-file", "key", "list"]);
    assert_eq!(listed["archives"].as_array().unwrap().len(), 1, "{listed}");
    assert!(
        listed["requests"]["list"].as_u64().unwrap() >= 1,
        "{listed}"
    );
    with_key(&["verify"]);
    with_key(&["cat", "web", "etc/hostname"]);
    with_key(&["key", "list"]);
    let doctor = ["doctor", "--run-folder", "run", "--mounts", "mounts"];
    let told = lab.good(&[&doctor[..], &["--fleecing", "tree"]].concat());
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    for word in [
        "fine: the storage puts on conditions: yes",
        "in order: yes",
        "keeps old versions: no; has Object Lock: no",
        "locks nothing",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn a_second_list_asks_little() {
    let Some(lab) = Lab::new("a_second_list_asks_little") else {
        return;
    };
    lab.init();
    // Each of a later second, so two archives take as long.
    lab.back_up();
    lab.back_up();
    fs::remove_dir_all(lab.path("cache")).unwrap();
    let gets = |args: &[&str]| {
        let listed = lab.json(&[&["--key-file", "key", "list"], args].concat());
        assert_eq!(listed["archives"].as_array().unwrap().len(), 2);
        listed["requests"]["get"].as_u64().unwrap()
    };
    let cold = gets(&[]);
    let warm = gets(&[]);
    // The configuration and the key slot; when it is cold, also two archives and an index object.
    assert_eq!(warm, 2, "{cold}");
    // And two snapshots, and what index objects there are.
    assert!(cold >= 5, "{cold}");
    assert_eq!(gets(&["--no-cache"]), cold);
}

#[test]
fn a_place_with_something_in_it_is_not_made_a_repository() {
    let Some(lab) = Lab::new("a_place_with_something_in_it_is_not_made_a_repository") else {
        return;
    };
    lab.init();
    let again = lab.run(&["init", "--no-encryption", "--write-recovery-kit", "kit2"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("a repository in it already"));
    assert!(!lab.path("kit2").exists());
    let within = format!("s3://{}/site/a/b", lab.bucket);
    let within = ["-r", &within, "init", "--no-encryption"];
    let within = lab.run(&[&within[..], &["--write-recovery-kit", "kit2"]].concat());
    assert!(String::from_utf8_lossy(&within.stderr).contains("it lies in that of"));
    // Another prefix is another place.
    let other = format!("s3://{}/site/ab", lab.bucket);
    lab.good(&[
        "-r",
        &other,
        "init",
        "--no-encryption",
        "--write-recovery-kit",
        "kit3",
    ]);
    let config = format!("DELETE /{}/site/a/config", lab.bucket);
    assert!(lab.moto.ask(&config, "", b"").contains("204"));
    let pack = format!("PUT /{}/site/a/packs/ab/abcd", lab.bucket);
    assert!(lab.moto.ask(&pack, "", b"x").contains("200"));
    let lost = lab.run(&["init", "--no-encryption", "--write-recovery-kit", "kit2"]);
    assert!(
        String::from_utf8_lossy(&lost.stderr).contains("packs/ab/abcd"),
        "{lost:?}"
    );
}

#[test]
fn what_the_bucket_holds_is_proven_and_not_what_the_cache_does() {
    let Some(lab) = Lab::new("what_the_bucket_holds_is_proven_and_not_what_the_cache_does") else {
        return;
    };
    lab.init();
    let archive = lab.back_up()["archive"].as_str().unwrap().to_owned();
    let key = ["--key-file", "key"];
    lab.good(&[&key[..], &["list"]].concat());
    let record = format!("/{}/site/a/snapshots/{archive}", lab.bucket);
    let head = lab
        .moto
        .ask(&format!("HEAD {record}"), "", b"")
        .to_lowercase();
    let length = head.split_once("content-length: ").unwrap().1;
    let length = length.split_whitespace().next().unwrap().parse().unwrap();
    let put = lab
        .moto
        .ask(&format!("PUT {record}"), "", &vec![b'x'; length]);
    assert!(put.contains("200"), "{put}");
    for verb in [
        &["verify"][..],
        &["verify", "--metadata"],
        &["verify", "--without-key"],
        &["repair"],
    ] {
        let output = lab.run(&[&key[..], verb].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(3), "{verb:?}: {said}");
        assert!(said.contains(&archive), "{verb:?}: {said}");
    }
}

#[test]
fn a_budget_that_is_used_up_is_no_damage() {
    let Some(lab) = Lab::new("a_budget_that_is_used_up_is_no_damage") else {
        return;
    };
    lab.init();
    lab.back_up();
    let opened = lab.json(&["--no-cache", "--key-file", "key", "list"]);
    let requests = &opened["requests"];
    let opened = requests["get"].as_u64().unwrap() + requests["list"].as_u64().unwrap();
    // Enough to open it, and not for all that is to be read.
    lab.configure(&format!("budget-requests = {}\n", opened.min(15)));
    for verb in [&["verify"][..], &["verify", "--without-key"], &["repair"]] {
        let output = lab.run(&[&["--key-file", "key"], verb].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(
            !matches!(output.status.code(), Some(0 | 3)),
            "{verb:?}: {said}"
        );
        assert!(said.contains("budget of 15 requests"), "{verb:?}: {said}");
    }
    lab.configure("");
    let list = lab.json(&["--key-file", "key", "list"]);
    assert!(list["archives"][0]["verification"].is_null(), "{list}");
}

#[test]
fn a_budget_that_is_used_up_ends_the_run_and_says_so() {
    let Some(lab) = Lab::new("a_budget_that_is_used_up_ends_the_run_and_says_so") else {
        return;
    };
    lab.init();
    lab.configure("budget-bytes = \"500KiB\"\n");
    let backup = ["--key-file", "key", "backup", "container", "--guest", "web"];
    let stopped = lab.run(&[&backup[..], &["--directory", "tree"]].concat());
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert!(said.contains("budget of 512000 bytes"), "{said}");
    lab.configure("");
    lab.back_up();
    lab.good(&["--key-file", "key", "verify"]);
}

#[test]
fn what_cannot_be_reached_or_used_is_told_with_its_name_and_no_secret() {
    let test = "what_cannot_be_reached_or_used_is_told_with_its_name_and_no_secret";
    let Some(lab) = Lab::new(test) else {
        return;
    };
    let of = |args: &[&str], code, word: &str| {
        let output = lab.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "{word}: {said}");
        assert!(!said.contains(sign::SECRET), "{said}");
    };
    of(
        &["list"],
        5,
        "are the bucket and the prefix the right ones?",
    );
    of(&["-r", "s3://nowhere-at-all", "list"], 5, "no such bucket");
    let init = ["-r", "s3://nowhere-at-all", "init", "--no-encryption"];
    let init = [&init[..], &["--write-recovery-kit", "kit.none"]].concat();
    of(&init, 5, "bucket");
    of(&["-r", "s3://b", "list"], 2, "3 to 63");
    of(
        &["-r", "s3://bucket?secret-key=x", "list"],
        2,
        "credentials never belong here",
    );
    lab.configure("retry-deadline = 1\n");
    of(
        &["-r", "s3://bucket?endpoint=http://127.0.0.1:1", "list"],
        1,
        "cannot be reached",
    );
    fs::remove_file(lab.path("credentials")).unwrap();
    of(&["list"], 1, "credentials");
}

#[test]
fn a_copy_goes_to_a_bucket_and_an_archive_that_was_taken_away_there_is_missed() {
    let test = "a_copy_goes_to_a_bucket_and_an_archive_that_was_taken_away_there_is_missed";
    let Some(lab) = Lab::new(test) else {
        return;
    };
    lab.init();
    let archive = lab.back_up()["archive"].as_str().unwrap().to_owned();
    let other = format!("s3://{}/site/b", lab.bucket);
    let made = ["-r", &other, "init", "--no-encryption"];
    lab.good(&[&made[..], &["--write-recovery-kit", "kit2"]].concat());
    let copied = lab.json(&["--key-file", "key", "copy", &archive, "--to", &other]);
    assert_eq!(copied["to"], other.as_str(), "{copied}");
    lab.good(&["-r", &other, "verify"]);
    lab.good(&["-r", &other, "verify", "--without-key"]);
    lab.good(&["-r", &other, "repair"]);
    lab.good(&[
        "-r",
        &other,
        "restore",
        "container",
        &archive,
        "--to",
        "copied",
    ]);
    same(&lab.path("tree"), &lab.path("copied"));

    let look = ["doctor", "--run-folder", "run", "--mounts", "mounts"];
    let look = [&look[..], &["--fleecing", "tree"]].concat();
    lab.good(&look);
    let snapshot = format!("/{}/site/a/snapshots/{archive}", lab.bucket);
    assert!(
        lab.moto
            .ask(&format!("HEAD {snapshot}"), "", b"")
            .contains("200")
    );
    assert!(
        lab.moto
            .ask(&format!("DELETE {snapshot}"), "", b"")
            .contains("204")
    );
    let missed = lab.run(&look);
    let said = String::from_utf8_lossy(&missed.stdout).into_owned();
    assert!(!missed.status.success(), "{said}");
    assert!(
        said.contains("rolled back") && said.contains(&archive),
        "{said}"
    );
    lab.good(&[&look[..], &["--accept-rollback"]].concat());
    lab.good(&look);
}

#[test]
fn a_repository_is_not_made_around_another_one() {
    let Some(lab) = Lab::new("a_repository_is_not_made_around_another_one") else {
        return;
    };
    lab.init();
    for prefix in ["", "/site"] {
        let around = format!("s3://{}{prefix}", lab.bucket);
        let args = ["-r", &around, "init", "--no-encryption"];
        let output = lab.run(&[&args[..], &["--write-recovery-kit", "kit2"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in ["lies in it", "/site/a"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(!lab.path("kit2").exists());
    }
    // What another program calls so keeps nobody away.
    let put = format!("PUT /{}/other/app/config", lab.bucket);
    assert!(lab.moto.ask(&put, "", b"theirs").contains("200 "));
    let beside = format!("s3://{}/other", lab.bucket);
    let args = ["-r", &beside, "init", "--no-encryption"];
    lab.good(&[&args[..], &["--write-recovery-kit", "kit3"]].concat());
}
