//! `nbd serve`: the disks of an archive, read-only, for whatever speaks NBD on this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_api::{Provider, Throttle};
use snapkeep_host::restore::VolumeExport;
use snapkeep_nbd::{Address, Export, Server, ServerOptions};

use crate::args::{Nbd, Serve};
use crate::failure::usage;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::session::{Session, VM};
use crate::settings::Settings;
use crate::verbs::restore::choose;

#[derive(Serialize)]
struct Serving {
    archive: String,
    exports: Vec<Served>,
}

#[derive(Serialize)]
struct Served {
    device: String,
    uri: String,
    size_bytes: u64,
}

impl Report for Serving {
    fn lines(&self) -> Vec<String> {
        let line = |export: &Served| format!("{}  {}", export.device, export.uri);
        self.exports.iter().map(line).collect()
    }
}

pub(super) fn run(settings: &Settings, nbd: &Nbd, json: bool) -> Result<()> {
    let Nbd::Serve(Serve {
        archive,
        disks,
        socket,
        listen,
    }) = nbd;
    let address = match (socket, listen) {
        (Some(path), _) => Address::Unix(path.clone()),
        (None, Some(address)) => Address::Tcp(*address),
        (None, None) => return Err(usage("give --socket or --listen")),
    };
    let session = Session::open_to_read(settings)?;
    let name = session.archive_name(settings, archive, VM)?;
    let log = Progress::start(
        format!("serving {name}"),
        None,
        true,
        Arc::clone(&session.clock),
    );
    let provider = session.provider(settings, Arc::new(log));
    let mut vm = provider.open_archive(&name)?.restore_vm()?;
    let mut exports = BTreeMap::new();
    let mut sizes = Vec::new();
    for device in choose(disks, &name, vm.as_ref())? {
        let volume = vm.open_volume(&device)?;
        sizes.push((device.clone(), volume.size()));
        let (clock, cancel) = (Arc::clone(&session.clock), session.stop.cancel.clone());
        let export = VolumeExport::new(volume.into(), Throttle::new(None), clock, cancel);
        exports.insert(device.to_string(), Arc::new(export) as Arc<dyn Export>);
    }
    let options = ServerOptions {
        log: (!settings.quiet).then(|| Arc::new(|line: &str| remark(line)) as _),
        ..ServerOptions::default()
    };
    let server = Server::bind(address, exports, options).context("cannot serve")?;
    // Whoever connects may be in another folder.
    let shown = match server.address() {
        Address::Unix(path) => Address::Unix(std::path::absolute(path)?),
        Address::Tcp(address) => Address::Tcp(*address),
    };
    let served = sizes.into_iter().map(|(device, size_bytes)| Served {
        uri: shown.uri(device.as_str()),
        device: device.to_string(),
        size_bytes,
    });
    let serving = Serving {
        archive: name.to_string(),
        exports: served.collect(),
    };
    report::result(&serving, json)?;
    session.stop.wait()?;
    drop(server);
    vm.finish()?;
    Ok(())
}
