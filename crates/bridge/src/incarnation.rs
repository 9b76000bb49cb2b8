//! Which life of its QEMU a guest is in, as Proxmox VE keeps its processes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapkeep_api::{GuestId, Incarnation, Process};

use crate::limits;

/// Where the files with the IDs of processes are; the second is a link to the first, or the other
/// way round.
const PID_FOLDERS: [&str; 2] = ["/run/qemu-server", "/var/run/qemu-server"];

/// What can be learned of a guest. What cannot is none: then no bitmap is believed.
pub(crate) fn incarnation(guest: &GuestId) -> Incarnation {
    let folders = PID_FOLDERS.map(PathBuf::from);
    let found = folders.iter().find_map(|folder| in_folder(folder, guest));
    found.unwrap_or_default()
}

fn in_folder(folder: &Path, guest: &GuestId) -> Option<Incarnation> {
    let id = read(&folder.join(format!("{guest}.pid")))?;
    let id: u32 = std::str::from_utf8(&id).ok()?.trim().parse().ok()?;
    let stat = read(format!("/proc/{id}/stat").as_ref())?;
    let start = start_time(&String::from_utf8_lossy(&stat))?;
    let arguments = read(format!("/proc/{id}/cmdline").as_ref())?;
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    // The file may be of a process that is gone, and the number another's by now.
    let options = || arguments.iter().zip(arguments.iter().skip(1));
    if !options().any(|(option, value)| option == "-id" && value == guest.as_str()) {
        return None;
    }
    let boot = read("/proc/sys/kernel/random/boot_id".as_ref())?;
    let boot = uuid(std::str::from_utf8(&boot).ok()?.trim())?;
    let mut devices = options().filter(|(option, _)| *option == "-device");
    Some(Incarnation {
        process: Some(Process { boot, id, start }),
        vmgenid: devices.find_map(|(_, device)| vmgenid(device)),
    })
}

/// A file that is not too long.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).ok()?.take(limits::PROC_BYTES_MAX);
    file.read_to_end(&mut bytes).ok()?;
    (file.limit() > 0).then_some(bytes)
}

/// Field 22 of `/proc/PID/stat`, if field 2, the name, is QEMU's. The name is in parentheses, and may
/// have some in it.
fn start_time(stat: &str) -> Option<u64> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    if !name.starts_with("qemu") && name != "kvm" {
        return None;
    }
    after.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The generation ID of a device that has one, unless it is zero.
fn vmgenid(device: &str) -> Option<[u8; 16]> {
    let text = if device.starts_with('{') {
        let device: Value = serde_json::from_str(device).ok()?;
        let is_it = device.get("driver")?.as_str()? == "vmgenid";
        is_it.then(|| device.get("guid")?.as_str().map(str::to_owned))??
    } else {
        let mut parts = device.split(',');
        let is_it = matches!(parts.next()?, "vmgenid" | "driver=vmgenid");
        let guid = parts.find_map(|part| part.strip_prefix("guid="));
        is_it.then_some(guid)??.to_owned()
    };
    uuid(&text).filter(|id| *id != [0; 16])
}

/// The digits' bytes.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits = text.replace('-', "");
    let all = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = all.then(|| u128::from_str_radix(&digits, 16).ok())??;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    /// A process that calls itself QEMU: it waits for the end of its input.
    fn qemu(folder: &Path, arguments: &[&str]) -> Running {
        let program = folder.join("qemu-x");
        fs::copy("/bin/cat", &program).unwrap();
        let child = Command::new(&program)
            .arg0("kvm")
            .arg("-")
            .arg("--")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Running(child.unwrap())
    }

    #[test]
    fn a_running_guest_is_known_by_its_process_and_its_generation() {
        let folder = tempfile::tempdir().unwrap();
        let guest: GuestId = "100".parse().unwrap();
        let id = "12345678-9abc-def0-1122-334455667788";
        let running = qemu(
            folder.path(),
            &["-id", "100", "-device", &format!("vmgenid,guid={id}")],
        );
        let file = folder.path().join("100.pid");
        fs::write(&file, format!("{}\n", running.0.id())).unwrap();
        let found = in_folder(folder.path(), &guest).unwrap();
        assert_eq!(found.process.unwrap().id, running.0.id());
        assert!(found.process.unwrap().start > 0);
        assert_eq!(found.vmgenid.unwrap()[..4], [0x12, 0x34, 0x56, 0x78]);
        // Another guest's process.
        fs::copy(&file, folder.path().join("101.pid")).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(in_folder(folder.path(), &"101".parse().unwrap()), None);
        assert_eq!(in_folder(folder.path(), &guest), None);
    }

    #[test]
    fn a_process_that_is_no_qemu_is_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        fs::write(folder.path().join("7.pid"), own.to_string()).unwrap();
        assert_eq!(in_folder(folder.path(), &"7".parse().unwrap()), None);
        fs::write(folder.path().join("7.pid"), "none").unwrap();
        assert_eq!(in_folder(folder.path(), &"7".parse().unwrap()), None);
    }

    #[test]
    fn a_generation_is_found_however_it_is_written() {
        let id = "12345678-9abc-def0-1122-334455667788";
        for good in [
            format!("vmgenid,guid={id}"),
            format!("driver=vmgenid,id=x,guid={id}"),
            format!("{{\"driver\":\"vmgenid\",\"guid\":\"{id}\"}}"),
        ] {
            assert_eq!(vmgenid(&good).unwrap()[15], 0x88, "{good}");
        }
        for bad in [
            "vmgenid",
            "vmgenid,guid=auto",
            "vmgenid,guid=00000000-0000-0000-0000-000000000000",
            "virtio-scsi-pci,id=x",
            "{\"driver\":\"virtio\"}",
            "{",
            "",
        ] {
            assert_eq!(vmgenid(bad), None, "{bad}");
        }
    }
}
