//! Which life of its QEMU a guest is in, as Proxmox VE keeps its processes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapkeep_api::{GuestId, Incarnation, Process};

use crate::limits;
use crate::process::start_time;

/// Where the files with the IDs of processes are; the second is a link to the first, or the other
/// way round.
const PID_FOLDERS: [&str; 2] = ["/run/qemu-server", "/var/run/qemu-server"];

/// The flag of a socket that listens (`__SO_ACCEPTCON` of `net.h`).
const ACCEPTS: u32 = 1 << 16;

/// What can be learned of a guest. What cannot is none: then no bitmap is believed.
pub(crate) fn incarnation(guest: &GuestId) -> Incarnation {
    let folders = PID_FOLDERS.map(PathBuf::from);
    let found = folders.iter().find_map(|folder| in_folder(folder, guest));
    found.unwrap_or_default()
}

fn in_folder(folder: &Path, guest: &GuestId) -> Option<Incarnation> {
    let id = read(&folder.join(format!("{guest}.pid")))?;
    let id: u32 = std::str::from_utf8(&id).ok()?.trim().parse().ok()?;
    let start = start_time(id)?;
    // The file may be of a process that is gone, and the number another's by now.
    if !listens(id, &folder.join(format!("{guest}."))) {
        return None;
    }
    let arguments = read(format!("/proc/{id}/cmdline").as_ref())?;
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let boot = read("/proc/sys/kernel/random/boot_id".as_ref())?;
    let boot = uuid(std::str::from_utf8(&boot).ok()?.trim())?;
    let options = arguments.iter().zip(arguments.iter().skip(1));
    let mut devices = options.filter(|(option, _)| *option == "-device");
    Some(Incarnation {
        process: Some(Process { boot, id, start }),
        vmgenid: devices.find_map(|(_, device)| vmgenid(device)),
    })
}

/// A file that is not too long.
fn read(path: &Path) -> Option<Vec<u8>> {
    read_most(path, limits::PROC_BYTES_MAX)
}

fn read_most(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path).ok()?.take(max);
    file.read_to_end(&mut bytes).ok()?;
    (file.limit() > 0).then_some(bytes)
}

/// Whether a process listens on the guest's monitor, or another of its sockets: their paths begin
/// with this one, below `/run` or `/var/run`.
fn listens(id: u32, beginning: &Path) -> bool {
    let plain = |path: &str| path.strip_prefix("/var").unwrap_or(path).to_owned();
    let Some(beginning) = beginning.to_str().map(plain) else {
        return false;
    };
    let Some(sockets) = read_most("/proc/net/unix".as_ref(), limits::SOCKETS_BYTES_MAX) else {
        return false;
    };
    let sockets = String::from_utf8_lossy(&sockets);
    // Address, count, protocol, flags, type, state, inode, path.
    let open: Vec<String> = (sockets.lines())
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(3);
            let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
            let inode = fields.nth(2)?;
            let path = fields.next()?;
            let it_is = flags & ACCEPTS != 0 && plain(path).starts_with(&beginning);
            it_is.then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let Ok(descriptors) = fs::read_dir(format!("/proc/{id}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|to| open.iter().any(|socket| to.as_os_str() == socket.as_str()))
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
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    /// A process that waits for the end of its input, and has the monitor for its output.
    fn qemu(monitor: UnixListener, arguments: &[&str]) -> Running {
        let child = Command::new("cat")
            .args(["-", "--"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(std::os::fd::OwnedFd::from(monitor))
            .stderr(Stdio::null())
            .spawn();
        let mut running = Running(child.unwrap());
        // Its parent goes on before its arguments can be seen.
        let arguments = format!("/proc/{}/cmdline", running.0.id());
        while fs::read(&arguments).unwrap().is_empty() {
            assert_eq!(running.0.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        running
    }

    #[test]
    fn a_running_guest_is_known_by_its_process_and_its_generation() {
        let folder = tempfile::tempdir().unwrap();
        let guest: GuestId = "100".parse().unwrap();
        let monitor = UnixListener::bind(folder.path().join("100.qmp")).unwrap();
        let generation = "vmgenid,guid=12345678-9abc-def0-1122-334455667788";
        let running = qemu(monitor, &["-device", generation]);
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
    fn a_guest_that_was_migrated_has_another_process_and_its_generation() {
        let guest: GuestId = "100".parse().unwrap();
        let device = "vmgenid,guid=12345678-9abc-def0-1122-334455667788";
        // Two nodes have a folder each.
        let nodes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let found = nodes.each_ref().map(|node| {
            let monitor = UnixListener::bind(node.path().join("100.qmp")).unwrap();
            let running = qemu(monitor, &["-device", device]);
            fs::write(node.path().join("100.pid"), running.0.id().to_string()).unwrap();
            in_folder(node.path(), &guest).unwrap()
        });
        assert_ne!(found[0].process, found[1].process);
        assert_eq!(found[0].vmgenid, found[1].vmgenid);
        // Where it came from there is none any more, though its files are.
        assert_eq!(in_folder(nodes[0].path(), &guest), None);
    }

    #[test]
    fn a_process_that_does_not_have_the_monitor_is_no_guest() {
        let folder = tempfile::tempdir().unwrap();
        let guest: GuestId = "7".parse().unwrap();
        let own = std::process::id().to_string();
        let file = folder.path().join("7.pid");
        fs::write(&file, &own).unwrap();
        assert_eq!(in_folder(folder.path(), &guest), None);
        let monitor = UnixListener::bind(folder.path().join("7.qmp")).unwrap();
        assert!(in_folder(folder.path(), &guest).is_some());
        fs::write(&file, "none").unwrap();
        assert_eq!(in_folder(folder.path(), &guest), None);
        // Somebody else has it.
        let running = qemu(monitor, &[]);
        fs::write(&file, &own).unwrap();
        assert_eq!(in_folder(folder.path(), &guest), None);
        drop(running);
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
