//! `cargo xtask demo`: backups of a running virtual machine, restored and compared.
//!
//! A real QEMU runs a guest that writes all the time, and the demo writes to the same
//! disk through its device. `snapkeep backup vm` backs it up three times meanwhile.
//! QEMU's own qemu-img reads each archive from `snapkeep nbd serve`, and every byte is
//! compared with a model of the disk at the instant of that backup; the model knows
//! nothing of Snapkeep. Anything else than equality fails the demo.

mod backup;
mod guest;
mod model;
mod programs;
mod qemu;

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use self::backup::{Seen, back_up};
use self::model::{Instant, Model, Numbers, Verdict, Write};
use self::programs::{Interrupt, Snapkeep};
use self::qemu::Qemu;
use crate::setup;
use crate::shell::{Scratch, build_for_users, build_programs};

/// Writes before each backup: enough that even on a fast machine an incremental one reads for
/// longer than a few writes take, or nothing would be shown by it.
const WRITES_BETWEEN: usize = 200;
/// The backups.
const ROUNDS: [&str; 3] = ["full", "incremental", "incremental"];

pub(crate) fn run(args: &[String]) -> Result<()> {
    let dev = match args {
        [] => false,
        [flag] if flag == "--dev" => true,
        _ => bail!("the only argument is --dev"),
    };
    setup::for_tests()?;
    let programs = if dev {
        build_programs()?.into()
    } else {
        build_for_users()?
    };
    let interrupt = Interrupt::watch()?;
    let folder = Scratch::new("demo")?;
    show(&programs, folder.path(), &interrupt)
}

fn show(programs: &Path, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let snapkeep = Snapkeep::new(programs, folder)?;
    let mut model = Model::new();
    let disk = folder.join("disk.raw");
    std::fs::write(&disk, model.disk()).context("could not make the guest's disk")?;
    let mut qemu = Qemu::start(folder, &disk)?;
    qemu.wait_for_guest()?;
    println!("A guest runs in QEMU and writes to its disk, all the time.\n");
    println!("{}", Seen::TITLE);
    let mut numbers = Numbers::new(2);
    let mut archives = Vec::new();
    for (round, kind) in ROUNDS.into_iter().enumerate() {
        for _ in 0..WRITES_BETWEEN {
            interrupt.check()?;
            let write = Write::any(&mut numbers, model.disk().len());
            qemu.write(&write)?;
            model.record(write);
        }
        let seen = back_up(&snapkeep, &mut qemu, &mut model, &mut numbers, interrupt)
            .with_context(|| format!("backup {} ({kind})", round + 1))?;
        println!("{}", seen.line(round + 1, kind)?);
        ensure!(
            seen.incremental == (kind == "incremental"),
            "backup {} was not {kind}",
            round + 1
        );
        archives.push(seen);
    }
    let writes = model.writes();
    let (_, done) = qemu.guest_writes()?;
    qemu.quit()?;
    println!("\n{}", snapkeep.verify()?);
    println!("Each archive, read by qemu-img, and the disk at that instant, byte by byte:");
    let copy = folder.join("copy.raw");
    for (round, seen) in archives.iter().enumerate() {
        interrupt.check()?;
        snapkeep.restore(&seen.archive, &copy)?;
        let verdict = model.compare(&copy, seen.instant)?;
        println!("  backup {}: {verdict}{}", round + 1, after(&verdict));
        require(&verdict, || format!("archive {}", seen.archive))?;
        std::fs::remove_file(&copy).context("could not remove a copy")?;
    }
    // What the model knows is what the guest's own disk has, in the end.
    let end = Instant {
        writes: (writes, writes),
        guest: (done, u32::MAX),
    };
    let verdict = model.compare(&disk, end)?;
    println!("  the disk at the end: {verdict}{}", after(&verdict));
    require(&verdict, || "the guest's own disk".to_owned())
}

/// Where in the order of writes a disk is.
fn after(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Identical { writes, guest } => {
            format!(" (after {guest} writes of the guest and {writes} of the demo)")
        }
        Verdict::Different(_) => String::new(),
    }
}

fn require(verdict: &Verdict, what: impl Fn() -> String) -> Result<()> {
    let identical = matches!(verdict, Verdict::Identical { .. });
    ensure!(identical, "{} is not the disk of its instant", what());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::model::{Instant, Model, Numbers, Verdict, Write};
    use super::qemu::Qemu;
    use crate::shell::{Scratch, succeeds};

    /// What makes the demo's comparisons worth something: the model alone knows the disk.
    #[test]
    fn the_disk_of_a_running_guest_is_what_the_model_says() {
        let test = "the_disk_of_a_running_guest_is_what_the_model_says";
        if !succeeds(Command::new("qemu-system-x86_64").arg("--version")) {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "needs QEMU");
            eprintln!("SKIP: {test}: needs qemu-system-x86_64");
            return;
        }
        let folder = Scratch::new("demo").unwrap();
        let disk = folder.path().join("disk.raw");
        let mut model = Model::new();
        std::fs::write(&disk, model.disk()).unwrap();
        let mut qemu = Qemu::start(folder.path(), &disk).unwrap();
        qemu.wait_for_guest().unwrap();
        let mut numbers = Numbers::new(2);
        for _ in 0..60 {
            let write = Write::any(&mut numbers, model.disk().len());
            qemu.write(&write).unwrap();
            model.record(write);
            qemu.events(Duration::from_millis(2)).unwrap();
        }
        let (_, done) = qemu.guest_writes().unwrap();
        qemu.quit().unwrap();
        let instant = Instant {
            writes: (60, 60),
            guest: (done, u32::MAX),
        };
        let verdict = model.compare(&disk, instant).unwrap();
        assert!(
            matches!(verdict, Verdict::Identical { guest, .. } if guest > 0),
            "{verdict}"
        );
    }
}
