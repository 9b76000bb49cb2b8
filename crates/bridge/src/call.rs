//! The calls, as docs/BRIDGE.md has them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use snapkeep_api::{DeviceName, Error, ErrorKind, GuestId, GuestKind, Result, UnixTime};

use crate::backend::{Hello, StorageCall};
use crate::limits;
use crate::message::{bytes, flag, number, optional_bytes, optional_number};

/// A call with its arguments.
#[derive(Debug)]
pub(crate) enum Call {
    Hello(Hello),
    ProviderName,
    JobInit(JobInit),
    JobCleanup(JobCleanup),
    BackupInit(BackupInit),
    BackupCleanup(BackupCleanup),
    BackupGetMechanism(OfGuest),
    BackupVmQueryIncremental(QueryIncremental),
    BackupVmRegions(VmRegions),
    BackupVm(BackupVm),
    BackupContainerPrepare(ContainerPrepare),
    BackupContainer(BackupContainer),
    BackupHandleLogFile(LogFile),
    ArchiveGetGuestConfig(OfArchive),
    ArchiveGetFirewallConfig(OfArchive),
    RestoreGetMechanism(OfArchive),
    RestoreVmInit(OfArchive),
    RestoreVmVolumeInit(OfVolume),
    RestoreVmVolumeCleanup(OfVolume),
    RestoreVmCleanup(OfArchive),
    RestoreContainerInit(OfArchive),
    RestoreContainerCleanup(OfArchive),
    Storage(StorageCall),
}

impl Call {
    pub(crate) fn parse(name: &str, args: Value) -> Result<Self> {
        let args = Args { call: name, args };
        Ok(match name {
            "hello" => Self::Hello(args.read::<HelloArgs>()?.into()),
            "provider_name" => Self::ProviderName,
            "job_init" => Self::JobInit(args.read()?),
            "job_cleanup" => Self::JobCleanup(args.read()?),
            "backup_init" => Self::BackupInit(args.read()?),
            "backup_cleanup" => Self::BackupCleanup(args.read()?),
            "backup_get_mechanism" => Self::BackupGetMechanism(args.read()?),
            "backup_vm_query_incremental" => Self::BackupVmQueryIncremental(args.read()?),
            "backup_vm_regions" => Self::BackupVmRegions(args.read()?),
            "backup_vm" => Self::BackupVm(args.read()?),
            "backup_container_prepare" => Self::BackupContainerPrepare(args.read()?),
            "backup_container" => Self::BackupContainer(args.read()?),
            "backup_handle_log_file" => Self::BackupHandleLogFile(args.read()?),
            "archive_get_guest_config" => Self::ArchiveGetGuestConfig(args.read()?),
            "archive_get_firewall_config" => Self::ArchiveGetFirewallConfig(args.read()?),
            "restore_get_mechanism" => Self::RestoreGetMechanism(args.read()?),
            "restore_vm_init" => Self::RestoreVmInit(args.read()?),
            "restore_vm_volume_init" => Self::RestoreVmVolumeInit(args.read()?),
            "restore_vm_volume_cleanup" => Self::RestoreVmVolumeCleanup(args.read()?),
            "restore_vm_cleanup" => Self::RestoreVmCleanup(args.read()?),
            "restore_container_init" => Self::RestoreContainerInit(args.read()?),
            "restore_container_cleanup" => Self::RestoreContainerCleanup(args.read()?),
            "storage_check" => Self::Storage(StorageCall::Check),
            "storage_create" => Self::Storage(StorageCall::Create),
            "storage_status" => Self::Storage(StorageCall::Status),
            "storage_list" => Self::Storage(args.read::<ListArgs>()?.into()),
            "storage_get" => Self::Storage(StorageCall::Get {
                archive: args.read::<Named>()?.archive,
            }),
            "storage_set_notes" => Self::Storage(args.read::<NotesArgs>()?.into()),
            "storage_set_protected" => Self::Storage(args.read::<ProtectedArgs>()?.into()),
            "storage_free" => Self::Storage(StorageCall::Free {
                archive: args.read::<Named>()?.archive,
            }),
            unknown => {
                let what = format!("there is no call {unknown:?}");
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
        })
    }
}

/// Arguments that nobody looked at yet.
struct Args<'a> {
    call: &'a str,
    args: Value,
}

impl Args<'_> {
    fn read<T: DeserializeOwned>(self) -> Result<T> {
        let args = if self.args.is_null() {
            Value::Object(Map::new())
        } else {
            self.args
        };
        T::deserialize(args).map_err(|e| {
            let what = format!("the arguments of {} cannot be used", self.call);
            Error::with_source(ErrorKind::Invalid, what, e)
        })
    }
}

