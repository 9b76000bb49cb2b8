//! `cargo xtask test`: the steps of the continuous integration, on any machine.
//!
//! The steps run in order and stop at the first failure. Output is passed on as
//! it comes, and read on the way: the last line counts what really ran. A test
//! that could not run prints a line `SKIP: name: why`; with `CI=true` that is a
//! failure, except for suites docs/TESTING.md lists as needing outside material.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::follow::{Output, Sink, follow, piped};
use crate::shell::{cargo, root, target_folder};

/// How long a step's output may stay open after its own process has ended.
const GRACE: Duration = Duration::from_secs(10);

/// What the output of the steps said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The text after `SKIP: `.
    skips: Vec<String>,
    /// What the tests that inject crashes, kill something at each call, or go through all states of
    /// a model, say of how much they tried.
    crashes: Vec<String>,
    /// How many result lines of test programs were seen.
    programs: u64,
    /// Failures that `prove` listed; its closing line counts them among all tests.
    failed_in_perl: u64,
    /// What test programs wrote of the tests that failed, without the frames of backtraces.
    failures: Vec<String>,
    /// Whether a test program is telling that.
    in_failures: bool,
}

/// So many lines of failures are repeated at the end.
const FAILURES_MAX: usize = 1000;

impl Tally {
    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(skip) = line.strip_prefix("SKIP: ") {
            self.skips.push(skip.to_owned());
        } else if line.contains(" storage operations, ")
            || line.starts_with("# kill table")
            || line.starts_with("protocol model: ")
            || line.starts_with("interleavings: ")
            || line.starts_with("stress: ")
            || line.starts_with("prune kill table: ")
        {
            self.crashes.push(line.to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.programs += 1;
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if let Some((_, result)) = line.split_once("(Wstat: ") {
            self.failed_in_perl += number_after(result, "Failed: ");
        } else if line.starts_with("Files=") {
            self.programs += 1;
            self.failed += self.failed_in_perl;
            self.passed += number_after(line, "Tests=").saturating_sub(self.failed_in_perl);
        }
    }

    /// Keeps what is told of failures, which the output of the programs after it may hide.
    fn keep(&mut self, line: &str) {
        let line = line.trim_end();
        match line {
            "failures:" => self.in_failures = true,
            "successes:" => self.in_failures = false,
            _ if line.starts_with("test result: ") => self.in_failures = false,
            _ if self.in_failures && !is_frame(line) && self.failures.len() < FAILURES_MAX => {
                self.failures.push(line.to_owned());
            }
            _ => {}
        }
    }

    fn skipped(&self) -> u64 {
        self.ignored + u64::try_from(self.skips.len()).expect("a count of lines fits 64 bits")
    }

    /// The line a machine reads: a skipped test returned, but it did not pass.
    fn summary(&self) -> String {
        let skips = self.skipped() - self.ignored;
        let passed = self.passed.saturating_sub(skips);
        format!(
            "{passed} passed, {} failed, {} skipped",
            self.failed,
            self.skipped()
        )
    }
}

/// The tally, as those who pass output on hold it.
type Shared = Arc<Mutex<Tally>>;

/// All steps; what follows `--` goes to the test programs, as a filter of names.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let filter = match args {
        [] => args,
        [dashes, filter @ ..] if dashes == "--" => filter,
        _ => bail!("a filter for the tests follows --"),
    };
    let tally = Shared::default();
    let result = run_steps(&tally, filter);
    let tally = lock(&tally);
    if result.is_ok() {
        check_skips(&tally)?;
        for line in &tally.crashes {
            println!("{line}");
        }
        println!("{}", tally.summary());
    } else if tally.programs > 0 {
        for line in &tally.failures {
            println!("{line}");
        }
        println!("so far: {}", tally.summary());
    }
    result
}

