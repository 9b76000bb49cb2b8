//! Mounts that are gone after a test, and the tools that read them.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use snapkeep_mount::{Mounted, Node, Options, mount};
use tempfile::TempDir;

/// Longer than any tool takes; only a test that fails waits so long.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// Whether a file system can be mounted here, and the tools are; a skip is told, and is a failure
/// where there must be none.
pub(crate) fn are_here(test: &str, names: &[&str]) -> bool {
    let tool = |name: &&&str| {
        let output = Command::new(name).arg("--version").output();
        output.is_err()
    };
    let fuse = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    let missing = (!fuse).then_some("root and /dev/fuse");
    let Some(missing) = missing.or_else(|| names.iter().find(tool).copied()) else {
        return true;
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} needs {missing}");
    eprintln!("SKIP: {test}: needs {missing}");
    false
}

/// A mount in a folder of its own; both are gone when it is dropped.
pub(crate) struct Mount {
    mounted: Option<Mounted>,
    problems: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Mount {
    pub(crate) fn new(root: Node) -> Self {
        Self::with(root, Options::default())
    }

    /// With other options, but for whom problems are told.
    pub(crate) fn with(root: Node, mut options: Options) -> Self {
        let problems = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&problems);
        options.on_problem = Box::new(move |path: &str, error: &snapkeep_api::Error| {
            kept.lock()
                .unwrap()
                .push(format!("{path}: {}", error.chain()));
        });
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("mnt");
        std::fs::create_dir(&target).unwrap();
        let mounted = mount(&target, root, options).unwrap();
        Self {
            mounted: Some(mounted),
            problems,
            folder,
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// A folder for a test's own files, which is not mounted.
    pub(crate) fn own(&self) -> &Path {
        self.folder.path()
    }

    /// The problems that were told, in order.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.lock().unwrap().clone();
        problems.sort();
        problems
    }

    pub(crate) fn mounted(&mut self) -> &mut Option<Mounted> {
        &mut self.mounted
    }
}

/// Runs a command of the shell to its end, in this folder; returns what it prints.
#[track_caller]
pub(crate) fn sh(folder: &Path, script: &str) -> String {
    let output = output(folder, script);
    let [said, answer] = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{script}: {said}{answer}");
    answer.into_owned()
}

/// Runs a command of the shell that fails; returns what it says.
#[track_caller]
pub(crate) fn sh_fails(folder: &Path, script: &str) -> String {
    let output = output(folder, script);
    assert!(!output.status.success(), "{script}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command of the shell. One that does not end is killed, and the test fails.
#[track_caller]
pub(crate) fn output(folder: &Path, script: &str) -> Output {
    let child = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", script])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir(folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output();
        // Nobody listens any more once the limit is over.
        ended.send(()).ok();
        output
    });
    let in_time = end.recv_timeout(TOOL_LIMIT).is_ok();
    if !in_time {
        kill_process_group(pid, Signal::KILL).ok();
    }
    let output = waiting.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        in_time,
        "{script} has not ended after {TOOL_LIMIT:?}: {said}"
    );
    output
}

/// A process of the shell that says a line when it is ready and ends when its input does, or when
/// it is dropped.
pub(crate) struct Background(pub(crate) Child);

impl Background {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self(child.unwrap())
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn until(&mut self, word: &str) {
        let output = self.0.stdout.as_mut().unwrap();
        let mut said = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&said).contains(word) {
            assert_eq!(output.read(&mut byte).unwrap(), 1, "it said only {said:?}");
            said.push(byte[0]);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
