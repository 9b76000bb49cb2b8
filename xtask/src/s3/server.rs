//! Servers of S3 that are started for one run and end with it.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::capture;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(120);
/// Between two looks.
const STEP: Duration = Duration::from_millis(200);

/// The SHA-256 of no bytes.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A process that is ended when the value is dropped, and with the one that started it.
pub(crate) struct Process {
    name: String,
    output: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program whose output goes to a file.
    pub(crate) fn start(command: &Command, output: &Path) -> Result<Self> {
        let name = command.get_program().display().to_string();
        let file = File::create(output)?;
        // Of util-linux: however this process ends, the server ends too.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .spawn();
        let child = child.with_context(|| format!("could not start {name}"))?;
        Ok(Self {
            name,
            output: output.to_owned(),
            child,
        })
    }

    /// Fails if it has ended by itself; the end of what it said is told.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = std::fs::read_to_string(&self.output).unwrap_or_default();
            let lines: Vec<&str> = said.lines().rev().take(20).collect();
            let last: Vec<&str> = lines.into_iter().rev().collect();
            bail!("{} ended: {status}\n{}", self.name, last.join("\n"));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where a server answers, and what opens it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) region: &'static str,
    pub(crate) access: &'static str,
    pub(crate) secret: &'static str,
}

impl Endpoint {
    /// The same behind another address.
    pub(crate) fn behind(&self, address: &str) -> Self {
        let address = address.to_owned();
        Self {
            address,
            ..self.clone()
        }
    }

    /// Makes a bucket.
    pub(crate) fn make_bucket(&self, name: &str) -> Result<()> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "-X", "PUT"])
            .args(["--aws-sigv4", &format!("aws:amz:{}:s3", self.region)])
            .args(["--user", &format!("{}:{}", self.access, self.secret)])
            // Not every curl says by itself that it sends nothing.
            .args(["-H", &format!("x-amz-content-sha256: {NOTHING}")])
            .arg(format!("http://{}/{name}", self.address));
        capture(&mut curl).with_context(|| format!("cannot make the bucket {name}"))?;
        Ok(())
    }

    /// The location of a repository in a bucket.
    pub(crate) fn location(&self, bucket: &str) -> String {
        let Self {
            address, region, ..
        } = self;
        format!("s3://{bucket}/?endpoint=http://{address}&region={region}&path-style=true")
    }
}

/// A port of the loopback interface that nobody has now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until this is so, as long as the processes live.
pub(crate) fn wait_until(
    what: &str,
    processes: &mut [Process],
    mut done: impl FnMut() -> bool,
) -> Result<()> {
    let start = Instant::now();
    while !done() {
        processes.iter_mut().try_for_each(Process::check)?;
        ensure!(start.elapsed() < START, "waited too long for {what}");
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// Waits until something answers on this address.
pub(crate) fn wait_for(address: &str, processes: &mut [Process]) -> Result<()> {
    let what = format!("an answer on {address}");
    wait_until(&what, processes, || TcpStream::connect(address).is_ok())
}
