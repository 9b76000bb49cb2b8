//! `show`: one archive, its disks, and how they were read.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Show;
use crate::failure::{Code, fault};
use crate::report::{self, Report};
use crate::session::{ANY, Session};
use crate::settings::Settings;
use crate::units::human;
use crate::verbs::list::Entry;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    archive: Entry,
    devices: Vec<Disk>,
    guest_config_bytes: u32,
    firewall_config_bytes: Option<u32>,
    program: String,
}

#[derive(Serialize)]
struct Disk {
    device: String,
    size_bytes: u64,
    /// The archive it was read incrementally to.
    base: Option<String>,
}

impl Report for Shown {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.archive.line(), format!("  made by {}", self.program)];
        lines.extend(self.archive.attribute_lines());
        for disk in &self.devices {
            let base = disk.base.as_ref();
            let base = base.map(|base| format!(", read incrementally to {base}"));
            lines.push(format!(
                "  disk {}: {} ({} bytes){}",
                disk.device,
                human(disk.size_bytes),
                disk.size_bytes,
                base.unwrap_or_default()
            ));
        }
        lines.push(format!(
            "  guest's configuration: {} bytes",
            self.guest_config_bytes
        ));
        lines.extend(
            (self.firewall_config_bytes)
                .map(|bytes| format!("  firewall's configuration: {bytes} bytes")),
        );
        lines
    }
}

pub(super) fn run(settings: &Settings, show: &Show, json: bool) -> Result<()> {
    let session = Session::open(settings)?;
    let (name, snapshot) = session.archive(settings, &show.archive, ANY)?;
    if show.guest_config {
        let config = (session.repository.read_blob(&snapshot.guest_config))
            .with_context(|| format!("cannot read the guest's configuration in {name}"))?;
        return report::bytes(&config);
    }
    let attributes = session.repository.attributes(&name.as_str().parse()?);
    if show.log {
        let attributes = attributes
            .with_context(|| format!("cannot tell where the log of archive {name} is"))?;
        let log = attributes.task_log.ok_or_else(|| {
            let what = format!("no log was kept with archive {name}");
            fault(Code::NotFound, what)
        })?;
        let log = (session.repository.read_task_log(&log))
            .with_context(|| format!("cannot read the log of archive {name}"))?;
        return report::bytes(&log);
    }
    let devices = snapshot.disks.iter().map(|disk| Disk {
        device: disk.device.clone(),
        size_bytes: disk.size,
        base: disk.lineage.base.clone(),
    });
    let shown = Shown {
        archive: Entry::new(name.as_str(), &snapshot, Some(attributes)),
        devices: devices.collect(),
        guest_config_bytes: snapshot.guest_config.length,
        firewall_config_bytes: snapshot.firewall_config.as_ref().map(|blob| blob.length),
        program: snapshot.program,
    };
    report::result(&shown, json)
}
