//! Passing on the output of a program while it runs, and knowing when to stop.
//!
//! A program that leaves a process behind leaves it the pipes too, and they stay
//! open for as long as that process lives, which may be for ever. So the end of
//! the program itself is what counts: its output gets some time to end after it.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

/// Which of its two outputs a program wrote a line to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Standard,
    Error,
}

/// Gets every line, with its end, as it comes.
pub(crate) type Sink = Arc<dyn Fn(Output, &str) + Send + Sync>;

/// Makes `command` one whose outputs can be followed.
pub(crate) fn piped(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// Passes both outputs of `child` to `sink` until it has ended. It is an error
/// when something still holds an output open `grace` after that.
pub(crate) fn follow(child: &mut Child, sink: &Sink, grace: Duration) -> Result<ExitStatus> {
    let (done, ends) = channel();
    listen(child.stdout.take(), Output::Standard, sink, &done)?;
    listen(child.stderr.take(), Output::Error, sink, &done)?;
    let status = child.wait().context("could not wait for the process")?;
    for _ in 0..2 {
        let end = ends.recv_timeout(grace).map_err(|_| {
            anyhow!("it ended ({status}), but left a process behind that holds its output open")
        })?;
        end.context("could not read the output")?;
    }
    Ok(status)
}

/// Reads `pipe` beside the caller, and tells `done` how it ended.
fn listen(
    pipe: Option<impl Read + Send + 'static>,
    output: Output,
    sink: &Sink,
    done: &Sender<std::io::Result<()>>,
) -> Result<()> {
    let pipe = pipe.context("the output is not a pipe")?;
    let (sink, done) = (Arc::clone(sink), done.clone());
    // Nobody listens any more when the program was given up: then that is fine.
    std::thread::spawn(move || drop(done.send(pass_on(pipe, output, &sink))));
    Ok(())
}

fn pass_on(from: impl Read, output: Output, sink: &Sink) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        sink(output, &String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{Output, Sink, follow, piped};

    fn shell(script: &str) -> Child {
        piped(
            Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped()),
        )
        .spawn()
        .unwrap()
    }

    type Lines = Arc<Mutex<Vec<(Output, String)>>>;

    /// Keeps the lines: what a test prints is itself the output of a step.
    fn kept() -> (Sink, Lines) {
        let lines = Lines::default();
        let to = Arc::clone(&lines);
        let sink: Sink = Arc::new(move |output, line| {
            to.lock().unwrap().push((output, line.to_owned()));
        });
        (sink, lines)
    }

    #[test]
    fn both_outputs_are_passed_on_to_their_end() {
        let (sink, lines) = kept();
        let mut child = shell("echo one; echo two >&2; printf three; exit 4");
        let status = follow(&mut child, &sink, Duration::MAX).unwrap();
        assert_eq!(status.code(), Some(4));
        let mut lines = lines.lock().unwrap().clone();
        lines.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(
            lines,
            [
                (Output::Standard, "one\n".to_owned()),
                (Output::Standard, "three".to_owned()),
                (Output::Error, "two\n".to_owned()),
            ]
        );
    }

    #[test]
    fn a_process_left_behind_does_not_hold_the_caller_up() {
        let (sink, _) = kept();
        // What stays behind ends with this test: it reads what the test holds.
        let mut child = shell("exec 3<&0; cat <&3 & echo started");
        let held = child.stdin.take();
        let error = follow(&mut child, &sink, Duration::from_millis(1)).unwrap_err();
        assert!(
            error.to_string().contains("left a process behind"),
            "{error}"
        );
        drop(held);
    }
}
