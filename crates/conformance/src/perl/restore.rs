//! An archive, and its restore in the order of Proxmox VE's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use snapkeep_api::{
    Archive, ArchiveName, ContainerRestore, DeviceName, Error, ErrorKind, GuestKind, Result,
    VmRestore, VolumeInfo, VolumeReader,
};

use super::calls::{Call, Context, Session, info, wrong};
use super::driver::Regions;
use super::reader::Reader;
use super::value::{Arg, Returned};
use super::{Dialect, STORAGE};
use crate::limits;

mod container;

/// The object that the restore itself uses.
const RESTORING: u64 = 0;
/// The object that looks at the configuration before.
const LOOKING: u64 = 1;

/// An archive in a process of its own.
pub(crate) struct Opened {
    session: Mutex<Session>,
    name: ArchiveName,
    volname: String,
    kind: GuestKind,
    mechanism: String,
    /// The configuration, as another object told it before.
    config: Vec<u8>,
}

impl Opened {
    /// `NotFound` if the class dies when it is asked for the configuration, or has none: there are
    /// no kinds of errors in Perl.
    pub(crate) fn open(mut session: Session, name: &ArchiveName) -> Result<Self> {
        let volname = format!("backup/{name}");
        session.make(LOOKING)?;
        let look = Call {
            object: LOOKING,
            clean: false,
            ..Call::scalar(
                guest_config_of(&session),
                vec![Arg::text(&volname), Arg::text(STORAGE)],
            )
        };
        let missing = |why: &str| {
            let what = format!("there is no archive {name}: {} {why}", look.method);
            Error::new(ErrorKind::NotFound, what)
        };
        let looked = match session.attempt(&look, &mut Regions::new())? {
            Err(why) => return Err(missing(&format!("died: {why}"))),
            Ok(values) => values.into_iter().next(),
        };
        let config = looked.as_ref().and_then(Returned::bytes);
        let config = config.ok_or_else(|| missing("returned nothing"))?.to_vec();
        let call = Call {
            context: Context::List,
            ..Call::scalar("restore_get_mechanism", volume(&session, &volname, None))
        };
        let values = session.list(&call)?;
        let words: Vec<_> = values.iter().map(Returned::text).collect();
        let kind = match words[..] {
            [Some("qemu-img"), Some("qemu")] => GuestKind::Qemu,
            [Some("tar" | "directory"), Some("lxc")] => GuestKind::Lxc,
            _ => return Err(wrong(call.method, &format!("{words:?}"))),
        };
        Ok(Self {
            session: Mutex::new(session),
            name: name.clone(),
            volname,
            kind,
            mechanism: words
                .first()
                .copied()
                .flatten()
                .unwrap_or_default()
                .to_owned(),
            config,
        })
    }

