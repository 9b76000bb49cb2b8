//! Where settings come from, and what is no repository of ours.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::shape::Shape;
use crate::{fails, terminated, tool, with_archive};

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let (folder, _) = with_archive();
    let file = "repository = 'of-file'\nnamespace = 'of-file'\n";
    fs::write(folder.path().join("c.toml"), file).unwrap();
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
            .args(args)
            .current_dir(folder.path())
            .env_clear()
            .env("SNAPKEEP_STATE", "state")
            .env("SNAPKEEP_CONFIG", "c.toml")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = run(&[], &["list"]);
    assert!(code == Some(5) && said.contains("of-file"), "{said}");
    let repository = ("SNAPKEEP_REPOSITORY", "repo");
    let (code, said) = run(&[repository], &["list"]);
    assert!(code == Some(0) && said.contains("main/vm/web/"), "{said}");
    let (code, said) = run(&[repository], &["-r", "of-flag", "list"]);
    assert!(code == Some(5) && said.contains("of-flag"), "{said}");
    let show = ["show", "web"];
    let (code, said) = run(&[repository], &show);
    assert!(code == Some(5) && said.contains("of-file"), "{said}");
    let namespace = ("SNAPKEEP_NAMESPACE", "of-environment");
    let (code, said) = run(&[repository, namespace], &show);
    assert!(code == Some(5) && said.contains("of-environment"), "{said}");
    let (code, _) = run(
        &[repository, namespace],
        &["--namespace", "main", "show", "web"],
    );
    assert_eq!(code, Some(0));
    let secrets = [
        repository,
        ("SNAPKEEP_PASSPHRASE", "words"),
        ("SNAPKEEP_KEY_FILE", "key"),
    ];
    let (code, said) = run(&secrets, &["list"]);
    assert!(code == Some(2) && said.contains("only one"), "{said}");
    let (code, said) = run(&[repository, ("SNAPKEEP_WORKERS", "0")], &["list"]);
    assert!(code == Some(2) && said.contains("--workers"), "{said}");
}

#[test]
fn a_newer_format_and_a_file_of_another_program_are_told_apart() {
    let (folder, _) = with_archive();
    let path = folder.path().join("repo/config");
    let config = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = config.lines().collect();
    let newer = lines[1].replace("\"version\":1", "\"version\":2");
    assert_ne!(newer, lines[1]);
    let covered = format!("{}\n{newer}\n", lines[0]);
    let sum = blake3::hash(covered.as_bytes()).to_hex();
    fs::write(&path, format!("{covered}blake3 {sum}\n{}\n", lines[3])).unwrap();
    fails(&folder, &["-r", "repo", "list"], 6, &["repo", "format 2"]);
    fs::write(&path, "[core]\n\tbare = true\n").unwrap();
    fails(&folder, &["-r", "repo", "list"], 3, &["repo", "config"]);
}

#[test]
fn a_copy_of_what_is_served_is_the_disk() {
    if !tool("a_copy_of_what_is_served_is_the_disk", "nbdcopy") {
        return;
    }
    let (folder, bytes) = with_archive();
    let args = [
        "-r", "repo", "nbd", "serve", "web", "--socket", "socket", "--json",
    ];
    let code = terminated(&folder, &args, "{", |line| {
        let serving: Value = serde_json::from_str(line).unwrap();
        Shape::of("`nbd serve`")[0].check(&serving);
        let uri = serving["exports"][0]["uri"].as_str().unwrap();
        // From another folder.
        let copied = Command::new("nbdcopy").args([uri, "-"]).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        assert!(copied.stdout == bytes);
    });
    assert_eq!(code, Some(0));
}
