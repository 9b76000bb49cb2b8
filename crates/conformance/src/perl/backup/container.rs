//! A container's folder, handed over as Proxmox VE does.

use std::sync::PoisonError;

use snapkeep_api::{ArchiveName, BackupStats, ContainerBackup, ContainerSource, Outcome, Result};

use super::{Call, Dialect, Guest, died, info, wrong};
use crate::perl::driver::Regions;
use crate::perl::tree::{FIRST, Folder, Kept, Namespace};
use crate::perl::value::Arg;

/// The backup of a container.
pub(super) struct Container(Guest);

impl Container {
    pub(super) fn new(guest: Guest) -> Result<Self> {
        let agreed = agree(&guest);
        if let Err(error) = agreed {
            guest.finish(&Outcome::Failure(error.chain()))?;
            return Err(error);
        }
        Ok(Self(guest))
    }

    fn remember(&self, kept: Kept) {
        let session = self.0.session();
        let mut trees = (session.shared.trees.lock()).unwrap_or_else(PoisonError::into_inner);
        trees.insert(self.0.name.clone(), kept);
    }
}

fn agree(guest: &Guest) -> Result<()> {
    match guest.mechanism()? {
        (mechanism, _) if mechanism == "directory" => Ok(()),
        (other, _) => {
            let what = format!("'{other}', which is none for containers");
            Err(wrong("backup_get_mechanism", &what))
        }
    }
}

impl ContainerBackup for Container {
    fn archive_name(&self) -> &ArchiveName {
        &self.0.name
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        let walker = self.0.session().shared.class.walker.clone();
        let (folder, kept) = Folder::make(&walker, container.tree)?;
        let namespace = Namespace::new()?;
        let firewall = container.firewall_config.unwrap_or_default().to_vec();
        let mut pairs = vec![
            ("directory", Arg::text(folder.path().to_string_lossy())),
            ("sources", Arg::List(vec![Arg::text("./")])),
            ("backup-user-id", Arg::Number(FIRST)),
            // Always there, and empty if there is none.
            ("firewall-config", Arg::Configuration(firewall)),
        ];
        if let Some(limit) = container.bandwidth_limit {
            pairs.push(("bandwidth-limit", Arg::Number(limit.get())));
        }
        let info = info(pairs);
        let vmid = Arg::Number(self.0.vmid);
        let mut session = self.0.session();
        let prepare = match session.dialect() {
            Dialect::Shipped => {
                Call::void("backup_container_prepare", vec![vmid.clone(), info.clone()])
            }
            Dialect::V5 => {
                let mut args = self.0.ids();
                args.insert(0, Arg::text("prepare"));
                args.push(info.clone());
                Call::void("backup_hook", args)
            }
        };
        session.call(&prepare)?;
        let config = Arg::Configuration(container.guest_config.to_vec());
        let call = Call {
            namespace: Some(namespace.path()),
            ..Call::void(
                "backup_container",
                vec![vmid, config, Arg::List(Vec::new()), info],
            )
        };
        let ran = session.attempt(&call, &mut Regions::new())?;
        drop(session);
        ran.map_err(|why| died(call.method, &why))?;
        self.remember(kept);
        Ok(BackupStats {
            uncounted: true,
            ..BackupStats::default()
        })
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.0.finish(outcome)
    }
}
