//! `cargo xtask scale`: what backups of a disk of 16 TiB cost, full and by dirty bitmap.
//!
//! The disk is sparse: 1 GiB of data, spread over all of it. Then 64 MiB of it are changed, once
//! in sixteen regions and once, from the same full backup, in 1,024. Every archive is compared
//! with the image it was made from over the whole disk, which is never written out anywhere.

mod index;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::bench::disk::tools::{Repository, Tool};
use crate::bench::measure::Cost;
use crate::bench::random::Random;
use crate::shell::{Scratch, build_release, run as run_command};

const SIZE: u64 = 16 << 40;
/// Pieces of data, one anywhere in each of as many equal parts of the disk.
const PIECES: u64 = 1024;
const PIECE: u64 = 1 << 20;
/// What one bit of the bitmap stands for: finer than a chunk, so that what is dirty is laid over
/// the base.
const GRANULARITY: u64 = 64 << 10;
const BITMAP: &str = "since-full";
/// The most memory a backup may take, in MiB.
const PEAK_MARK: f64 = 300.0;
/// Places outside the data that are read from each archive and must be zeroes.
const HOLES: u64 = 64;

/// Regions that are written after the full backup: their number and the length of each.
const CHANGES: [(&str, u64, u64); 2] = [
    ("16 of 4 MiB", 16, 4 << 20),
    ("1,024 of 64 KiB", 1024, 64 << 10),
];

pub(crate) fn run(args: &[String]) -> Result<()> {
    if let [first, millions @ ..] = args {
        ensure!(first == "index", "scale takes no argument but `index`");
        return index::run(millions);
    }
    crate::setup::for_tests()?;
    let programs = build_release()?;
    let scratch = Scratch::new("scale")?;
    let mut random = Random(1);
    let part = SIZE / PIECES;
    let starts: Vec<u64> = (0..PIECES)
        .map(|piece| piece * part + aligned(&mut random, part - (8 << 20)))
        .collect();
    let image = scratch.path().join("full.qcow2");
    run_command(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&image)
            .arg(SIZE.to_string()),
    )?;
    println!("writing 1 GiB over a disk of 16 TiB");
    let writes: Vec<_> = starts.iter().map(|start| (*start, PIECE)).collect();
    change(scratch.path(), &image, &writes, &mut random)?;
    let granularity = GRANULARITY.to_string();
    let add = ["bitmap", "--add", "-g", &granularity];
    run_command(Command::new("qemu-img").args(add).arg(&image).arg(BITMAP))?;

    let mut table = HEAD.to_owned();
    let mut made =
        Repository::create(Tool::Snapkeep, &programs, scratch.path().join("repository"))?;
    let (cost, printed) = made.back_up_image(&image, SIZE, None)?;
    row(&mut table, "full", cost, &printed)?;
    compare(&made, scratch.path(), &image, &starts, &mut random)?;
    for (title, count, length) in CHANGES {
        let changed = scratch.path().join("changed.qcow2");
        run_command(
            Command::new("cp")
                .arg("--sparse=always")
                .args([&image, &changed]),
        )?;
        let step = starts.len() / usize::try_from(count)?;
        let writes: Vec<_> = (starts.iter().step_by(step))
            .map(|start| (start + aligned(&mut random, PIECE), length))
            .collect();
        change(scratch.path(), &changed, &writes, &mut random)?;
        let mut copy = made.copy(scratch.path().join("copy"))?;
        let (cost, printed) = copy.back_up_image(&changed, SIZE, Some(BITMAP))?;
        row(&mut table, title, cost, &printed)?;
        compare(&copy, scratch.path(), &changed, &starts, &mut random)?;
        copy.remove()?;
        std::fs::remove_file(&changed)?;
    }
    println!("\n{table}\nEvery archive was compared with its image over the whole disk.");
    Ok(())
}

