//! Real QEMUs whose guest is the test: it writes to a disk, and a model of the disk does the same.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips; a child that is killed tells when"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use snapkeep_api::{
    ArchiveName, BackupJob, BackupStats, BitmapRequest, ContainerBackup, DeviceName, GuestId,
    Incarnation, Level, Outcome, Provider, Result, SystemClock, TaskLog, UnixTime, VmBackup,
    VmMechanism, VmSource, VolumeInfo,
};
use snapkeep_host::{Finished, Qemu, VmRequest, back_up_vm};
use snapkeep_nbd::{Address, Client, ClientOptions};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};
use tempfile::TempDir;

pub(crate) mod between;
pub(crate) mod killed;
pub(crate) mod migrate;
pub(crate) mod writer;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const KIB: u64 = 1 << 10;
/// Bytes of a disk; no cluster and no chunk divides it.
pub(crate) const SIZE: u64 = 24 * MIB + 512;
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a tool is there; says aloud that the test is skipped if it is not.
pub(crate) fn tool(test: &str, name: &str) -> bool {
    let there = Command::new(name).arg("--version").output().is_ok();
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(there || !ci, "{test} needs {name}");
    if !there {
        eprintln!("SKIP: {test}: needs {name}");
    }
    there
}

pub(crate) fn run(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
}

/// Keeps what was logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push(format!("{level:?}: {message}"));
    }
}

/// A provider on a repository in memory.
pub(crate) fn provider(log: &Log) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 256 << 10);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let clock = Arc::new(SystemClock::new());
    let log = Arc::new(log.clone());
    RepositoryProvider::new(Arc::new(repository.unwrap()), random, clock, log, options)
}

/// What the guest does when its disks are frozen and not yet read.
pub(crate) type Meanwhile = Box<dyn FnOnce() + Send>;

/// A job in whose backup the guest does something.
struct Busy<'a> {
    job: &'a mut dyn BackupJob,
    meanwhile: Option<Meanwhile>,
}

impl BackupJob for Busy<'_> {
    fn start_vm(&mut self, guest: &GuestId, time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let inner = self.job.start_vm(guest, time)?;
        let meanwhile = self.meanwhile.take();
        Ok(Box::new(BusyVm { inner, meanwhile }))
    }

    fn start_container(&mut self, id: &GuestId, t: UnixTime) -> Result<Box<dyn ContainerBackup>> {
        self.job.start_container(id, t)
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

struct BusyVm {
    inner: Box<dyn VmBackup>,
    meanwhile: Option<Meanwhile>,
}

impl VmBackup for BusyVm {
    fn archive_name(&self) -> &ArchiveName {
        self.inner.archive_name()
    }

    fn mechanism(&self) -> VmMechanism {
        self.inner.mechanism()
    }

    fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        self.inner.choose_bitmaps(incarnation, volumes)
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.inner.run(vm)
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.inner.finish(outcome)
    }
}

