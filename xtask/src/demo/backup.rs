//! One backup, and what can be known of its instant from outside.
//!
//! The guest stands still while the snapshot is made, so the instant lies between
//! QEMU's events STOP and RESUME. QEMU runs one command at a time, so a write through
//! the monitor is done before STOP, between the two, or after RESUME.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::model::{Instant, Model, Numbers, Write};
use super::programs::{Interrupt, Snapkeep};
use super::qemu::Qemu;

/// Time between two writes.
const PACE: Duration = Duration::from_millis(3);

/// A backup that is done.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) archive: String,
    pub(super) instant: Instant,
    /// Whether Snapkeep says that it read only what had changed.
    pub(super) incremental: bool,
    report: Value,
    took: Duration,
    /// Writes between the instant and the end.
    meanwhile: usize,
}

impl Seen {
    pub(super) const TITLE: &'static str = "backup              size       read        new     stored      time   paused  writes meanwhile";

    /// A line of the table.
    pub(super) fn line(&self, number: usize, kind: &str) -> Result<String> {
        let mib = |field| {
            let bytes = self.report[field].as_u64();
            bytes
                .map(tenths_of_a_mib)
                .with_context(|| format!("snapkeep's report has no {field}"))
        };
        Ok(format!(
            "{number} {kind:11}  {:>9}  {:>9}  {:>9}  {:>9}  {:>6}.{} s {:>4} ms  {:>16}",
            mib("size_bytes")?,
            mib("read_bytes")?,
            mib("new_bytes")?,
            mib("stored_bytes")?,
            self.took.as_secs(),
            self.took.subsec_millis() / 100,
            self.report["paused_milliseconds"].to_string(),
            self.meanwhile
        ))
    }
}

fn tenths_of_a_mib(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// How many writes through the monitor were done when the guest was stopped, and when it
/// went on.
#[derive(Debug, Default)]
struct Pause {
    stop: Option<usize>,
    resume: Option<usize>,
}

impl Pause {
    /// What QEMU told before it did another write than these.
    fn note(&mut self, events: &[String], writes: usize) -> Result<()> {
        for event in events {
            let place = match event.as_str() {
                "STOP" => &mut self.stop,
                "RESUME" => &mut self.resume,
                _ => continue,
            };
            ensure!(
                place.replace(writes).is_none(),
                "QEMU said {event} twice in one backup"
            );
        }
        Ok(())
    }
}

/// Backs the guest up once, and writes to its disk until that is done.
pub(super) fn back_up(
    snapkeep: &Snapkeep,
    qemu: &mut Qemu,
    model: &mut Model,
    numbers: &mut Numbers,
    interrupt: &Interrupt,
) -> Result<Seen> {
    let (_, least) = qemu.guest_writes()?;
    let mut most = None;
    let mut pause = Pause::default();
    let mut running = snapkeep.back_up(&qemu.socket())?;
    while !running.has_ended()? {
        interrupt.check()?;
        let write = Write::any(numbers, model.disk().len());
        let events = qemu.write(&write)?;
        // They happened before the end of this write, which so is none of those before.
        pause.note(&events, model.writes())?;
        model.record(write);
        let events = qemu.events(PACE)?;
        pause.note(&events, model.writes())?;
        if pause.resume.is_some() && most.is_none() {
            most = Some(qemu.guest_writes()?.0);
        }
    }
    let (report, took) = running.report()?;
    // What it said in the last moment has still to come.
    let events = qemu.events(PACE)?;
    pause.note(&events, model.writes())?;
    let (Some(stop), Some(resume)) = (pause.stop, pause.resume) else {
        anyhow::bail!("QEMU did not stop the guest and let it go on: {pause:?}");
    };
    let meanwhile = model.writes() - resume;
    ensure!(
        meanwhile > 0,
        "nothing was written during the backup, so that nothing is shown"
    );
    ensure!(
        report["left_in_qemu"].is_null(),
        "the backup left something in QEMU: {}",
        report["left_in_qemu"]
    );
    let archive = report["archive"].as_str();
    Ok(Seen {
        archive: archive.context("snapkeep names no archive")?.to_owned(),
        instant: Instant {
            writes: (stop, resume),
            guest: (least, most.context("the guest was not asked")?),
        },
        incremental: report["disks"][0]["incremental"] == true,
        report,
        took,
        meanwhile,
    })
}

#[cfg(test)]
mod tests {
    use super::{Pause, tenths_of_a_mib};

    #[test]
    fn a_pause_lies_between_the_writes_before_its_events() {
        let events = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let mut pause = Pause::default();
        pause.note(&events(&["NIC_RX_FILTER_CHANGED"]), 3).unwrap();
        assert_eq!((pause.stop, pause.resume), (None, None));
        pause.note(&events(&["STOP"]), 4).unwrap();
        pause.note(&events(&["RESUME"]), 5).unwrap();
        assert_eq!((pause.stop, pause.resume), (Some(4), Some(5)));
        assert!(pause.note(&events(&["STOP"]), 6).is_err());
    }

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(tenths_of_a_mib(256 << 20), "256.0 MiB");
        assert_eq!(tenths_of_a_mib(1_600_000), "1.5 MiB");
    }
}
