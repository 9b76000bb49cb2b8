//! A server of S3 with an empty bucket, for as long as the drill takes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell::{capture, target_folder};

/// Where the repository is in it.
pub(super) const PLACE: &str = "s3://backups/site-a";
/// It says where it listens, and ends with its standard input.
const PROGRAM: &str = include_str!("../../../crates/s3/tests/s3/support/moto.py");
/// Makes a bucket: moto wants a signature, and does not look at it.
const MAKE: &str = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='PUT', \
                    headers={'Authorization': 'AWS4-HMAC-SHA256 Credential=key-id/20260101/us-east-1/s3/aws4_request, \
                    SignedHeaders=host, Signature=0'}))";
/// Anything opens it.
const CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "key-id"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
];

/// The server.
pub(super) struct Server {
    endpoint: String,
    config: PathBuf,
    _child: Child,
}

/// Starts it. Without moto this part of the drill is skipped, which is a failure where there must be no skip.
pub(super) fn start(folder: &Path) -> Result<Option<Server>> {
    let python = match std::env::var_os("SNAPKEEP_MOTO") {
        Some(python) => PathBuf::from(python),
        None => PathBuf::from(target_folder()?).join("moto/bin/python"),
    };
    if !python.is_file() {
        if std::env::var("CI").is_ok_and(|value| value == "true") {
            bail!("the drill needs moto: run `cargo xtask setup`");
        }
        println!("SKIP: drill-s3: needs moto (`cargo xtask setup` installs it)");
        return Ok(None);
    }
    let mut child = Command::new(&python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start moto")?;
    let said = child.stderr.take().context("moto has no standard error")?;
    let mut lines = BufReader::new(said).lines();
    let endpoint = (lines.by_ref().map_while(Result::ok))
        .find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()))
        .context("moto does not say where it listens")?;
    // It must not be held up by what nobody reads.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let mut make = Command::new(&python);
    make.args(["-c", MAKE, &format!("{endpoint}/backups")]);
    capture(&mut make).context("cannot make a bucket")?;
    // Nothing of it is to stay on this machine.
    let config = folder.join("config.toml");
    std::fs::write(&config, "[s3]\ncache-size = \"0\"\n")?;
    Ok(Some(Server {
        endpoint,
        config,
        _child: child,
    }))
}

impl Server {
    /// Tells a command where the server is, as the guide has it.
    pub(super) fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .envs(CREDENTIALS)
            .env("AWS_ENDPOINT_URL_S3", &self.endpoint)
            .env("SNAPKEEP_CONFIG", &self.config)
    }
}
