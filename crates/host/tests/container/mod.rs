//! Real containers of LXC, a provider that only pulls, and a tree whose reading is the test's.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::exit,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

use std::fs::{self, Permissions};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snapkeep_api::tree::{Content, Found, Judgement, KnownTree, Name, Step, TreeSource};
use snapkeep_api::{
    ArchiveName, BackupJob, BackupStats, Cancel, ContainerBackup, ContainerSource, Error,
    ErrorKind, GuestId, Level, Outcome, Result, TaskLog, UnixTime, VmBackup,
};
use snapkeep_host::container::limits::Timeouts;
use snapkeep_host::container::{
    Container, ContainerRequest, FinishedContainer, GuardProgram, Lxc, Mode, Safety,
    back_up_container,
};
use tempfile::TempDir;

mod btrfs;
mod image;
pub(crate) mod killed;

use btrfs::Btrfs;
use image::Image;

/// Longer than anything takes; only a test that fails waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The first user of the machine that is one of the container's.
const FIRST: u32 = 100_000;

/// The container's first process: counts, and ends when LXC asks it to, unless it is deaf.
const INIT: &str = "#!/bin/sh
trap 'test -e /tmp/deaf || exit 0' PWR TERM INT
n=0
while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; test -e /tmp/die && rm -f /tmp/die && exit 0; done
";

/// The programs of LXC that a backup runs; a test can hold each of them.
const PROGRAMS: [&str; 5] = [
    "lxc-info",
    "lxc-freeze",
    "lxc-unfreeze",
    "lxc-stop",
    "lxc-start",
];

/// Whether everything is there; says aloud that the test is skipped if it is not.
pub(crate) fn can_run(test: &str, more: &[&str]) -> bool {
    let mut missing: Vec<&str> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root");
    }
    for name in PROGRAMS.iter().chain(&["busybox"]).chain(more) {
        if real_program(name).is_none() {
            missing.push(name);
        }
    }
    let Some(first) = missing.first() else {
        return true;
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} needs {first}");
    eprintln!("SKIP: {test}: needs {first}");
    false
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

