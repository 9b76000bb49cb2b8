//! A host: the program with a configuration, a state and a cache of its own, run to its end or
//! killed on the way.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::figures::Figures;
use crate::place::Place;

/// All hosts have the same.
const KEY: &[&str] = &["--key-file", "../key"];

pub(crate) struct Host<'a> {
    folder: PathBuf,
    place: &'a Place,
    figures: &'a Figures,
    /// From then on nothing is started, and what runs is killed.
    end: Option<Instant>,
    chance: u64,
    /// How long the last run took that came to its end.
    usual: Duration,
}

/// How a run ended that was not killed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) result: Value,
    /// What went wrong, as the program says.
    pub(crate) said: String,
}

impl<'a> Host<'a> {
    pub(crate) fn new(
        root: &Path,
        name: &str,
        place: &'a Place,
        figures: &'a Figures,
        end: Option<Instant>,
    ) -> Self {
        let folder = root.join(name);
        fs::create_dir_all(&folder).unwrap();
        let config = format!("{}cache = \"cache\"\n", place.config);
        fs::write(folder.join("config.toml"), config).unwrap();
        let name = blake3::hash(name.as_bytes());
        Self {
            folder,
            place,
            figures,
            end,
            chance: u64::from_le_bytes(*name.as_bytes().first_chunk().unwrap()),
            usual: Duration::from_secs(1),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A number below this one, another one each time.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (self.chance >> 33) % most
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Makes the repository.
    pub(crate) fn init(&self, args: &[&str]) -> Ended {
        let ended = self.run_until(&[&["init"], args].concat(), false, None);
        ended.unwrap()
    }

    /// One run in five is killed at a random moment, and all at the end. None if this one was.
    pub(crate) fn run(&mut self, args: &[&str]) -> Option<Ended> {
        let killed = self.below(5) == 0;
        let moment = u32::try_from(self.below(1000)).unwrap();
        let began = Instant::now();
        let kill = self.end.map(|end| {
            let left = end.saturating_duration_since(began);
            let random = self.usual * moment / 1000;
            if killed { left.min(random) } else { left }
        });
        let ended = self.run_until(args, true, kill);
        if let Some(ended) = &ended {
            self.usual = began.elapsed();
            self.figures.asked(&ended.result["requests"]);
        } else {
            self.figures.killed();
        }
        ended
    }

    fn run_until(&self, args: &[&str], keyed: bool, kill: Option<Duration>) -> Option<Ended> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
            .args(["--config", "config.toml", "--json"])
            .args(if keyed { KEY } else { &[] })
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("SNAPKEEP_STATE", self.path("state"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.place.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, done) = channel();
        std::thread::scope(|scope| {
            let err = scope.spawn(move || {
                let mut bytes = Vec::new();
                err.read_to_end(&mut bytes).unwrap();
                bytes
            });
            let out = scope.spawn(move || {
                let mut bytes = Vec::new();
                out.read_to_end(&mut bytes).unwrap();
                // Nobody may be waiting for it.
                let _heard = sender.send(());
                bytes
            });
            if let Some(kill) = kill
                && done.recv_timeout(kill) == Err(RecvTimeoutError::Timeout)
            {
                // It may have ended, which its status tells.
                drop(child.kill());
            }
            let code = child.wait().unwrap().code();
            let (out, err) = (out.join().unwrap(), err.join().unwrap());
            Some(Ended {
                code: code?,
                result: serde_json::from_slice(&out).unwrap_or_default(),
                said: String::from_utf8_lossy(&err).into_owned(),
            })
        })
    }
}
