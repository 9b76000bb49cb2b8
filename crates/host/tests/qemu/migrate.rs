//! Live migration: another QEMU on the same disk goes on with the guest.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Guest, Monitor, PATIENCE, Process, run};

const SOCKETS: [&str; 2] = ["test.qmp", "backup.qmp"];

/// Where a guest comes from.
struct Source {
    monitor: Monitor,
    process: Process,
}

impl Source {
    /// How its migration is.
    fn status(&mut self) -> Value {
        let status = self.monitor.execute("query-migrate", &json!({}));
        status["status"].clone()
    }

    #[track_caller]
    fn wait_for(&mut self, wanted: &str) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if status == wanted {
                return;
            }
            let ended = status == "failed" || status == "completed";
            let told = self.monitor.execute("query-migrate", &json!({}));
            assert!(!ended && start.elapsed() < PATIENCE, "{wanted}: {told}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Guest {
    /// Migrates the running guest, with its bitmaps.
    pub(crate) fn migrate(&mut self) {
        self.migrate_with(true);
    }

    pub(crate) fn migrate_without_bitmaps(&mut self) {
        self.migrate_with(false);
    }

    fn migrate_with(&mut self, bitmaps: bool) {
        let mut source = self.begin_migration(bitmaps, 1 << 30);
        source.wait_for("completed");
        let start = Instant::now();
        while self.execute("query-status", &json!({}))["status"] != "running" {
            assert!(start.elapsed() < PATIENCE, "it does not run");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // One that ends in good order removes sockets by names that are another's now.
        drop(source);
    }

    /// Begins to migrate the running guest, to a QEMU that is killed: it goes on where it is.
    pub(crate) fn migrate_in_vain(&mut self) {
        let mut source = self.begin_migration(true, 1024);
        source.wait_for("active");
        self.kill();
        source.wait_for("failed");
        for name in SOCKETS {
            self.rename(&format!("{name}.old"), name);
        }
        let Source { monitor, process } = source;
        (self.monitor, self.process) = (Some(monitor), Some(process));
        self.way = Some(super::Way::Device);
        assert_eq!(
            self.execute("query-status", &json!({}))["status"],
            "running"
        );
    }

    fn rename(&self, from: &str, to: &str) {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        run("mv", &["-f", &path(from), &path(to)]);
    }

    /// Starts another QEMU, and sends it the guest, with its bitmaps or not, at so many bytes per
    /// second.
    fn begin_migration(&mut self, bitmaps: bool, speed: u64) -> Source {
        let (monitor, process) = (self.monitor.take().unwrap(), self.process.take().unwrap());
        let mut source = Source { monitor, process };
        for name in SOCKETS {
            self.rename(name, &format!("{name}.old"));
        }
        let own = self.more.len();
        self.more.extend(["-incoming", "defer"].map(str::to_owned));
        self.start();
        self.more.truncate(own);
        let bitmaps = json!({"capabilities": [{"capability": "dirty-bitmaps", "state": bitmaps}]});
        let way = format!("unix:{}", self.path("migration").display());
        self.execute("migrate-set-capabilities", &bitmaps);
        self.execute("migrate-incoming", &json!({"uri": way}));
        let monitor = &mut source.monitor;
        monitor.execute("migrate-set-capabilities", &bitmaps);
        monitor.execute("migrate-set-parameters", &json!({"max-bandwidth": speed}));
        monitor.execute("migrate", &json!({"uri": way}));
        source
    }
}
