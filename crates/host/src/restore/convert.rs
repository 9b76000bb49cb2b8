//! Restore through `qemu-img convert`, which knows every image format: it reads the disk from our
//! NBD server.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use snapkeep_api::{Cancel, Clock, DeviceName, Error, ErrorKind, Result, Throttle, VolumeReader};
use snapkeep_nbd::{Address, Export, Server, ServerOptions};

use super::device::Device;
use super::direct::half;
use super::export::VolumeExport;
use super::target::{Target, failed};
use super::{Observer, RestoreOptions, Restored, limits};

/// Restores a disk to a file or block device in a format that `qemu-img` can write.
///
/// `Unsupported` if there is no `qemu-img` or it refuses; `Invalid`, `Target` and `Cancelled` as
/// for [`restore_raw`](super::restore_raw); if the volume could not be read, its error.
pub fn convert(
    volume: Arc<dyn VolumeReader>,
    device: &DeviceName,
    target: &Path,
    format: &str,
    options: &RestoreOptions,
    clock: &Arc<dyn Clock>,
    observer: Observer<'_>,
) -> Result<Restored> {
    check_format(format)?;
    let size = volume.size();
    let throttle = Throttle::new(options.bandwidth_limit);
    let cancel = options.cancel.clone();
    let export = Arc::new(VolumeExport::new(
        volume,
        throttle,
        Arc::clone(clock),
        cancel,
    ));
    let folder = (tempfile::tempdir())
        .map_err(|e| failed("cannot make a folder in", &std::env::temp_dir(), e))?;
    let address = Address::Unix(folder.path().join("nbd"));
    let exports = BTreeMap::from([(
        device.as_str().to_owned(),
        Arc::clone(&export) as Arc<dyn Export>,
    )]);
    let server = Server::bind(address, exports, ServerOptions::default())
        .map_err(|e| Error::with_source(ErrorKind::Target, "cannot serve the disk", e))?;
    let uri = server.address().uri(device.as_str());
    let follow = |mut child: Child| {
        let (status, words) = wait(&mut child, &options.cancel, &**clock, &|| {
            observer(export.reached());
        })?;
        if let Some(error) = export.failure() {
            return Err(error);
        }
        options.cancel.check()?;
        if !status.success() {
            let what = format!(
                "qemu-img ({status}) could not write {}: {words}",
                target.display()
            );
            return Err(Error::new(ErrorKind::Target, what));
        }
        Ok(())
    };
    match Target::open(target, options.overwrite)? {
        Target::File(new) => {
            // An absolute path cannot be taken for a protocol's name and a colon.
            let path = std::path::absolute(new.path())
                .map_err(|e| failed("cannot find the place of", target, e))?;
            follow(start(&uri, format, &path)?)?;
            new.finish()?;
        }
        Target::Device(device) => {
            if format == "raw" {
                device.check_room(size)?;
            }
            let path = (std::fs::canonicalize(device.path()))
                .map_err(|e| failed("cannot look at", target, e))?;
            let zero_behind = || {
                if format == "raw" {
                    device.zero(size, device.size())?;
                }
                device.sync()
            };
            let before = device.head()?;
            let child = start(&uri, format, &path)?;
            (follow(child).and_then(|()| zero_behind())).map_err(|error| {
                // A format that it does not know, say: it never came to the disk.
                if !export.asked() && device.head().is_ok_and(|now| now == before) {
                    return error;
                }
                unmake(&device, &error)
            })?;
        }
    }
    observer(size);
    let data = export.bytes_read();
    Ok(Restored { size, data })
}

/// Zeroes the device's first part, which `qemu-img` does not write last: no partition table and no
/// boot sector may make half a disk look like a whole one. Says what is left.
fn unmake(device: &Device, error: &Error) -> Error {
    let end = limits::HEAD.min(device.size());
    match device.zero(0, end).and_then(|()| device.sync()) {
        Ok(()) => half(device, error),
        Err(zeroing) => {
            let what = format!(
                "{} may look like a whole disk now and is not ({}): restore it again",
                device.path().display(),
                zeroing.chain()
            );
            Error::with_source(error.kind(), what, error.clone())
        }
    }
}

fn check_format(format: &str) -> Result<()> {
    let fine = (1..=limits::FORMAT_MAX).contains(&format.len())
        && format.starts_with(|c: char| c.is_ascii_lowercase())
        && (format.bytes()).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        let what =
            format!("{format:?} cannot be the name of an image format, such as raw or qcow2");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

fn start(uri: &str, format: &str, output: &Path) -> Result<Child> {
    let mut command = Command::new("qemu-img");
    // A passphrase may be among our own settings; it is none of its business.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SNAPKEEP_") {
            command.env_remove(name);
        }
    }
    command
        .args([
            "convert",
            "-f",
            "raw",
            "-O",
            format,
            "-m",
            limits::CONVERT_REQUESTS,
            uri,
        ])
        .arg(output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            let what = "cannot start qemu-img, which writes every format but raw; is it installed?";
            Error::with_source(ErrorKind::Unsupported, what, e)
        })
}

/// Waits for the child, and ends it when that is asked for. Its exit status and its words.
fn wait(
    child: &mut Child,
    cancel: &Cancel,
    clock: &dyn Clock,
    tick: &dyn Fn(),
) -> Result<(ExitStatus, String)> {
    let lost = |e| Error::with_source(ErrorKind::Target, "cannot wait for qemu-img", e);
    let stderr = child.stderr.take();
    std::thread::scope(|scope| {
        let words = scope.spawn(move || stderr.map_or(Ok(String::new()), listen));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(lost)? {
                break status;
            }
            if cancel.is_cancelled() {
                child.kill().map_err(lost)?;
                break child.wait().map_err(lost)?;
            }
            tick();
            clock.sleep(limits::WAIT_STEP);
        };
        let words = match words.join() {
            Ok(words) => words.map_err(lost)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((status, words))
    })
}

/// What it says, on one line; what is too much is read and dropped, so that it never blocks.
fn listen(mut from: std::process::ChildStderr) -> std::io::Result<String> {
    let mut kept = Vec::new();
    (from.by_ref().take(limits::WORDS_MAX)).read_to_end(&mut kept)?;
    std::io::copy(&mut from, &mut std::io::sink())?;
    let words = String::from_utf8_lossy(&kept);
    Ok(words.trim().replace('\n', "; "))
}