/// A folder with one container, `web`, that runs, and the state of its backups.
pub(crate) struct Lab {
    /// Where the container is, if that is a Btrfs.
    btrfs: Option<Btrfs>,
    /// Where its root file system is, if that is in a disk image.
    image: Option<Image>,
    /// `None`: another process owns it.
    owned: Option<TempDir>,
    folder: PathBuf,
    lxc: Lxc,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let owned = TempDir::new().unwrap();
        Self::at(owned.path()).make(owned)
    }

    /// On a Btrfs: the root file system is a subvolume, or a folder of a subvolume.
    pub(crate) fn on_btrfs(is_subvolume: bool) -> Self {
        let owned = TempDir::new().unwrap();
        let mut lab = Self::at(owned.path());
        let btrfs = Btrfs::new(owned.path(), "lxc");
        if is_subvolume {
            btrfs.subvolume("web/rootfs");
        }
        lab.btrfs = Some(btrfs);
        lab.make(owned)
    }

    /// In a disk image on another file system: the root file system is all of it, or a folder there.
    pub(crate) fn in_image(outer: &str, inner: &str, is_all: bool) -> Self {
        let owned = TempDir::new().unwrap();
        let mut lab = Self::at(owned.path());
        fs::set_permissions(&lab.folder, Permissions::from_mode(0o755)).unwrap();
        let at = if is_all {
            lab.rootfs()
        } else {
            lab.lxc.path.clone()
        };
        lab.image = Some(Image::new(owned.path(), outer, inner, at));
        lab.make(owned)
    }

    pub(crate) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    pub(crate) fn btrfs(&self) -> Option<&Btrfs> {
        self.btrfs.as_ref()
    }

    /// One that another process of the test has made.
    pub(crate) fn at(folder: &Path) -> Self {
        let lxc = Lxc::new(&folder.join("lxc"), "web", Some(&folder.join("bin"))).unwrap();
        Self {
            btrfs: None,
            image: None,
            owned: None,
            folder: folder.to_owned(),
            lxc,
        }
    }

    /// Another container beside it, which is killed together with it.
    pub(crate) fn other(&self, name: &str) -> Self {
        let mut other = self.again();
        name.clone_into(&mut other.lxc.name);
        other
    }

    /// The same, for another thread.
    pub(crate) fn again(&self) -> Self {
        Self::at(&self.folder)
    }

    fn make(mut self, owned: TempDir) -> Self {
        self.owned = Some(owned);
        // The container's root has to reach it.
        fs::set_permissions(&self.folder, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(self.lxc.folder()).unwrap();
        fill(&self.rootfs());
        self.configure("");
        self.make_programs();
        self
    }

    pub(crate) fn configure(&self, more: &str) {
        let text = format!(
            "lxc.rootfs.path = dir:{}\nlxc.uts.name = web\nlxc.net.0.type = empty\n\
             lxc.idmap = u 0 {FIRST} 65536\nlxc.idmap = g 0 {FIRST} 65536\n{more}",
            self.rootfs().display()
        );
        fs::write(self.lxc.config(), text).unwrap();
    }

    /// Each program is a script that first looks whether it is to stand still, or to be killed just
    /// before it writes to the control group, which comes after LXC's two writes of the configuration.
    fn make_programs(&self) {
        let bin = self.folder.join("bin");
        fs::create_dir(&bin).unwrap();
        for name in PROGRAMS
            .iter()
            .chain(&["btrfs", "fsfreeze", "mount", "umount"])
        {
            // Its helpers for users' own ID maps are not needed by root, and do not work everywhere.
            let path = if *name == "lxc-start" {
                "env PATH=/nowhere"
            } else {
                ""
            };
            // These do several things.
            let key = match *name {
                "btrfs" => "btrfs-$2",
                "fsfreeze" => "fsfreeze$1",
                name => name,
            };
            let script = format!(
                "#!/bin/sh\n\
                 key={key}\n\
                 hold() {{\n\
                 test -e {here}/hold-$1-$key || return\n\
                 touch {here}/holding\n\
                 while test -e {here}/hold-$1-$key; do sleep 0.05; done\n\
                 }}\n\
                 test -e {here}/fail-$key && {{ touch {here}/failed-$key; echo it is to fail >&2; exit 9; }}\n\
                 hold before\n\
                 if rm {here}/die-$key 2>/dev/null\n\
                 then strace -qq -o /dev/null -e inject=write:signal=KILL:when=3 {real} \"$@\"\n\
                 else {path} {real} \"$@\"\n\
                 fi\n\
                 ended=$?\nhold after\nexit $ended\n",
                here = self.folder.display(),
                real = real_program(name).unwrap_or_default().display()
            );
            let file = bin.join(name);
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.lxc.folder().join("rootfs")
    }

    pub(crate) fn lxc(&self) -> &Lxc {
        &self.lxc
    }

    /// Makes or removes one of the files that the programs and the container look at.
    pub(crate) fn flag(&self, name: &str, there: bool) {
        let path = match name {
            "deaf" | "die" => self.rootfs().join("tmp").join(name),
            name => self.folder.join(name),
        };
        if there {
            fs::write(path, "").unwrap();
        } else if let Err(e) = fs::remove_file(path) {
            assert_eq!(e.kind(), IoKind::NotFound);
        }
    }

    pub(crate) fn has_flag(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Runs one of LXC's programs, whatever is to be held.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let path = &self.lxc.path;
        let output = Command::new("env")
            .args(if program == "lxc-start" {
                &["PATH=/nowhere"][..]
            } else {
                &[]
            })
            .arg(real_program(program).unwrap())
            .arg("-P")
            .arg(path)
            .args(["-n", &self.lxc.name])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn start(&self) {
        self.run("lxc-start", &["-d"]);
        self.wait_for("RUNNING");
    }

    pub(crate) fn start_if_stopped(&self) {
        if self.state() == "STOPPED" {
            self.start();
        }
    }

    pub(crate) fn state(&self) -> String {
        self.run("lxc-info", &["-s", "-H"])
    }

    pub(crate) fn process(&self) -> String {
        self.run("lxc-info", &["-p", "-H"])
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, state: &str) {
        wait_until(state, || self.state() == state);
    }

    /// The file by which the kernel freezes the container, and its word for that.
    pub(crate) fn freezer(&self) -> (PathBuf, &'static str) {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.process())).unwrap();
        let find = |what: &str| {
            let line = groups.lines().find(|line| line.contains(what))?;
            line.split(':').nth(2).map(str::to_owned)
        };
        if let Some(group) = find(":freezer:") {
            let file = format!("/sys/fs/cgroup/freezer{group}/freezer.state");
            return (file.into(), "FROZEN");
        }
        let file = format!("/sys/fs/cgroup{}/cgroup.freeze", find("0::").unwrap());
        (file.into(), "1")
    }

    /// How far the container has counted.
    pub(crate) fn count(&self) -> String {
        fs::read_to_string(self.rootfs().join("tmp/count")).unwrap_or_default()
    }

    /// Waits until the container does something.
    #[track_caller]
    pub(crate) fn wait_until_it_works(&self) {
        let before = self.count();
        wait_until("the container counts", || {
            let now = self.count();
            !now.is_empty() && now != before
        });
    }

    /// Whether this is a snapshot of the container, which goes on, at one instant.
    #[track_caller]
    pub(crate) fn assert_is_snapshot(&self, root: &Path) {
        assert_ne!(root, self.rootfs());
        assert_eq!(self.state(), "RUNNING");
        let count = fs::read_to_string(root.join("tmp/count")).unwrap();
        for _ in 0..3 {
            self.wait_until_it_works();
        }
        assert_eq!(fs::read_to_string(root.join("tmp/count")).unwrap(), count);
        assert!(fs::write(root.join("tmp/count"), "").is_err());
    }

    pub(crate) fn journals(&self) -> usize {
        let state = fs::read_dir(self.folder.join("state"));
        let names = state
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".journal"))
            .count()
    }

    pub(crate) fn request(&self, mode: Mode) -> ContainerRequest {
        ContainerRequest {
            guest: "web".parse().unwrap(),
            container: Container::Lxc(self.lxc.clone()),
            mode,
            snapshot_hook: None,
            firewall_config: None,
            bandwidth_limit: None,
            guest_config: None,
            safety: self.safety(),
        }
    }

    fn timeouts(&self) -> Timeouts {
        let mut times = Timeouts::default();
        if self.has_flag("impatient") {
            let short = Duration::from_secs(5);
            (times.program, times.start, times.stop, times.hook) = (short, short, short, short);
        }
        times
    }

    pub(crate) fn safety(&self) -> Safety {
        Safety {
            state_folder: self.folder.join("state"),
            guard: GuardProgram {
                program: std::env::current_exe().unwrap(),
                arguments: ["--exact", "the_guard", "--nocapture"]
                    .map(Into::into)
                    .into(),
            },
            timeouts: self.timeouts(),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned.is_some() {
            for entry in fs::read_dir(&self.folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.starts_with("hold-") {
                    self.flag(&name, false);
                }
            }
            if let Some(image) = &self.image {
                image.let_go_on();
            }
            for name in fs::read_dir(&self.lxc.path).into_iter().flatten().flatten() {
                self.lxc.name = name.file_name().into_string().unwrap();
                self.run("lxc-unfreeze", &[]);
                self.run("lxc-stop", &["-k"]);
            }
        }
    }
}

fn real_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(name));
    all.find(|path| path.exists())
}

