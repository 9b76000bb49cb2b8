//! `cargo xtask bench s3`: what backups to a bucket that is far away and restores from it cost, beside
//! other tools. The server is Ceph's gateway on this machine; a proxy before it adds to each journey,
//! and counts requests.

mod report;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::disk::corpus::Corpus;
use super::measure::Cost;
use super::report::keep;
use super::settle;
use crate::s3::delay::Delay;
use crate::s3::radosgw::Radosgw;
use crate::s3::requests::Traffic;
use crate::shell::{Scratch, build_for_users, root, run as run_command};
use tools::{Repository, Tool};

#[derive(Debug)]
struct Options {
    size_mib: u64,
    rounds: usize,
    latency_ms: u64,
    seed: u64,
    only_ours: bool,
    report: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Case {
    Full,
    Unchanged,
    Changed,
    Dirty,
    Restore,
}

/// One measured run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    tool: Tool,
    case: Case,
    cost: Cost,
    traffic: Traffic,
    /// Processor time of all else on the machine meanwhile: the server, the proxy, the guest.
    others_s: f64,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    crate::setup::for_s3()?;
    let programs = build_for_users()?;
    let mut tools = Vec::new();
    for tool in Tool::ALL {
        match tool.program().missing() {
            _ if options.only_ours && tool != Tool::Snapkeep => {}
            Some(program) => println!("SKIP: {}: needs {program}", tool.name()),
            None => tools.push(tool),
        }
    }
    let scratch = Scratch::new("bench-s3")?;
    println!("making a disk of {} MiB", options.size_mib);
    let corpus = Corpus::make(scratch.path(), options.seed, options.size_mib << 20)?;
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        let folder = scratch.path().join(format!("round-{round}"));
        std::fs::create_dir(&folder)?;
        one_round(&options, &tools, &programs, &corpus, &folder, &mut samples)?;
        std::fs::remove_dir_all(&folder)?;
    }
    let text = report::report(&options, &corpus, &tools, &samples, args)?;
    keep(&text, &options.report)
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        size_mib: 2048,
        rounds: 3,
        latency_ms: 20,
        seed: 1,
        only_ours: false,
        report: root().join("docs/benchmarks/s3.md"),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--only-ours" {
            options.only_ours = true;
            continue;
        }
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--size-mib" => options.size_mib = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            "--latency-ms" => options.latency_ms = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--report" => options.report = value.into(),
            _ => bail!(
                "{arg} is unknown; there are --size-mib, --rounds, --latency-ms, --seed, --report and --only-ours"
            ),
        }
    }
    // The bucket is in memory.
    ensure!(
        (64..=4096).contains(&options.size_mib),
        "the disk has 64 to 4096 MiB"
    );
    ensure!(options.rounds >= 1, "there is at least one round");
    Ok(options)
}

/// Processor time of everything on the machine since it started: user, nice, system and interrupts
/// (proc(5), `/proc/stat`).
fn busy_s() -> Result<f64> {
    const TICKS_A_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/stat")?;
    let all = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = all
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let busy = [0, 1, 2, 5, 6].into_iter();
    let busy: f64 = busy.filter_map(|column| ticks.get(column)).sum();
    Ok(busy / TICKS_A_SECOND)
}

/// Every case once for every tool, the tools in turn within each case, on a new server.
fn one_round(
    options: &Options,
    tools: &[Tool],
    programs: &Path,
    corpus: &Corpus,
    folder: &Path,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let server = Radosgw::start(&folder.join("server"))?;
    let latency = Duration::from_millis(options.latency_ms);
    let proxy = Delay::start(&server.endpoint.address, latency)?;
    let far = server.endpoint.behind(&proxy.address);
    let mut record = |tool: Tool, case: Case, measured: &mut dyn FnMut() -> Result<Cost>| {
        settle()?;
        proxy.take()?;
        let before = busy_s()?;
        let cost = measured()?;
        let others_s = (busy_s()? - before - cost.cpu_s).max(0.0);
        let traffic = proxy.take()?;
        let sample = Sample {
            tool,
            case,
            cost,
            traffic,
            others_s,
        };
        println!(
            "  {case:?} {}: {:.2} s, {:.2} CPU s, others {others_s:.2}, {:.0} MiB, {traffic:?}",
            tool.name(),
            cost.wall_s,
            cost.cpu_s,
            cost.peak_mib
        );
        samples.push(sample);
        anyhow::Ok(())
    };
    let new = |tool: Tool, name: &str| {
        server.endpoint.make_bucket(name)?;
        Repository::create(tool, programs, folder.join(name), &far, name)
    };
    let mut all = Vec::new();
    for tool in tools {
        all.push((*tool, new(*tool, tool.name())?));
    }
    for (case, image) in [
        (Case::Full, &corpus.first),
        (Case::Unchanged, &corpus.first),
        (Case::Changed, &corpus.second),
    ] {
        for (tool, repository) in &all {
            record(*tool, case, &mut || repository.back_up(image))?;
        }
    }
    let to = folder.join("restored");
    let check = |file: &Path| {
        run_command(Command::new("cmp").arg(&corpus.second).arg(file))
            .context("what was restored is not what was backed up")?;
        Ok(std::fs::remove_dir_all(&to)?)
    };
    for (tool, repository) in &all {
        let mut restored = PathBuf::new();
        record(*tool, Case::Restore, &mut || {
            let (cost, file) = repository.restore(&corpus.second, &to)?;
            restored = file;
            Ok(cost)
        })?;
        check(&restored)?;
    }
    let dirty = new(Tool::Snapkeep, "dirty")?;
    let disk = folder.join("disk.raw");
    run_command(Command::new("cp").arg(&corpus.first).arg(&disk))?;
    let mut guest = dirty.guest(&disk)?;
    dirty.back_up_guest(&guest, false)?;
    guest.write(&corpus.changes)?;
    record(Tool::Snapkeep, Case::Dirty, &mut || {
        dirty.back_up_guest(&guest, true)
    })?;
    guest.quit()?;
    let (_, file) = dirty.restore(&disk, &to)?;
    check(&file)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn arguments_are_understood_or_refused() {
        let arguments =
            |text: &str| -> Vec<String> { (text.split_whitespace().map(str::to_owned)).collect() };
        let options = parse(&arguments("--size-mib 128 --rounds 1 --latency-ms 5")).unwrap();
        assert_eq!((options.size_mib, options.latency_ms), (128, 5));
        for wrong in ["--size-mib", "--rounds 0", "--size-mib 9000", "--what 1"] {
            assert!(parse(&arguments(wrong)).is_err(), "{wrong}");
        }
    }
}