    /// How the class restores it.
    pub(crate) fn mechanism(&self) -> &str {
        &self.mechanism
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn guest_config_of(session: &Session) -> &'static str {
    match session.dialect() {
        Dialect::Shipped => "archive_get_guest_config",
        Dialect::V5 => "restore_get_guest_config",
    }
}

/// The arguments of a call of an archive, and perhaps of a device: version 5 has the storage ID.
fn volume(session: &Session, volname: &str, device: Option<&DeviceName>) -> Vec<Arg> {
    let mut args = vec![Arg::text(volname)];
    if session.dialect() == Dialect::V5 {
        args.push(Arg::text(STORAGE));
    }
    if let Some(device) = device {
        args.extend([Arg::text(device.as_str()), info(Vec::new())]);
    }
    args
}

fn guest_config(session: &mut Session, volname: &str) -> Result<Vec<u8>> {
    let call = Call {
        clean: false,
        ..Call::scalar(guest_config_of(session), volume(session, volname, None))
    };
    let config = session.call(&call)?;
    let config = config.bytes().map(<[u8]>::to_vec);
    config.ok_or_else(|| wrong(call.method, "no configuration"))
}

fn firewall_config(session: &mut Session, volname: &str) -> Result<Option<Vec<u8>>> {
    let method = match session.dialect() {
        Dialect::Shipped => "archive_get_firewall_config",
        Dialect::V5 => "restore_get_firewall_config",
    };
    let call = Call {
        clean: false,
        ..Call::scalar(method, volume(session, volname, None))
    };
    let config = session.call(&call)?;
    if config.is_false() {
        return Ok(None);
    }
    let config = config.bytes().map(<[u8]>::to_vec);
    let config = config.ok_or_else(|| wrong(method, "what is no text"));
    config.map(Some)
}

impl Archive for Opened {
    fn guest_kind(&self) -> GuestKind {
        self.kind
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        let mut session = self.session();
        let config = guest_config(&mut session, &self.volname)?;
        if config != self.config {
            let what = "another configuration when the storage ID is an argument, too";
            return Err(wrong(guest_config_of(&session), what));
        }
        Ok(config)
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        firewall_config(&mut self.session(), &self.volname)
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        if self.kind != GuestKind::Qemu {
            let what = "the class says that it is no virtual machine's archive";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let session = self.session.into_inner();
        let mut restore = Restoring {
            session: session.unwrap_or_else(PoisonError::into_inner),
            volname: self.volname,
            volumes: BTreeMap::new(),
            open: None,
        };
        if let Err(error) = restore.begin() {
            // The cleanup is called also when there was no start; its failure is a warning.
            restore.end()?;
            return Err(error);
        }
        Ok(Box::new(restore))
    }

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        if self.kind != GuestKind::Lxc {
            let what = "the class says that it is no container's archive";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let session = self.session.into_inner();
        let session = session.unwrap_or_else(PoisonError::into_inner);
        let restore = container::Restoring::begin(session, self.name)?;
        Ok(Box::new(restore))
    }
}

/// A virtual machine being restored.
struct Restoring {
    session: Session,
    volname: String,
    volumes: BTreeMap<DeviceName, VolumeInfo>,
    /// The disk that is open: one at a time.
    open: Option<DeviceName>,
}

impl Restoring {
    fn begin(&mut self) -> Result<()> {
        let call = Call::scalar(
            "restore_vm_init",
            volume(&self.session, &self.volname, None),
        );
        let told = self.session.call(&call)?;
        let volumes = told.hash().ok_or_else(|| wrong(call.method, "no hash"))?;
        if volumes.len() > limits::VOLUMES_MAX {
            return Err(wrong(call.method, "more volumes than a guest has"));
        }
        for (device, volume) in volumes {
            let device: DeviceName = String::from_utf8_lossy(device).parse()?;
            let size = volume.get("size").and_then(Returned::text);
            let size = size.and_then(|size| size.parse().ok());
            let size = size.ok_or_else(|| wrong(call.method, "a disk without a size"))?;
            let bitmaps = Vec::new();
            self.volumes.insert(device, VolumeInfo { size, bitmaps });
        }
        let config = guest_config(&mut self.session, &self.volname)?;
        if config.is_empty() {
            return Err(wrong(
                guest_config_of(&self.session),
                "an empty configuration",
            ));
        }
        firewall_config(&mut self.session, &self.volname).map(drop)
    }

    /// The disk that is open has been read.
    fn close(&mut self) -> Result<()> {
        let Some(device) = self.open.take() else {
            return Ok(());
        };
        let args = volume(&self.session, &self.volname, Some(&device));
        let call = Call::void("restore_vm_volume_cleanup", args);
        self.session.call(&call).map(drop)
    }

    /// A failure of this is a warning for Proxmox VE.
    fn end(&mut self) -> Result<()> {
        let call = Call {
            object: RESTORING,
            ..Call::void(
                "restore_vm_cleanup",
                volume(&self.session, &self.volname, None),
            )
        };
        self.session.attempt(&call, &mut Regions::new()).map(drop)
    }
}

impl VmRestore for Restoring {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.volumes
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        const METHOD: &str = "restore_vm_volume_init";
        self.close()?;
        let args = volume(&self.session, &self.volname, Some(device));
        let told = self.session.call(&Call::scalar(METHOD, args))?;
        let path = told.get("qemu-img-path").and_then(Returned::text);
        let path = path.ok_or_else(|| wrong(METHOD, "no hash with a qemu-img-path"))?;
        self.open = Some(device.clone());
        let unusable = |why: &dyn std::fmt::Display| {
            let what = format!("'{path}' for {device}, which cannot be used: {why}");
            wrong(METHOD, &what)
        };
        let file = File::open(path).map_err(|e| unusable(&e))?;
        let kind = file.metadata().map_err(|e| unusable(&e))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(unusable(&"it is no file and no block device"));
        }
        Ok(Box::new(Reader::new(file).map_err(|e| unusable(&e))?))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.close()?;
        self.end()
    }
}