/// Makes a root file system of nothing but busybox.
pub(crate) fn fill(rootfs: &Path) {
    for name in ["bin", "dev", "proc", "sys", "tmp", "sbin", "etc"] {
        fs::create_dir_all(rootfs.join(name)).unwrap();
    }
    fs::copy(real_program("busybox").unwrap(), rootfs.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "test", "rm"] {
        symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
    fs::write(rootfs.join("sbin/init"), INIT).unwrap();
    fs::set_permissions(rootfs.join("sbin/init"), Permissions::from_mode(0o755)).unwrap();
    let owner = format!("{FIRST}:{FIRST}");
    run("chown", &["-hR", &owner, rootfs.to_str().unwrap()]);
}

pub(crate) fn run(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).output().unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

type During = Arc<Mutex<dyn FnMut(&Path) -> Result<()> + Send>>;
type Commit = Arc<Mutex<dyn FnMut() -> Result<()> + Send>>;

/// A job that pulls the tree, then does something before it commits.
struct Job {
    commit: Commit,
    /// How the backup ended.
    ended: Arc<Mutex<Option<Outcome>>>,
}

struct Backup {
    name: ArchiveName,
    commit: Commit,
    ended: Arc<Mutex<Option<Outcome>>>,
}

struct Nothing;

impl KnownTree for Nothing {
    fn judge(&mut self, _name: &Name, _found: &Found) -> Result<Judgement> {
        Ok(Judgement::Read)
    }
}

impl ContainerBackup for Backup {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        while container.tree.next(&mut Nothing)?.is_some() {}
        (self.commit.lock().unwrap())()?;
        Ok(BackupStats::default())
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        *self.ended.lock().unwrap() = Some(outcome.clone());
        Ok(())
    }
}

