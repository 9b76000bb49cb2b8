//! A QEMU that gave up root's rights after it had opened its monitor.

mod qemu;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use qemu::{DEVICE, Guest, Log, MIB, back_up, provider, request, restored, tool};

#[test]
fn a_qemu_that_became_another_user_is_backed_up() {
    let test = "a_qemu_that_became_another_user_is_backed_up";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: {test}: needs root");
        return;
    }
    let mut guest = Guest::new(true, "raw");
    guest.quit();
    guest.more = ["-run-with", "user=nobody"].map(str::to_owned).to_vec();
    guest.start();
    let folder = guest.folder.path().to_owned();
    // As /var/tmp: everybody may go through it, and nobody's folder is another's.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
    let log = Log::default();
    let provider = provider(&log);
    for number in 1..3 {
        guest.write(4 * MIB, 100, number);
        let mut qemu = guest.connect();
        let finished = back_up(&mut qemu, &provider, request(&folder), &log, None).unwrap();
        assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
        assert!(finished.left.is_none(), "{}", log.text());
        assert_eq!(guest.folders(), 0);
    }
}
