//! One running QEMU: what it is, and what it can do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use snapkeep_api::{Clock, Error, ErrorKind, Incarnation, Result};

use crate::limits::Timeouts;
use crate::oldest::OLDEST_MAJOR;
use crate::process;
use crate::qmp::schema::Schema;
use crate::qmp::{Failure, Monitor};

/// The commands without which there is no backup.
const COMMANDS: &[&str] = &[
    "query-named-block-nodes",
    "x-debug-query-block-graph",
    "query-block-exports",
    "query-block-jobs",
    "blockdev-add",
    "blockdev-del",
    "block-export-add",
    "block-export-del",
    "nbd-server-start",
    "nbd-server-stop",
    "transaction",
    "block-dirty-bitmap-add",
    "block-dirty-bitmap-remove",
    "block-dirty-bitmap-merge",
];
/// The block drivers and options without which there is no backup.
const OPTIONS: &[(&str, &str)] = &[
    ("copy-before-write", "on-cbw-error"),
    ("copy-before-write", "cbw-timeout"),
    ("copy-before-write", "bitmap"),
    ("snapshot-access", ""),
    ("raw", ""),
    ("null-co", ""),
];

/// A connection to the monitor of a running QEMU: `qemu-system-*` or `qemu-storage-daemon`.
#[derive(Debug)]
pub struct Qemu {
    pub(crate) monitor: Monitor,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) schema: Schema,
    /// Whether the guest may stand still because of this program.
    pub(crate) paused: bool,
    version: (u64, u64, u64),
    incarnation: Incarnation,
    owner: process::Owner,
    nbd_socket: Option<PathBuf>,
}

impl Qemu {
    /// Connects to a monitor in mode `control` (`-qmp unix:SOCKET,server=on,wait=off`), and asks
    /// the QEMU behind it what it can do. A monitor serves one client at a time, so nothing else
    /// may hold it: give Snapkeep a monitor of its own.
    pub fn connect(socket: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::connect_within(socket, clock, Timeouts::default())
    }

    /// As [`connect`](Self::connect), with other time limits for the monitor.
    pub fn connect_within(
        socket: &Path,
        clock: Arc<dyn Clock>,
        timeouts: Timeouts,
    ) -> Result<Self> {
        let (mut monitor, version) = Monitor::connect(socket, Arc::clone(&clock), timeouts)?;
        let number = |field: &str| version["qemu"][field].as_u64();
        let version = number("major").zip(number("minor")).zip(number("micro"));
        let Some(((major, minor), micro)) = version else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the monitor {} tells no version of QEMU", socket.display()),
            ));
        };
        if major < OLDEST_MAJOR {
            let what = format!(
                "the QEMU at {} is {major}.{minor}.{micro}: before {OLDEST_MAJOR}.0 its NBD server can \
                 end a running guest; update it",
                socket.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let schema = Schema::parse(monitor.execute("query-qmp-schema", json!({}))?)?;
        let missing = |name: String| {
            let what = format!(
                "the QEMU {major}.{minor}.{micro} at {} has no {name}, which a backup needs",
                socket.display()
            );
            Err(Error::new(ErrorKind::Unsupported, what))
        };
        for command in COMMANDS {
            if !schema.has_command(command) {
                return missing(format!("command {command}"));
            }
        }
        for (driver, option) in OPTIONS {
            if !schema.has_option(driver, option) {
                return missing(format!("option {option:?} of the block driver {driver}"));
            }
        }
        let owner = process::owner(monitor.stream());
        let mut qemu = Self {
            monitor,
            clock,
            schema,
            paused: false,
            version: (major, minor, micro),
            incarnation: Incarnation {
                process: owner.incarnation(),
                vmgenid: None,
            },
            owner,
            nbd_socket: None,
        };
        qemu.incarnation.vmgenid = qemu.vmgenid()?;
        Ok(qemu)
    }

    /// Uses the NBD server that this QEMU runs already, at this Unix socket: a QEMU has one at most.
    #[must_use]
    pub fn with_nbd_server(mut self, socket: &Path) -> Self {
        self.nbd_socket = Some(socket.to_owned());
        self
    }

    /// The socket of an NBD server that this program did not start.
    pub(crate) fn nbd_socket(&self) -> Option<&Path> {
        self.nbd_socket.as_deref()
    }

    /// Major, minor and micro version.
    pub fn version(&self) -> (u64, u64, u64) {
        self.version
    }

    /// What tells this life of the guest from another.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// The monitor's socket.
    pub fn socket(&self) -> &Path {
        self.monitor.socket()
    }

    /// User and group of the QEMU process, if they are known.
    pub(crate) fn owner(&self) -> process::Owner {
        self.owner
    }

    /// Whether this is a storage daemon, which has exports but no guest of its own.
    pub(crate) fn is_storage_daemon(&self) -> bool {
        !self.schema.has_command("query-status")
    }

    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        self.monitor.execute(command, arguments)
    }

    /// As [`execute`](Self::execute); `None` if QEMU refused it.
    pub(crate) fn ask(&mut self, command: &str, arguments: Value) -> Result<Option<Value>> {
        match self.monitor.execute(command, arguments) {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(Failure::Unknown(error)) => Err(error),
        }
    }

    /// Connects again, after the monitor broke.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        let timeouts = self.monitor.timeouts();
        let socket = self.monitor.socket().to_owned();
        // A monitor serves one client, and the broken connection may still be that one.
        self.monitor.hang_up();
        let (monitor, _) = Monitor::connect(&socket, Arc::clone(&self.clock), timeouts)?;
        self.monitor = monitor;
        Ok(())
    }

    fn vmgenid(&mut self) -> Result<Option<[u8; 16]>> {
        if !self.schema.has_command("query-vm-generation-id") {
            return Ok(None);
        }
        let reply = self.ask("query-vm-generation-id", json!({}))?;
        let text = reply.as_ref().and_then(|reply| reply["guid"].as_str());
        Ok(text.and_then(parse_guid))
    }
}

/// The generation ID in the form of RFC 9562; zero is none.
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (number != 0).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_id_is_read_and_zero_is_none() {
        let id = parse_guid("324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87").expect("valid");
        assert_eq!((id[0], id[15]), (0x32, 0x87));
        for bad in [
            "00000000-0000-0000-0000-000000000000",
            "",
            "324e6eaf",
            "+24e6eafd1d14bf6bf41b9bb6c91fb87",
        ] {
            assert_eq!(parse_guid(bad), None, "{bad}");
        }
    }
}