/// A multiple of the granularity below `bound`.
fn aligned(random: &mut Random, bound: u64) -> u64 {
    random.next() % (bound / GRANULARITY) * GRANULARITY
}

/// Writes bytes that do not compress to regions of an image.
fn change(folder: &Path, image: &Path, regions: &[(u64, u64)], random: &mut Random) -> Result<()> {
    let file = folder.join("piece");
    let mut child = Command::new("qemu-io")
        .args(["-f", "qcow2", "-t", "unsafe"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start qemu-io")?;
    let mut stdin = child.stdin.take().context("qemu-io has no input")?;
    let output = child.stdout.take().context("qemu-io has no output")?;
    let mut output = BufReader::new(output);
    for (offset, length) in regions {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < *length {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        std::fs::write(&file, &bytes)?;
        writeln!(stdin, "write -s {} {offset} {length}", file.display())?;
        // The file may be written anew once this was answered.
        let mut line = String::new();
        while !line.contains("ops;") {
            line.clear();
            let read = output.read_line(&mut line)?;
            ensure!(read > 0, "qemu-io ended before it had written everything");
        }
    }
    drop(stdin);
    std::io::copy(&mut output, &mut std::io::sink())?;
    let status = child.wait()?;
    ensure!(status.success(), "qemu-io failed: {status}");
    std::fs::remove_file(&file)?;
    Ok(())
}

const HEAD: &str = "| backup | wall s | CPU s | peak MiB | read from the disk | new data stored | \
metadata written | read from the repository | files written | storage operations |\n\
|---|---|---|---|---|---|---|---|---|---|\n";

fn row(table: &mut String, title: &str, cost: Cost, printed: &str) -> Result<()> {
    let number = |name: &str| -> Result<u64> {
        let found = printed.lines().find_map(|line| line.strip_prefix(name));
        let found = found.with_context(|| format!("back_up printed no {name}"))?;
        Ok(found.trim().parse()?)
    };
    let Cost {
        wall_s,
        cpu_s,
        peak_mib,
        ..
    } = cost;
    ensure!(
        peak_mib < PEAK_MARK,
        "{title}: {peak_mib:.0} MiB are more than {PEAK_MARK:.0}"
    );
    let line = format!(
        "| {title} | {wall_s:.2} | {cpu_s:.2} | {peak_mib:.0} | {} | {} | {} | {} | {} | {} |",
        number("read ")?,
        number("data ")?,
        number("metadata ")?,
        number("fetched ")?,
        number("puts ")?,
        number("operations ")?
    );
    println!("{line}");
    writeln!(table, "{line}")?;
    Ok(())
}

/// A program that is ended when the value is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Compares the last archive with an image, over the whole disk by what both say is data, and at
/// some places where nothing is, whatever they say.
fn compare(
    made: &Repository<'_>,
    folder: &Path,
    image: &Path,
    starts: &[u64],
    random: &mut Random,
) -> Result<()> {
    let socket: PathBuf = folder.join("archive.sock");
    let server = made
        .command()
        .args(["nbd", "serve", made.last()?, "--socket"])
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start snapkeep")?;
    let mut server = Ended(server);
    let output = server.0.stdout.take().context("snapkeep has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.contains("drive-scsi0"), "snapkeep does not serve");
    let uri = format!("nbd+unix:///drive-scsi0?socket={}", socket.display());
    run_command(
        Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", "qcow2", &uri])
            .arg(image),
    )
    .context("the archive is not what was backed up")?;
    let mut read = Command::new("qemu-io");
    read.args(["-r", "-f", "raw"]);
    for _ in 0..HOLES {
        let number = usize::try_from(random.next() % starts.len() as u64)?;
        // Behind what is ever written in a part there are 3 MiB at least.
        let end = (number as u64 + 1) * (SIZE / PIECES);
        read.args(["-c", &format!("read -q -P 0 {} 64k", end - (64 << 10))]);
    }
    run_command(read.arg(&uri)).context("the archive has data where there was none")
}
