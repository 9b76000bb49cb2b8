//! What the configuration says of a guest holds for a container, too.

use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use crate::Lab;
use crate::support::{Running, json, program, text};

const KEYS: &str = "bandwidth-limit = '1GiB'
[guests.web]
guest-config = 'etc/web.conf'
firewall-config = 'etc/web.fw'
[guests.slow]
bandwidth-limit = '1KiB'
";

fn lab() -> Lab {
    let lab = Lab::new(
        "mkdir etc tree; echo of-file > etc/web.conf; echo firewall > etc/web.fw; echo of-flag > flag.conf
         head -c 1000000 /dev/urandom > tree/random",
    );
    fs::write(lab.path("c.toml"), KEYS).unwrap();
    lab
}

const BACKUP: &[&str] = &[
    "--config",
    "c.toml",
    "backup",
    "container",
    "--directory",
    "tree",
];

#[test]
fn the_files_that_are_configured_for_a_guest_are_kept_with_its_archive() {
    let lab = lab();
    let back_up = |guest, more: &[&str]| {
        json(lab.folder(), &[BACKUP, &["--guest", guest], more].concat());
        let shown = json(lab.folder(), &["show", guest]);
        let config = text(lab.folder(), &["show", guest, "--guest-config"]);
        (config, shown["firewall_config_bytes"].as_u64())
    };
    assert_eq!(back_up("web", &[]), ("of-file\n".to_owned(), Some(9)));
    let flag = ["--guest-config", "flag.conf"];
    assert_eq!(back_up("web", &flag), ("of-flag\n".to_owned(), Some(9)));
    let flag = ["--firewall-config", "flag.conf"];
    assert_eq!(back_up("web", &flag), ("of-file\n".to_owned(), Some(8)));
    assert_eq!(back_up("other", &[]), (String::new(), None));
}

#[test]
fn the_bandwidth_that_is_configured_for_a_guest_limits_its_backup() {
    let lab = lab();
    let start = |more: &[&str]| {
        let mut command = program(lab.folder(), &[BACKUP, more].concat());
        Running::of(command.stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let mut slow = start(&["--guest", "slow"]);
    // One without that limit begins later, and has ended.
    assert_eq!(start(&["--guest", "web"]).ended(), Some(0));
    assert!(slow.runs());
    slow.signal(Signal::TERM);
    assert_eq!(slow.ended(), Some(4));
    let flag = ["--guest", "slow", "--bandwidth-limit", "1GiB"];
    assert_eq!(start(&flag).ended(), Some(0));
}