/// The next second: each backup starts later than the one before.
fn next_second() -> UnixTime {
    static SECONDS: AtomicI64 = AtomicI64::new(1_800_000_000);
    UnixTime(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// One backup of the whole guest.
pub(crate) fn back_up(
    qemu: &mut Qemu,
    provider: &dyn Provider,
    request: VmRequest,
    log: &dyn TaskLog,
    meanwhile: Option<Meanwhile>,
) -> Result<Finished> {
    let time = next_second();
    let mut job = provider.start_job(time)?;
    let mut busy = Busy {
        job: &mut *job,
        meanwhile,
    };
    back_up_vm(qemu, &mut busy, request, time, log)
}

pub(crate) fn request(fleecing_folder: &Path) -> VmRequest {
    VmRequest {
        guest: "web".parse().unwrap(),
        disks: None,
        fleecing_folder: fleecing_folder.to_owned(),
        incremental: true,
        guest_config: b"memory: 32\n".to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
    }
}

/// What an archive restores to.
pub(crate) fn restored(provider: &dyn Provider, archive: &ArchiveName, device: &str) -> Vec<u8> {
    let archive = provider.open_archive(archive).unwrap();
    let mut restore = archive.restore_vm().unwrap();
    let reader = restore.open_volume(&device.parse().unwrap()).unwrap();
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    restore.finish().unwrap();
    bytes
}

/// A QEMU process, ended with the test.
struct Process(Child);

impl Process {
    fn start(name: &str, args: &[String], socket: &Path) -> Self {
        let child = (Command::new(name).args(args))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self(child);
        let start = Instant::now();
        while UnixStream::connect(socket).is_err() {
            assert!(
                process.0.try_wait().unwrap().is_none(),
                "{name} ended at once"
            );
            assert!(
                start.elapsed() < PATIENCE,
                "{name} has no {}",
                socket.display()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A file system in memory, for as long as it is wanted.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None` if this process may not mount; says so aloud.
    pub(crate) fn tmpfs(test: &str, at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!("SKIP: {test}: needs mount");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}

/// The test's own monitor.
struct Monitor {
    reader: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Self {
            reader: BufReader::new(stream),
        };
        monitor.execute("qmp_capabilities", &json!({}));
        monitor
    }

    /// In one piece: QEMU ends before the end of the line is sent, and then the connection is broken.
    fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.reader.get_mut().write_all(line.as_bytes()).unwrap();
    }

    /// Asks QEMU to end, which it may do before it answers: then the connection is closed, or reset.
    fn quit(mut self) {
        self.send(&json!({"execute": "quit"}));
        std::io::copy(&mut self.reader, &mut std::io::sink()).ok();
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let reply = self.attempt(command, arguments);
        reply.unwrap_or_else(|message| panic!("{command}: {message}"))
    }

    /// As `execute`, and what QEMU says if it refuses.
    fn attempt(&mut self, command: &str, arguments: &Value) -> std::result::Result<Value, String> {
        self.send(&json!({"execute": command, "arguments": arguments}));
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                return Err(error.to_string());
            }
        }
    }
}

/// Through what the guest writes.
enum Way {
    /// An export of the storage daemon.
    Export(Client),
    /// The emulated device.
    Device,
}

/// A QEMU with one disk, the guest behind it, and what that guest wrote.
pub(crate) struct Guest {
    process: Option<Process>,
    monitor: Option<Monitor>,
    way: Option<Way>,
    pub(crate) folder: TempDir,
    pub(crate) image: PathBuf,
    format: &'static str,
    system: bool,
    /// The arguments that give an emulated machine the device with the disk.
    pub(crate) device: Vec<String>,
    /// More options of a storage daemon's export.
    pub(crate) export: &'static str,
    /// More arguments for QEMU's next start.
    pub(crate) more: Vec<String>,
    /// The disk as it must be.
    pub(crate) model: Vec<u8>,
}

pub(crate) const DEVICE: &str = "disk0";

impl Guest {
    /// A guest of a storage daemon, or of an emulated machine, with a disk that has some data.
    pub(crate) fn new(system: bool, format: &'static str) -> Self {
        let folder = TempDir::new().unwrap();
        let image = folder.path().join("image");
        let path = image.to_str().unwrap();
        run(
            "qemu-img",
            &["create", "-q", "-f", format, path, &SIZE.to_string()],
        );
        let mut guest = Self {
            process: None,
            monitor: None,
            way: None,
            folder,
            image,
            format,
            system,
            device: vec![
                "-device".to_owned(),
                format!("virtio-blk-pci,id={DEVICE},drive=d0"),
            ],
            export: "",
            more: Vec::new(),
            model: vec![0; at(SIZE)],
        };
        guest.start();
        guest.write(0, 3 * MIB, 1);
        guest.write(9 * MIB + 77 * KIB, 2 * MIB, 2);
        guest.write(SIZE - 512, 512, 3);
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The monitor that is for backups.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("backup.qmp")
    }

    /// Starts QEMU, for the first time or again.
    pub(crate) fn start(&mut self) {
        let node = json!({
            "driver": self.format, "node-name": "d0", "discard": "unmap",
            "file": {"driver": "file", "filename": self.image, "discard": "unmap"},
        });
        let (mine, backups) = (self.path("test.qmp"), self.socket());
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[String]| args.extend_from_slice(words);
        if self.system {
            let qmp = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
            add(&["-nodefaults", "-no-user-config", "-display", "none"].map(str::to_owned));
            add(&["-machine", "pc", "-accel", "tcg", "-m", "32"].map(str::to_owned));
            add(&[
                "-qmp".to_owned(),
                qmp(&mine),
                "-qmp".to_owned(),
                qmp(&backups),
            ]);
            add(&["-blockdev".to_owned(), node.to_string()]);
            add(&self.device);
            add(&self.more);
            self.process = Some(Process::start("qemu-system-x86_64", &args, &backups));
            self.monitor = Some(Monitor::connect(&mine));
            self.way = Some(Way::Device);
        } else {
            let nbd = self.path("nbd");
            let chardev = |id: &str, path: &Path| {
                let path = path.display();
                [
                    "--chardev".to_owned(),
                    format!("socket,id={id},path={path},server=on,wait=off"),
                    "--monitor".to_owned(),
                    format!("chardev={id},mode=control"),
                ]
            };
            add(&chardev("m0", &mine));
            add(&chardev("m1", &backups));
            add(&["--blockdev".to_owned(), node.to_string()]);
            let top =
                json!({"driver": "raw", "node-name": "top", "file": "d0", "discard": "unmap"});
            add(&["--blockdev".to_owned(), top.to_string()]);
            let server = format!("addr.type=unix,addr.path={}", nbd.display());
            add(&["--nbd-server".to_owned(), server]);
            add(&self.more);
            let export = format!(
                "nbd,id={DEVICE},node-name=top,name=guest,writable=on{}",
                self.export
            );
            add(&["--export".to_owned(), export]);
            self.process = Some(Process::start("qemu-storage-daemon", &args, &backups));
            // It answers when everything else is there.
            self.monitor = Some(Monitor::connect(&mine));
            self.way = Some(Way::Export(self.client()));
        }
    }

    /// Another way to the disk behind a storage daemon.
    pub(crate) fn client(&self) -> Client {
        let options = ClientOptions {
            export: "guest".to_owned(),
            connections: 1,
            ..ClientOptions::default()
        };
        Client::connect(&Address::Unix(self.path("nbd")), &options).unwrap()
    }

    /// Ends QEMU in good order.
    pub(crate) fn quit(&mut self) {
        self.way = None;
        self.monitor.take().unwrap().quit();
        let mut process = self.process.take().unwrap();
        assert!(process.0.wait().unwrap().success());
    }

    /// Ends QEMU in none.
    pub(crate) fn kill(&mut self) {
        (self.way, self.monitor, self.process) = (None, None, None);
    }

    /// QEMU's process.
    pub(crate) fn process(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    /// Sends QEMU a signal, now and whenever it is asked to.
    pub(crate) fn signaller(&self) -> impl Fn(Signal) + Send + Sync + 'static {
        let pid = Pid::from_child(&self.process.as_ref().unwrap().0);
        move |signal| kill_process(pid, signal).unwrap()
    }

    /// Connects as a backup does.
    pub(crate) fn connect(&self) -> Qemu {
        let qemu = Qemu::connect(&self.socket(), Arc::new(SystemClock::new())).unwrap();
        if self.system {
            qemu
        } else {
            qemu.with_nbd_server(&self.path("nbd"))
        }
    }

    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        self.monitor.as_mut().unwrap().execute(command, arguments)
    }

    pub(crate) fn attempt(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> std::result::Result<Value, String> {
        self.monitor.as_mut().unwrap().attempt(command, arguments)
    }

    /// The node on top of the guest's disk.
    pub(crate) fn root(&mut self) -> String {
        let node = if self.system {
            let reply = self.execute("query-block", &json!({}));
            reply[0]["inserted"]["node-name"].clone()
        } else {
            let reply = self.execute("query-block-exports", &json!({}));
            let mut exports = reply.as_array().unwrap().iter();
            exports.find(|export| export["id"] == DEVICE).unwrap()["node-name"].clone()
        };
        node.as_str().unwrap().to_owned()
    }

    /// The guest fills a part of its disk.
    pub(crate) fn write(&mut self, offset: u64, length: u64, byte: u8) {
        self.model[at(offset)..at(offset + length)].fill(byte);
        match self.way.as_ref().unwrap() {
            Way::Export(client) => client.write_at(offset, &vec![byte; at(length)]).unwrap(),
            Way::Device => {
                let path = format!("/machine/peripheral/{DEVICE}/virtio-backend");
                let line = format!("qemu-io -d {path} \"write -P {byte} {offset} {length}\"");
                let said = self.execute("human-monitor-command", &json!({"command-line": line}));
                assert_eq!(said, "", "{line}");
            }
        }
    }

    /// The guest asks for what it wrote to be durable.
    pub(crate) fn flush(&mut self) {
        match self.way.as_ref().unwrap() {
            Way::Export(client) => client.flush().unwrap(),
            Way::Device => {
                let path = format!("/machine/peripheral/{DEVICE}/virtio-backend");
                let line = format!("qemu-io -d {path} flush");
                self.execute("human-monitor-command", &json!({"command-line": line}));
            }
        }
    }

    /// Folders of backups, running or killed.
    pub(crate) fn folders(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| name.starts_with("snapkeep-run-"))
            .count()
    }

    /// What QEMU has of ours: nodes, exports and bitmaps.
    pub(crate) fn ours(&mut self) -> Vec<String> {
        let nodes = self.execute("query-named-block-nodes", &json!({}));
        let exports = self.execute("query-block-exports", &json!({}));
        let nodes = nodes.as_array().unwrap();
        let bitmaps = nodes
            .iter()
            .filter_map(|node| node["dirty-bitmaps"].as_array());
        let names = (bitmaps.flatten().map(|bitmap| &bitmap["name"]))
            .chain(nodes.iter().map(|node| &node["node-name"]))
            .chain(
                exports
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|export| &export["id"]),
            );
        let mut names: Vec<String> = names
            .filter_map(Value::as_str)
            .filter(|name| name.starts_with("snapkeep-"))
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }
}

pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}
