//! Runs a command and takes the operating system's own account of it when it is reaped: the
//! processor time of it and of all its children, the memory of the largest of them.
//!
//! The account comes from wait4(2), which the standard library does not give; a few lines of
//! Python, which the tests need anyway, stand between. Their own time is not in it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

const WAITER: &str = "
import json, os, sys, time
start = time.monotonic()
pid = os.fork()
if pid == 0:
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        print(sys.argv[2], error, file=sys.stderr)
        os._exit(127)
_, status, usage = os.wait4(pid, 0)
wall = time.monotonic() - start
with open(sys.argv[1], 'w') as out:
    json.dump({'wall': wall, 'cpu': usage.ru_utime + usage.ru_stime, 'kib': usage.ru_maxrss}, out)
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
";

/// What one run cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    /// User and system time of the command and its children.
    pub(crate) cpu_s: f64,
    /// User and system time of a server that it read from and that ran before it.
    pub(crate) served_s: f64,
    /// The largest process, in MiB.
    pub(crate) peak_mib: f64,
}

/// Runs `command`, which must succeed; its cost and what it printed.
pub(crate) fn measure(command: &Command, scratch: &Path) -> Result<(Cost, String)> {
    let account = scratch.join("account.json");
    let mut waiter = Command::new("/usr/bin/python3");
    waiter.arg("-c").arg(WAITER).arg(&account);
    waiter.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => waiter.env(name, value),
            None => waiter.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        waiter.current_dir(folder);
    }
    let name = command.get_program().display().to_string();
    let output = (waiter.stdin(Stdio::null()).output())
        .with_context(|| format!("could not start python3 for {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} failed: {}: {printed}{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let account: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&account)?)?;
    let number = |name: &str| account[name].as_f64().context("an account lacks a number");
    let cost = Cost {
        wall_s: number("wall")?,
        cpu_s: number("cpu")?,
        served_s: 0.0,
        peak_mib: number("kib")? / 1024.0,
    };
    Ok((cost, printed))
}

/// The program and its arguments; the environment would bury what went wrong.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The median of some numbers, which are not none.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.get(middle) {
        None => f64::NAN,
        Some(upper) if numbers.len() % 2 == 1 => *upper,
        Some(upper) => (numbers[middle - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{measure, median};
    use crate::shell::Scratch;
    use std::process::Command;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middle_ones() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < 1e-9);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn the_work_of_a_child_of_the_command_is_counted() {
        let scratch = Scratch::new("measure").unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); echo done",
        ]);
        let (cost, printed) = measure(&command, scratch.path()).unwrap();
        assert_eq!(printed, "done\n");
        assert!(cost.cpu_s > 0.0 && cost.wall_s > 0.0 && cost.peak_mib > 0.0);
    }

    #[test]
    fn a_command_that_fails_is_no_measurement() {
        let scratch = Scratch::new("measure").unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo no room >&2; exit 3"])
            .env("A", "B");
        let error = measure(&command, scratch.path()).unwrap_err().to_string();
        let expected = "sh -c echo no room >&2; exit 3 failed: exit status: 3: no room";
        assert_eq!(error, expected);
    }
}