fn run_steps(tally: &Shared, filter: &[String]) -> Result<()> {
    step("setup", tally, &mut verb("setup"))?;
    step("fmt", tally, cargo().args(["fmt", "--all", "--check"]))?;
    step("tidy", tally, &mut verb("tidy"))?;
    let clippy = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy", tally, cargo().args(clippy))?;
    let doc = ["doc", "--locked", "--workspace", "--no-deps"];
    step(
        "doc",
        tally,
        cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    // Only shown output has the SKIP lines of tests that returned.
    let test = [
        "test",
        "--locked",
        "--workspace",
        "--no-fail-fast",
        "--",
        "--show-output",
    ];
    step("test", tally, cargo().args(test).args(filter))?;
    ensure!(
        lock(tally).passed > 0,
        "no test ran: cargo test printed no result"
    );
    step("perl", tally, &mut prove()?)?;
    step_of_one("tour", tally, &mut verb("tour"))?;
    step_of_one("drill", tally, &mut verb("drill"))?;
    // The build that the tests made.
    step_of_one("demo", tally, verb("demo").arg("--dev"))?;
    Ok(())
}

/// Another verb, as a process of its own so that its output is read like any
/// other. The link still leads to this program when cargo has replaced its file.
fn verb(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).current_dir(root());
    command
}

/// The tests of the classes for Proxmox VE, with the program that the tests made. Each asks for taint
/// checks by its first line.
fn prove() -> Result<Command> {
    let program = format!("{}/debug/snapkeep", target_folder()?);
    let mut command = Command::new("prove");
    command
        .args(["-j", "2", "-I", "perl/t/lib", "-I", "perl", "perl/t"])
        .env("SNAPKEEP_PROGRAM", program)
        .current_dir(root());
    Ok(command)
}

/// A step that is itself one test.
fn step_of_one(name: &str, tally: &Shared, command: &mut Command) -> Result<()> {
    let result = step(name, tally, command);
    let mut tally = lock(tally);
    if result.is_ok() {
        tally.passed += 1;
    } else {
        tally.failed += 1;
    }
    result
}

fn step(name: &str, tally: &Shared, command: &mut Command) -> Result<()> {
    println!("== step {name}");
    let start = Instant::now();
    let mut child = piped(command.stdin(Stdio::null()))
        .spawn()
        .with_context(|| format!("could not start step {name}"))?;
    let ended = follow(&mut child, &passing_on(tally), GRACE);
    let seconds = start.elapsed().as_secs();
    let failed = || println!("== step {name} FAILED ({seconds} s)");
    let status = ended
        .inspect_err(|_| failed())
        .with_context(|| format!("step {name} failed"))?;
    if !status.success() {
        failed();
        bail!("step {name} failed: {status}");
    }
    println!("== step {name} ok ({seconds} s)");
    Ok(())
}