impl BackupJob for Job {
    fn start_vm(&mut self, _guest: &GuestId, _time: UnixTime) -> Result<Box<dyn VmBackup>> {
        Err(Error::new(ErrorKind::Unsupported, "containers only"))
    }

    fn start_container(&mut self, _: &GuestId, _: UnixTime) -> Result<Box<dyn ContainerBackup>> {
        Ok(Box::new(Backup {
            name: "main/ct/web/1".parse().unwrap(),
            commit: Arc::clone(&self.commit),
            ended: Arc::clone(&self.ended),
        }))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

/// A tree of one step.
struct Tree {
    root: PathBuf,
    during: During,
    over: bool,
}

impl TreeSource for Tree {
    fn next(&mut self, _known: &mut dyn KnownTree) -> Result<Option<Step>> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(None);
        }
        (self.during.lock().unwrap())(&self.root)?;
        Ok(Some(Step::Leave))
    }

    fn read(&mut self, _buffer: &mut [u8]) -> Result<Content> {
        Ok(Content::End { changed: None })
    }
}

/// Backs up; `during` is called while the tree is read, `commit` before the archive is committed.
pub(crate) fn back_up(
    request: &ContainerRequest,
    log: &Log,
    during: impl FnMut(&Path) -> Result<()> + Send + 'static,
    commit: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<FinishedContainer> {
    back_up_unless(request, log, &Cancel::new(), during, commit)
}

/// The same, and its end may be asked for.
pub(crate) fn back_up_unless(
    request: &ContainerRequest,
    log: &Log,
    cancel: &Cancel,
    during: impl FnMut(&Path) -> Result<()> + Send + 'static,
    commit: impl FnMut() -> Result<()> + Send + 'static,
) -> Result<FinishedContainer> {
    let during: During = Arc::new(Mutex::new(during));
    let ended = Arc::default();
    let mut job = Job {
        commit: Arc::new(Mutex::new(commit)),
        ended: Arc::clone(&ended),
    };
    let done = back_up_container(
        &mut job,
        request,
        UnixTime(0),
        &mut |root, _idmap| {
            Ok(Box::new(Tree {
                root: root.to_owned(),
                during: Arc::clone(&during),
                over: false,
            }))
        },
        log,
        cancel,
    );
    if let Some(outcome) = ended.lock().unwrap().as_ref() {
        assert_eq!(matches!(outcome, Outcome::Success), done.is_ok());
    }
    done
}

#[expect(clippy::unnecessary_wraps, reason = "others fail")]
pub(crate) fn fine() -> Result<()> {
    Ok(())
}

/// What the test `the_guard` does if this process is one.
pub(crate) fn be_guard_if_asked() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let [_, exact, name, _, folder, stem] = arguments.as_slice()
        && exact == "--exact"
        && name == "the_guard"
    {
        let done = snapkeep_host::container::guard([folder.clone(), stem.clone()]);
        if let Err(e) = &done {
            eprintln!("the guard: {}", e.chain());
        }
        // The backup that would read the test's result is dead.
        std::process::exit(done.is_err().into());
    }
}
