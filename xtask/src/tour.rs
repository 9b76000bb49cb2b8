//! `cargo xtask tour`: what README.md shows really happens.
//!
//! The block of README.md marked `console tour` is a session (the drill has another): `$ ` starts a
//! command, `> ` continues it, the other lines are output. The commands run in
//! one bash, in a new folder, with the program just built first in PATH and the
//! checkout's place in `SNAPKEEP_SOURCE`. The lines of output must appear, in
//! their order, among those of their command; `...` in a line stands for any
//! text.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::setup;
use crate::shell::{Scratch, build_programs, root};

/// A command of the session and the output shown for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    command: String,
    output: Vec<String>,
}

/// Precedes the number of the command that starts; nothing else prints it.
const MARK: &str = "\u{1e}tour ";

pub(crate) fn run(_args: &[String]) -> Result<()> {
    let path = root().join("README.md");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("could not read README.md"),
    };
    let Some(session) = session(&text, "tour")? else {
        println!("SKIP: tour: README.md has no block marked `console tour`");
        return Ok(());
    };
    setup::for_tests()?;
    let (programs, folder) = (build_programs()?, Scratch::new("tour")?);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = Command::new("bash");
    (bash.current_dir(folder.path()))
        .env("PATH", format!("{programs}:{path}"))
        .env("SNAPKEEP_SOURCE", root());
    play(&session, &mut bash)?;
    println!("tour: {} commands did what README.md shows", session.len());
    Ok(())
}

/// The session of the document with this mark; None when it has none.
pub(crate) fn session(document: &str, mark: &str) -> Result<Option<Vec<Shown>>> {
    let first = format!("```console {mark}");
    let mut lines = document.lines().skip_while(|line| line.trim_end() != first);
    if lines.next().is_none() {
        return Ok(None);
    }
    let mut session: Vec<Shown> = Vec::new();
    for line in lines {
        if line.trim_end() == "```" {
            ensure!(!session.is_empty(), "the {mark} has no command");
            return Ok(Some(session));
        }
        if let Some(command) = line.strip_prefix("$ ") {
            session.push(Shown {
                command: command.to_owned(),
                output: Vec::new(),
            });
            continue;
        }
        let shown = session
            .last_mut()
            .with_context(|| format!("the {mark} starts with output"))?;
        match line.strip_prefix("> ") {
            Some(more) if shown.output.is_empty() => {
                shown.command.push('\n');
                shown.command.push_str(more);
            }
            _ if line.trim().is_empty() => {}
            _ => shown.output.push(line.to_owned()),
        }
    }
    bail!("the {mark} does not end")
}

/// Runs the session in this bash and compares the output.
pub(crate) fn play(session: &[Shown], bash: &mut Command) -> Result<()> {
    // The end is marked by bash itself, because a program left in the background
    // could hold the pipe open; those that bash knows end with it.
    let mut script = format!(
        "exec 2>&1\n\
         trap 'code=$?; kill $(jobs -p) 2>/dev/null || :; wait || :; echo; echo \"{MARK}end $code\"' EXIT\n"
    );
    for (number, shown) in session.iter().enumerate() {
        script.extend([
            "echo '",
            MARK,
            &number.to_string(),
            "'\n",
            &shown.command,
            "\n",
        ]);
    }
    let mut child = bash
        .args(["-euo", "pipefail", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start bash")?;
    let stdout = child.stdout.take().context("bash has no standard output")?;
    let mut outputs: Vec<Vec<String>> = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        match line.strip_prefix(MARK) {
            Some(mark) if mark.starts_with("end ") => break,
            Some(_) => {
                println!("$ {}", session[outputs.len()].command);
                outputs.push(Vec::new());
            }
            None => {
                println!("{line}");
                if let Some(output) = outputs.last_mut() {
                    output.push(line);
                }
            }
        }
    }
    let status = child.wait().context("could not wait for bash")?;
    let last = outputs
        .len()
        .checked_sub(1)
        .map_or("", |last| &session[last].command);
    ensure!(status.success(), "{status} in: {last}");
    ensure!(
        outputs.len() == session.len(),
        "it stopped early after: {last}"
    );
    for (shown, output) in session.iter().zip(&outputs) {
        if let Some(line) = first_absent(&shown.output, output) {
            bail!("{:?} did not print, in its place: {line}", shown.command);
        }
    }
    Ok(())
}

/// The first line of `expected` that does not appear in its turn.
fn first_absent<'a>(expected: &'a [String], output: &[String]) -> Option<&'a String> {
    let mut output = output.iter();
    expected
        .iter()
        .find(|line| !output.any(|printed| matches(line, printed)))
}

/// Whether `printed` is `pattern`, in which `...` stands for any text.
fn matches(pattern: &str, printed: &str) -> bool {
    let (pattern, printed) = (pattern.trim_end(), printed.trim_end());
    let Some((start, rest)) = pattern.split_once("...") else {
        return pattern == printed;
    };
    let Some(mut left) = printed.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split("...").collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else {
            return false;
        };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Shown, matches, play, session};

    fn of(block: &str) -> Vec<Shown> {
        session(&format!("text\n```console tour\n{block}```\n"), "tour")
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_document_without_the_block_has_no_tour() {
        assert_eq!(session("```console\n$ false\n```\n", "tour").unwrap(), None);
    }

    #[test]
    fn a_tour_that_does_not_end_is_refused() {
        assert!(session("```console tour\n$ true\n", "tour").is_err());
    }

    #[test]
    fn commands_share_one_shell_and_their_output_is_compared() {
        let session = of("$ a=1; \\\n> b=2\n$ echo first; echo $a $b\n1 2\n");
        play(&session, &mut Command::new("bash")).unwrap();
    }

    #[test]
    fn output_that_does_not_appear_fails_the_tour() {
        let error = play(&of("$ echo one\ntwo\n"), &mut Command::new("bash")).unwrap_err();
        assert!(error.to_string().contains("two"), "{error}");
    }

    #[test]
    fn a_failing_command_fails_the_tour() {
        let error = play(&of("$ true\n$ false\n$ true\n"), &mut Command::new("bash")).unwrap_err();
        assert!(error.to_string().ends_with("in: false"), "{error}");
    }

    #[test]
    fn leaving_early_fails_the_tour() {
        assert!(play(&of("$ exit 0\n$ true\n"), &mut Command::new("bash")).is_err());
    }

    #[test]
    fn a_program_left_in_the_background_does_not_hold_the_tour_up() {
        play(&of("$ sleep 1000 &\n"), &mut Command::new("bash")).unwrap();
    }

    #[test]
    fn dots_stand_for_any_text() {
        assert!(matches("took ... s, ... bytes", "took 1.5 s, 77 bytes"));
        assert!(matches("same", "same "));
        assert!(!matches("took ... s", "took 1.5 ms, 3"));
        assert!(!matches("same", "not the same"));
    }
}