/// Passes every line on at once, and counts it.
fn passing_on(tally: &Shared) -> Sink {
    let tally = Arc::clone(tally);
    Arc::new(move |output, line| {
        let mut tally = lock(&tally);
        match output {
            Output::Standard => {
                print!("{line}");
                tally.keep(line);
            }
            Output::Error => eprint!("{line}"),
        }
        tally.read(line);
    })
}

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a line is a frame of a backtrace, which says where and not what.
fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.split_once(": ").map_or("", |(number, _)| number);
    line.starts_with("at ") || (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The number before `word` in `ok. 3 passed; 0 failed; …`.
fn count(result: &str, word: &str) -> u64 {
    result
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// The number right after `word` in a line of `prove`.
fn number_after(line: &str, word: &str) -> u64 {
    let rest = line.split_once(word).map_or("", |(_, rest)| rest);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn check_skips(tally: &Tally) -> Result<()> {
    for skip in &tally.skips {
        println!("skipped: {skip}");
    }
    if std::env::var_os("CI").is_none_or(|value| value != "true") {
        return Ok(());
    }
    let document = std::fs::read_to_string(root().join("docs/TESTING.md"))
        .context("could not read docs/TESTING.md")?;
    let refused = refused_skips(tally, &outside_suites(&document));
    ensure!(
        refused == 0,
        "{refused} tests were skipped; with CI=true every tool has to be there"
    );
    Ok(())
}

/// How many skips no suite in `outside` accounts for.
fn refused_skips(tally: &Tally, outside: &[&str]) -> u64 {
    let allowed = tally.skips.iter().filter(|skip| {
        let name = skip.split(": ").next().unwrap_or(skip);
        outside.iter().any(|suite| {
            name.strip_prefix(suite)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    });
    tally.skipped() - u64::try_from(allowed.count()).expect("a count of lines fits 64 bits")
}

/// The suites listed as "- `name`: …" under the heading for outside material.
fn outside_suites(document: &str) -> Vec<&str> {
    document
        .lines()
        .skip_while(|line| *line != "## Suites that need outside material")
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Tally, outside_suites, refused_skips};

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let tally = tally(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.25s\n",
        );
        assert_eq!(tally.summary(), "4 passed, 2 failed, 1 skipped");
        assert_eq!(tally.programs, 2);
    }

    #[test]
    fn tests_in_perl_are_counted_with_the_others() {
        let tally = tally(
            "test result: ok. 3 passed; 0 failed; 0 ignored\n\
             perl/t/faults.t          (Wstat: 256 (exited 1) Tests: 75 Failed: 2)\n  Failed test:  49\n\
             Files=7, Tests=222,  8 wallclock secs ( 0.05 usr  0.02 sys +  1.76 cusr  0.65 csys =  2.48 CPU)\n",
        );
        assert_eq!(tally.summary(), "223 passed, 2 failed, 0 skipped");
    }

    #[test]
    fn what_failed_is_kept_for_the_end() {
        let mut tally = Tally::default();
        let output = "test a::b ... FAILED\n\nsuccesses:\n\n---- a::c stdout ----\nfine\n\nfailures:\n\n\
                      ---- a::b stdout ----\nnever came: its end\n   0: std::panicking::begin\n             \
                      at /rustc/lib.rs:1:2\n12: odd\n12\n\nfailures:\n    a::b\n\ntest result: FAILED. 1 passed\nlater\n";
        output.lines().for_each(|line| tally.keep(line));
        let kept: Vec<_> = (tally.failures.iter())
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(
            kept,
            [
                "---- a::b stdout ----",
                "never came: its end",
                "12",
                "    a::b"
            ]
        );
    }

    #[test]
    fn what_was_said_of_crashes_is_kept_for_the_end() {
        let tally = tally(
            "7 storage operations, 9 crashes injected, losses 0\nok\n\
             # kill table: 7 calls x 4 ways, 0 hangs, 0 leftovers\n# kill\n\
             protocol model: 9 states\ninterleavings: 9 schedules\n",
        );
        assert_eq!(
            tally.crashes,
            [
                "7 storage operations, 9 crashes injected, losses 0",
                "# kill table: 7 calls x 4 ways, 0 hangs, 0 leftovers",
                "protocol model: 9 states",
                "interleavings: 9 schedules"
            ]
        );
    }

    #[test]
    fn a_skipped_test_is_not_counted_as_passed() {
        let tally =
            tally("SKIP: copies: needs nbdcopy\ntest result: ok. 3 passed; 0 failed; 0 ignored\n");
        assert_eq!(tally.summary(), "2 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_skip_is_refused_unless_its_suite_needs_outside_material() {
        let document =
            "# T\n- `a`\n## Suites that need outside material\n- `b`: a volume\n## Next\n- `c`\n";
        let outside = outside_suites(document);
        assert_eq!(outside, ["b"]);
        assert_eq!(
            refused_skips(&tally("SKIP: b::one: none\nSKIP: b: none\n"), &outside),
            0
        );
        assert_eq!(
            refused_skips(&tally("SKIP: a: none\nSKIP: bb: none\n"), &outside),
            2
        );
    }

    #[test]
    fn an_ignored_test_is_a_refused_skip() {
        let tally = tally("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n");
        assert_eq!(refused_skips(&tally, &[]), 1);
    }
}
