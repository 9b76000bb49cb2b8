//! The other end: what the Perl packages do.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, BackupStats, BitmapRequest, Cancel, ContainerBackup,
    ContainerSource, DeviceName, Error, ErrorKind, GuestId, Incarnation, Level, Outcome, Provider,
    Result, TaskLog, TaskLogFile, UnixTime, VmBackup, VmMechanism, VmSource, VolumeInfo,
};
use snapkeep_bridge::{Backend, ContainerMechanism, Hello, StorageCall, serve};

/// Ends a hang, and nothing else.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a provider was asked, in order.
pub(crate) type Events = Arc<Mutex<Vec<String>>>;

/// The archives are named `memory/vm/100/TIME-N`, and shown with `~` for `/`.
pub(crate) struct Memory {
    pub(crate) provider: MemoryProvider,
    pub(crate) mechanism: ContainerMechanism,
    pub(crate) run_folder: PathBuf,
    pub(crate) events: Events,
    /// What a backup waits for, and whether it was cancelled.
    pub(crate) stalls: bool,
}

impl Memory {
    pub(crate) fn new(mechanism: VmMechanism) -> Self {
        Self {
            provider: MemoryProvider::new(mechanism),
            mechanism: ContainerMechanism::Directory,
            run_folder: "/nonexistent".into(),
            events: Events::default(),
            stalls: false,
        }
    }
}

impl Backend for Memory {
    fn program(&self) -> String {
        "snapkeep test".to_owned()
    }

    fn greet(&self, hello: &Hello) -> Result<()> {
        if hello.settings["bad"].is_null() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            "these settings cannot be used",
        ))
    }

    fn provider(&self, log: Arc<dyn TaskLog>, cancel: Cancel) -> Result<Box<dyn Provider>> {
        self.events.lock().unwrap().push("provider".to_owned());
        Ok(Box::new(Told {
            inner: self.provider.clone(),
            log,
            cancel,
            events: Arc::clone(&self.events),
            stalls: self.stalls,
        }))
    }

    fn shown_name(&self, name: &ArchiveName) -> Result<String> {
        Ok(name.as_str().replace('/', ":"))
    }

    fn archive_name(&self, shown: &str) -> Result<ArchiveName> {
        shown.replace(':', "/").parse()
    }

    fn storage(&self, call: StorageCall, _: Arc<dyn TaskLog>, _: Cancel) -> Result<Value> {
        match call {
            StorageCall::Free { .. } => panic!("at the disco\nwith words"),
            other => Ok(json!(format!("{other:?}"))),
        }
    }

    fn container_restore(&self) -> ContainerMechanism {
        self.mechanism
    }

    fn run_folder(&self) -> PathBuf {
        self.run_folder.clone()
    }
}

/// Notes what it is asked.
struct Told<T> {
    inner: T,
    log: Arc<dyn TaskLog>,
    cancel: Cancel,
    events: Events,
    stalls: bool,
}

impl<T> Told<T> {
    fn told<U>(&self, inner: U) -> Told<U> {
        Told {
            inner,
            log: Arc::clone(&self.log),
            cancel: self.cancel.clone(),
            events: Arc::clone(&self.events),
            stalls: self.stalls,
        }
    }

    fn event(&self, what: String) {
        self.events.lock().unwrap().push(what);
    }
}

impl Provider for Told<MemoryProvider> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn start_job(&self, start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        self.event("job".to_owned());
        Ok(Box::new(self.told(self.inner.start_job(start_time)?)))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        self.inner.open_archive(name)
    }
}

impl BackupJob for Told<Box<dyn BackupJob>> {
    fn start_vm(&mut self, guest: &GuestId, time: UnixTime) -> Result<Box<dyn VmBackup>> {
        self.event(format!("start {guest}"));
        if self.cancel.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "nothing new is begun"));
        }
        let inner = self.inner.start_vm(guest, time)?;
        Ok(Box::new(self.told(inner)))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        self.event(format!("start {guest}"));
        let inner = self.inner.start_container(guest, time)?;
        Ok(Box::new(self.told(inner)))
    }

    fn keep_task_log(&mut self, log: &TaskLogFile<'_>) -> Result<()> {
        let archive = log.archive.map_or("none".to_owned(), ToString::to_string);
        self.event(format!("log {} {archive}", log.guest));
        if log.path.ends_with("absent") {
            return Err(Error::new(ErrorKind::NotFound, "there is no such log"));
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.event(format!("job end {outcome:?}"));
        self.inner.finish(outcome)
    }
}

impl VmBackup for Told<Box<dyn VmBackup>> {
    fn archive_name(&self) -> &ArchiveName {
        self.inner.archive_name()
    }

    fn mechanism(&self) -> VmMechanism {
        self.inner.mechanism()
    }

    fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        volumes: &std::collections::BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<std::collections::BTreeMap<DeviceName, BitmapRequest>> {
        // The first volume's bitmap is believed, the second's made anew, others have none.
        for (device, info) in volumes {
            let names: Vec<_> = info.bitmaps.iter().map(|b| b.name.as_str()).collect();
            self.event(format!("{device} {} {}", info.size, names.join(",")));
        }
        self.inner.choose_bitmaps(incarnation, volumes)?;
        let requests = volumes.iter().take(2).enumerate();
        let requests = requests.map(|(at, (device, info))| {
            let request = if at == 0 {
                BitmapRequest::Use(info.bitmaps[0].name.clone())
            } else {
                BitmapRequest::New
            };
            (device.clone(), request)
        });
        Ok(requests.collect())
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        let config = String::from_utf8_lossy(&vm.guest_config).into_owned();
        self.event(format!("run {config} {:?}", vm.bandwidth_limit));
        for line in config.lines().take_while(|_| config.starts_with("log")) {
            self.log.log(Level::Info, line);
        }
        assert!(!config.starts_with("panic"), "as the configuration says");
        if self.stalls {
            self.log.log(Level::Warn, "it stalls");
            while !self.cancel.is_cancelled() {
                thread::park_timeout(Duration::from_millis(10));
            }
            return Err(Error::new(ErrorKind::Cancelled, "it was cancelled"));
        }
        self.inner.run(vm)
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.event(format!("end {outcome:?}"));
        self.inner.finish(outcome)
    }
}

impl ContainerBackup for Told<Box<dyn ContainerBackup>> {
    fn archive_name(&self) -> &ArchiveName {
        self.inner.archive_name()
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        let map = container
            .id_map
            .map_or("none".to_owned(), ToString::to_string);
        self.event(format!("walk {map}"));
        self.inner.run(container)
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.event(format!("end {outcome:?}"));
        self.inner.finish(outcome)
    }
}

/// The other end of a bridge that runs.
pub(crate) struct Peer {
    pub(crate) socket: UnixStream,
    reader: BufReader<UnixStream>,
    serving: Option<JoinHandle<Result<()>>>,
    next: u32,
    /// What was logged during the last call.
    pub(crate) logged: Vec<String>,
    pub(crate) events: Events,
}

impl Peer {
    pub(crate) fn new(backend: Memory) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let events = Arc::clone(&backend.events);
        let serving = thread::spawn(move || serve(theirs, Arc::new(backend)));
        Self {
            reader: BufReader::new(socket.try_clone().unwrap()),
            socket,
            serving: Some(serving),
            next: 0,
            logged: Vec::new(),
            events,
        }
    }

    /// One that has said hello.
    pub(crate) fn greeted(backend: Memory) -> Self {
        let mut peer = Self::new(backend);
        let hello = peer.call("hello", Self::hello());
        assert_eq!(
            hello.unwrap(),
            json!({"version": 1, "program": "snapkeep test"})
        );
        peer
    }

    pub(crate) fn hello() -> Value {
        json!({"version": 1, "pid": std::process::id(), "storage": "store", "settings": {"repository": "/r"}})
    }

    /// Its kind and message are an error's.
    pub(crate) fn call(&mut self, call: &str, args: Value) -> Result<Value, (String, String)> {
        let id = self.send(call, args);
        self.answer(&id)
    }

    pub(crate) fn good(&mut self, call: &str, args: Value) -> Value {
        self.call(call, args)
            .unwrap_or_else(|error| panic!("{call}: {error:?}"))
    }

    pub(crate) fn send(&mut self, call: &str, args: Value) -> String {
        self.next += 1;
        let id = format!("{}-{}", std::process::id(), self.next);
        let line = json!({"id": id, "call": call, "args": args});
        self.say(format!("{line}\n").as_bytes());
        id
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next message of any call; `None` at the end.
    pub(crate) fn message(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The answer to a call; those to others are skipped.
    pub(crate) fn answer(&mut self, id: &str) -> Result<Value, (String, String)> {
        self.logged.clear();
        loop {
            let message = self.message().expect("an answer");
            if message["id"] != id {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            if let Some(level) = message["log"].as_str() {
                self.logged
                    .push(format!("{level} {}", text(&message["message"])));
            } else if let Some(error) = message.get("error") {
                return Err((text(&error["kind"]), text(&error["message"])));
            } else {
                return Ok(message["result"].clone());
            }
        }
    }

    /// Goes away; what the provider was asked.
    pub(crate) fn end(mut self) -> Vec<String> {
        self.ended_by_us()
    }

    /// The same, where something else is still wanted of it.
    pub(crate) fn ended_by_us(&mut self) -> Vec<String> {
        self.socket.shutdown(Shutdown::Both).unwrap();
        self.ended()
    }

    /// Waits for its end; what the provider was asked.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let serving = self.serving.take().unwrap();
        serving.join().unwrap().unwrap();
        self.events.lock().unwrap().clone()
    }
}
