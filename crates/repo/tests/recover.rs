//! docs/FORMAT.md is enough: a reader in Python that was written from it restores the golden
//! repositories, and what its last chapter has for a shell proves what it says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a skipped test says so, and what Python counted is to be seen"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden() -> PathBuf {
    root().join("crates/repo/tests/golden")
}

/// Debian's modules belong to Debian's interpreter.
fn python() -> &'static str {
    let debian = "/usr/bin/python3";
    if Path::new(debian).exists() {
        debian
    } else {
        "python3"
    }
}

/// Whether a command works; if not, the test is skipped, or fails where all tools must be there.
fn works(test: &str, tool: &str, command: &mut Command) -> bool {
    let there = command.output().is_ok_and(|output| output.status.success());
    if !there {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{test}: needs {tool}"
        );
        eprintln!("SKIP: {test}: needs {tool}");
    }
    there
}

fn shown(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn the_reader_in_python_restores_what_this_program_restores() {
    let mut modules = Command::new(python());
    modules.args(["-c", "import cryptography, zstandard"]);
    let test = "recover::the_reader_in_python_restores_what_this_program_restores";
    let tool = "python3 with the modules cryptography and zstandard";
    if !works(test, tool, &mut modules) {
        return;
    }
    let mut command = Command::new(python());
    let script = root().join("docs/recovery/test_recover.py");
    let output = command.arg(script).arg(golden()).output().unwrap();
    println!("{}", shown(&output));
    assert!(output.status.success(), "{}", shown(&output));
}

/// The blocks of the document that are marked `sh by-hand`.
fn blocks() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/FORMAT.md")).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line == "```sh by-hand") {
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push(block.join("\n"));
    }
    blocks
}

fn run(block: &str, folder: &Path) -> Output {
    let mut command = Command::new("sh");
    let command = command.args(["-euc", block]).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn what_the_document_does_by_hand_proves_a_repository_and_finds_damage() {
    let test = "recover::what_the_document_does_by_hand_proves_a_repository_and_finds_damage";
    if !works(test, "b3sum", Command::new("b3sum").arg("--version")) {
        return;
    }
    let blocks = blocks();
    let damaged = ["packs", "keys", "config", "config"];
    assert_eq!(
        blocks.len(),
        damaged.len(),
        "one kind of file for each block"
    );
    let scratch = tempfile::tempdir().unwrap();
    for (number, (block, kind)) in blocks.iter().zip(damaged).enumerate() {
        let folder = scratch.path().join(number.to_string());
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(golden().join("open")).arg(&folder);
        assert!(copy.status().unwrap().success());
        let output = run(block, &folder);
        assert!(output.status.success(), "{block}\n{}", shown(&output));
        let file = first_file(&folder.join(kind));
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 2;
        // The last line of `config` is its MAC; a letter of its other lines is in the checksum.
        let at = if kind == "config" && number == 2 {
            5
        } else {
            last
        };
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(!run(block, &folder).status.success(), "{block}");
    }
}

/// The first file in or below a place.
fn first_file(place: &Path) -> PathBuf {
    let mut place = place.to_owned();
    while place.is_dir() {
        place = std::fs::read_dir(&place)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
    }
    place
}
