//! A real container of LXC that holds nothing but busybox, and a repository.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Disk, are_here, has_rights, init, output, program, sh, wait_until, wait_until_settled,
};

/// The container's first process: sums up its files, then counts in two files, the second after the
/// first, and ends when LXC asks it to.
const INIT: &str = "#!/bin/sh
trap 'exit 0' PWR TERM INT
sha256sum /data/* > /tmp/sums.new && mv /tmp/sums.new /tmp/sums
n=0
while :; do
n=$((n+1))
for file in first second; do echo $n > /srv/new; mv /srv/new /srv/$file; done
sleep 0.02
done
";

/// What all these tests need.
const TOOLS: &[&str] = &["lxc-start", "lxc-stop", "lxc-info", "busybox"];

/// A folder with a container, `web`, that runs, and a repository. All of it ends with the test.
pub(crate) struct Lab {
    disk: Disk,
}

impl Lab {
    /// `None`: something is missing, which was told. Containers are in `lxc`, on what `prepare` made
    /// there.
    pub(crate) fn new(test: &str, more: &[&str], prepare: &str) -> Option<Self> {
        if !are_here(test, TOOLS) || !are_here(test, more) || !has_rights(test) {
            return None;
        }
        let lab = Self { disk: Disk::new() };
        // The container's root has to reach it.
        fs::set_permissions(lab.folder(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(lab.path("lxc")).unwrap();
        sh(lab.folder(), prepare);
        lab.wrap_lxc_start();
        lab.fill();
        init(lab.folder());
        lab.lxc("lxc-start", "web", &["-d"]);
        lab.wait_for_sums("web");
        wait_until_settled();
        Some(lab)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.disk.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.path("lxc").join(name).join("rootfs")
    }

    /// Its helpers for users' own ID maps are not needed by root, and do not work everywhere.
    fn wrap_lxc_start(&self) {
        fs::create_dir(self.path("bin")).unwrap();
        let real = sh(self.folder(), "command -v lxc-start");
        let wrapper = format!("#!/bin/sh\nexec env PATH=/nowhere {} \"$@\"\n", real.trim());
        fs::write(self.path("bin/lxc-start"), wrapper).unwrap();
        fs::set_permissions(self.path("bin/lxc-start"), Permissions::from_mode(0o755)).unwrap();
    }

    fn fill(&self) {
        let rootfs = self.rootfs("web");
        for name in [
            "bin", "dev", "proc", "sys", "tmp", "sbin", "etc", "srv", "data",
        ] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        let busybox = sh(self.folder(), "command -v busybox");
        fs::copy(busybox.trim(), rootfs.join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "mv", "sha256sum"] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        fs::write(rootfs.join("sbin/init"), INIT).unwrap();
        sh(
            &rootfs,
            "chmod 755 sbin/init; for i in 1 2 3 4; do head -c 1000000 /dev/urandom > data/$i; done
             seq 100000 > data/text; chown -hR 100000:100000 .; chown 100033:100033 data/1; chmod 600 data/1",
        );
        let config = format!(
            "lxc.rootfs.path = dir:{}\nlxc.uts.name = web\nlxc.net.0.type = empty\n\
             lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n",
            rootfs.display()
        );
        fs::write(self.path("lxc/web/config"), config).unwrap();
    }

    fn with_programs(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.path("bin");
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display()));
    }

    /// The program, with our `lxc-start`.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = program(self.folder(), args);
        self.with_programs(&mut command);
        command
    }

    /// A backup of `web`.
    pub(crate) fn backup(&self, more: &[&str]) -> Command {
        let backup = ["backup", "container", "--lxc", "web", "--lxc-path", "lxc"];
        self.program(&[&backup[..], more].concat())
    }

    /// Backs `web` up; what the program told.
    #[track_caller]
    pub(crate) fn backed_up(&self, more: &[&str]) -> Value {
        let done = output(&mut self.backup(&[more, &["--json"]].concat()));
        serde_json::from_slice(&done).unwrap()
    }

    /// The names of all archives.
    pub(crate) fn archives(&self) -> Vec<String> {
        let list = output(&mut self.program(&["list", "--json"]));
        let list: Value = serde_json::from_slice(&list).unwrap();
        let archives = list["archives"].as_array().unwrap().iter();
        archives
            .map(|archive| archive["archive"].as_str().unwrap().to_owned())
            .collect()
    }

    /// What a file of an archive holds.
    pub(crate) fn cat(&self, archive: &str, path: &str) -> String {
        let content = output(&mut self.program(&["cat", archive, path]));
        String::from_utf8(content).unwrap()
    }

    /// Runs one of LXC's programs; what it prints.
    pub(crate) fn lxc(&self, program: &str, name: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        if program == "lxc-start" {
            command = Command::new(self.path("bin/lxc-start"));
        }
        command.arg("-P").arg(self.path("lxc")).args(["-n", name]);
        self.with_programs(&mut command);
        let done = command.args(args).output().unwrap();
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub(crate) fn state(&self) -> String {
        self.lxc("lxc-info", "web", &["-s", "-H"])
    }

    /// Waits until `web` runs and counts.
    #[track_caller]
    pub(crate) fn wait_until_it_works(&self) {
        wait_until("RUNNING", || self.state() == "RUNNING");
        let count = || fs::read_to_string(self.rootfs("web").join("srv/second")).ok();
        let before = count();
        wait_until("it counts", || {
            count().is_some_and(|now| Some(now) != before)
        });
    }

    /// What a container found in its files when it started.
    #[track_caller]
    pub(crate) fn wait_for_sums(&self, name: &str) -> String {
        let sums = self.rootfs(name).join("tmp/sums");
        wait_until("sums", || sums.exists());
        fs::read_to_string(sums).unwrap()
    }

    /// How many journals of changes there are that were not taken back.
    pub(crate) fn journals(&self) -> usize {
        let names = fs::read_dir(self.path("state/containers"));
        let names = names.into_iter().flatten().flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".journal"))
            .count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in fs::read_dir(self.path("lxc"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = name.file_name().to_string_lossy().into_owned();
            self.lxc("lxc-unfreeze", &name, &[]);
            self.lxc("lxc-stop", &name, &["-k"]);
        }
    }
}
