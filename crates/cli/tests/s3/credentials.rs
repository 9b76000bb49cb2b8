//! Where credentials are looked for, and what is said if there are none.

use std::net::TcpListener;
use std::process::Command;

/// What the program says, whose environment has only this.
fn said(variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(["-r", "s3://bucket/a?endpoint=http://127.0.0.1:1", "list"])
        .current_dir(folder.path())
        .env_clear()
        .env("HOME", folder.path())
        .env("SNAPKEEP_STATE", folder.path())
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for place in [
        "there are no credentials",
        "credentials-file",
        "AWS_ACCESS_KEY_ID",
        &folder.path().join(".aws/credentials").display().to_string(),
        "AWS_CONTAINER_CREDENTIALS",
        "the machine",
    ] {
        assert!(said.contains(place), "{place}: {said}");
    }
    said
}

#[test]
fn without_credentials_it_is_told_soon_where_they_were_looked_for() {
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let said = said(&[("AWS_METADATA_ENDPOINT", &nobody)]);
    assert!(said.contains("has none to give"), "{said}");
}

#[test]
fn a_machine_that_is_not_to_be_asked_for_credentials_is_not() {
    let said = said(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    assert!(said.contains("is not asked"), "{said}");
    assert!(!said.contains("tried"), "{said}");
}