#[derive(Deserialize)]
struct HelloArgs {
    #[serde(deserialize_with = "number")]
    version: u32,
    #[serde(deserialize_with = "number")]
    pid: u32,
    storage: String,
    #[serde(default)]
    settings: Value,
}

impl From<HelloArgs> for Hello {
    fn from(args: HelloArgs) -> Self {
        Self {
            version: args.version,
            pid: args.pid,
            storage: args.storage,
            settings: args.settings,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct JobInit {
    #[serde(deserialize_with = "time")]
    pub(crate) start_time: UnixTime,
}

#[derive(Debug, Deserialize)]
pub(crate) struct JobCleanup {
    #[serde(default)]
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BackupInit {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    pub(crate) vmtype: String,
    #[serde(deserialize_with = "time")]
    pub(crate) start_time: UnixTime,
}

/// The type is not looked at: callers do not always know it, and the guest's ID is enough.
#[derive(Debug, Deserialize)]
pub(crate) struct BackupCleanup {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "flag")]
    pub(crate) success: bool,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OfGuest {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    pub(crate) vmtype: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct QueryIncremental {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "devices")]
    pub(crate) volumes: BTreeMap<DeviceName, VolumeSize>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VolumeSize {
    #[serde(deserialize_with = "number")]
    pub(crate) size: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VmRegions {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "device")]
    pub(crate) device: DeviceName,
    pub(crate) regions: Vec<RegionArgs>,
    #[serde(deserialize_with = "flag")]
    pub(crate) last: bool,
}

/// Offset and length.
#[derive(Debug, Deserialize)]
pub(crate) struct RegionArgs(
    #[serde(deserialize_with = "number")] pub(crate) u64,
    #[serde(deserialize_with = "number")] pub(crate) u64,
);

#[derive(Debug, Deserialize)]
pub(crate) struct BackupVm {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "bytes")]
    pub(crate) guest_config: Vec<u8>,
    #[serde(default, deserialize_with = "optional_bytes")]
    pub(crate) firewall_config: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "optional_number")]
    pub(crate) bandwidth_limit: Option<u64>,
    #[serde(deserialize_with = "devices")]
    pub(crate) volumes: BTreeMap<DeviceName, VolumeArgs>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VolumeArgs {
    #[serde(deserialize_with = "number")]
    pub(crate) size: u64,
    pub(crate) bitmap_mode: String,
    #[serde(default)]
    pub(crate) nbd_path: Option<PathBuf>,
    #[serde(default)]
    pub(crate) bitmap_name: Option<String>,
    #[serde(default, deserialize_with = "optional_number")]
    pub(crate) fd: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ContainerPrepare {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "number")]
    pub(crate) walker_fd: u64,
    pub(crate) directory: PathBuf,
    pub(crate) sources: Vec<String>,
    #[serde(default, deserialize_with = "optional_bytes")]
    pub(crate) firewall_config: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "optional_number")]
    pub(crate) bandwidth_limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct BackupContainer {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    #[serde(deserialize_with = "number")]
    pub(crate) pid: u32,
    #[serde(deserialize_with = "bytes")]
    pub(crate) guest_config: Vec<u8>,
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct LogFile {
    #[serde(deserialize_with = "vmid")]
    pub(crate) vmid: GuestId,
    pub(crate) path: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OfArchive {
    #[serde(deserialize_with = "shown")]
    pub(crate) volname: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OfVolume {
    #[serde(deserialize_with = "shown")]
    pub(crate) volname: String,
    #[serde(deserialize_with = "device")]
    pub(crate) device: DeviceName,
}

#[derive(Deserialize)]
struct ListArgs {
    #[serde(default, deserialize_with = "optional_number")]
    vmid: Option<u64>,
    #[serde(default)]
    vmtype: Option<Kind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Qemu,
    Lxc,
}

impl From<ListArgs> for StorageCall {
    fn from(args: ListArgs) -> Self {
        Self::List {
            // No guest has a number that is too large, and so no archives.
            vmid: args
                .vmid
                .map(|vmid| u32::try_from(vmid).unwrap_or(u32::MAX)),
            kind: args.vmtype.map(|kind| match kind {
                Kind::Qemu => GuestKind::Qemu,
                Kind::Lxc => GuestKind::Lxc,
            }),
        }
    }
}

#[derive(Deserialize)]
struct Named {
    archive: String,
}

#[derive(Deserialize)]
struct NotesArgs {
    archive: String,
    #[serde(deserialize_with = "bytes")]
    notes: Vec<u8>,
}

impl From<NotesArgs> for StorageCall {
    fn from(NotesArgs { archive, notes }: NotesArgs) -> Self {
        Self::SetNotes { archive, notes }
    }
}

#[derive(Deserialize)]
struct ProtectedArgs {
    archive: String,
    #[serde(deserialize_with = "flag")]
    protected: bool,
}

impl From<ProtectedArgs> for StorageCall {
    fn from(args: ProtectedArgs) -> Self {
        Self::SetProtected {
            archive: args.archive,
            protected: args.protected,
        }
    }
}

fn vmid<'de, D: Deserializer<'de>>(from: D) -> Result<GuestId, D::Error> {
    let vmid: u64 = number(from)?;
    if vmid == 0 || vmid > limits::VMID_MAX.into() {
        return Err(D::Error::custom(format!("{vmid} is no VMID")));
    }
    vmid.to_string().parse().map_err(D::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<UnixTime, D::Error> {
    let seconds: u64 = number(from)?;
    let seconds = i64::try_from(seconds).map_err(D::Error::custom)?;
    Ok(UnixTime(seconds))
}

fn device<'de, D: Deserializer<'de>>(from: D) -> Result<DeviceName, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// Something for each of a guest's volumes.
fn devices<'de, D, T>(from: D) -> Result<BTreeMap<DeviceName, T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let all = BTreeMap::<String, T>::deserialize(from)?;
    if all.len() > limits::VOLUMES_MAX {
        let most = limits::VOLUMES_MAX;
        return Err(D::Error::custom(format!(
            "there are more than {most} volumes"
        )));
    }
    let named = |(name, of): (String, T)| Ok((name.parse().map_err(D::Error::custom)?, of));
    all.into_iter().map(named).collect()
}

/// The archive in a volume's name.
fn shown<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let volname = String::deserialize(from)?;
    let archive = volname.strip_prefix("backup/").map(str::to_owned);
    Ok(archive.unwrap_or(volname))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(name: &str, args: Value) -> Result<Call> {
        Call::parse(name, args)
    }

    #[test]
    fn numbers_may_be_text_and_vmids_are_digits() {
        for good in [json!(100), json!("100")] {
            let Call::BackupGetMechanism(of) = parse(
                "backup_get_mechanism",
                json!({"vmid": good, "vmtype": "qemu"}),
            )
            .unwrap() else {
                panic!("another call");
            };
            assert_eq!(of.vmid.as_str(), "100");
        }
        for bad in [
            json!(0),
            json!(1_000_000_000),
            json!("1e3"),
            json!(-1),
            json!("+1"),
            json!(""),
            json!("../1"),
            json!(1.5),
            json!(null),
            json!(true),
        ] {
            let args = json!({"vmid": bad, "vmtype": "qemu"});
            let error = parse("backup_get_mechanism", args).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(
                error.chain().contains("backup_get_mechanism"),
                "{}",
                error.chain()
            );
        }
    }

    #[test]
    fn an_unknown_call_is_unsupported_and_unknown_arguments_are_ignored() {
        let error = parse("backup_tape", json!({})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(parse("provider_name", Value::Null).is_ok());
        assert!(parse("job_cleanup", json!({"error": null, "colour": "red"})).is_ok());
        assert!(parse("job_init", json!({})).is_err());
    }

    #[test]
    fn what_is_false_in_perl_is_false() {
        for (value, success) in [
            (json!(1), true),
            (json!("1"), true),
            (json!(true), true),
            (json!(0), false),
            (json!("0"), false),
            (json!(""), false),
        ] {
            let args = json!({"vmid": 1, "vmtype": null, "success": value});
            let Call::BackupCleanup(args) = parse("backup_cleanup", args).unwrap() else {
                panic!("another call");
            };
            assert_eq!(args.success, success);
        }
        assert!(parse("backup_cleanup", json!({"vmid": 1, "success": 2})).is_err());
    }

    #[test]
    fn a_volume_has_its_name_with_or_without_its_folder() {
        for name in ["backup/vzdump-qemu-1", "vzdump-qemu-1"] {
            let Call::RestoreVmInit(of) =
                parse("restore_vm_init", json!({"volname": name})).unwrap()
            else {
                panic!("another call");
            };
            assert_eq!(of.volname, "vzdump-qemu-1");
        }
    }
}
