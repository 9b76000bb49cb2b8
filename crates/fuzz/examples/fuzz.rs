//! Searches for bytes with which a target panics, for some seconds: `cargo xtask fuzz`.
//!
//! An input that is found is kept in the corpus, so that the tests fail until it is mended.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the person at the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use snapkeep_fuzz::{Campaign, Finding, Target, corpus};

const USAGE: &str = "usage: fuzz [TARGET] [--seconds N] [--seed N]";

/// Every target, and where its corpus is.
fn targets() -> Vec<(&'static str, Target, PathBuf)> {
    let nbd = snapkeep_nbd::fuzz::TARGETS;
    let nbd = nbd.map(|(name, target)| (name, target, snapkeep_nbd::fuzz::corpus_folder(name)));
    let walk = snapkeep_walk::fuzz::TARGETS;
    let walk = walk.map(|(name, target)| (name, target, snapkeep_walk::fuzz::corpus_folder(name)));
    nbd.into_iter().chain(walk).collect()
}

/// What to do.
struct Wish {
    target: Option<String>,
    /// For all targets together.
    seconds: u64,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match wish(&arguments).and_then(|wish| search(&wish).map_err(|error| error.to_string())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn wish(arguments: &[String]) -> Result<Wish, String> {
    let mut wish = Wish {
        target: None,
        seconds: 60,
        seed: 1,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let number = match argument.as_str() {
            "--seconds" => &mut wish.seconds,
            "--seed" => &mut wish.seed,
            name if targets().iter().any(|(known, ..)| *known == name) => {
                wish.target = Some(name.to_owned());
                continue;
            }
            other => {
                let names: Vec<_> = targets().iter().map(|(name, ..)| *name).collect();
                let names = names.join(", ");
                return Err(format!(
                    "there is no target {other:?}\n{USAGE}\ntargets: {names}"
                ));
            }
        };
        let value = rest.next().and_then(|value| value.parse().ok());
        *number = value.ok_or_else(|| format!("{argument} takes a number\n{USAGE}"))?;
    }
    Ok(wish)
}

/// Whether nothing was found.
fn search(wish: &Wish) -> io::Result<bool> {
    let chosen = |name: &str| wish.target.as_ref().is_none_or(|target| target == name);
    let mut targets = targets();
    targets.retain(|(name, ..)| chosen(name));
    let share = Duration::from_secs(wish.seconds) / u32::try_from(targets.len()).unwrap_or(1);
    let mut good = true;
    for (name, target, folder) in targets {
        let inputs = corpus(&folder)?
            .into_iter()
            .map(|kept| kept.input)
            .collect();
        match search_one(name, target, inputs, wish.seed, share) {
            Ok(told) => println!("{told}"),
            Err(Finding { input }) => {
                let path = folder.join(format!("found-{:016x}", number_of(&input)));
                fs::write(&path, &input)?;
                println!(
                    "{name}: panics with {} bytes, kept in {}",
                    input.len(),
                    path.display()
                );
                good = false;
            }
        }
    }
    Ok(good)
}

fn search_one(
    name: &str,
    target: Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    limit: Duration,
) -> Result<String, Finding> {
    let begin = Instant::now();
    let inputs = corpus.len();
    let mut campaign = Campaign::new(target, corpus, seed)?;
    let known = campaign.ways();
    while begin.elapsed() < limit {
        campaign.step()?;
    }
    let (runs, ways) = (campaign.runs(), campaign.ways());
    Ok(format!(
        "{name}: no panic in {runs} inputs; treated in {ways} ways, {known} of them by the {inputs} inputs of the corpus"
    ))
}

/// A name for an input: the same input gets the same.
fn number_of(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
