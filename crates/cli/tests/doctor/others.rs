//! What other products have is told at most, and never touched.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::doctor;
use crate::guest::Guest;

const HEAL: &[&str] = &["--qmp", "doctor.qmp", "--heal"];

/// Another product's bitmaps, NBD server, export and filter in QEMU, and files beside it.
fn others(guest: &mut Guest) {
    let bitmap = json!({"node": "d0", "name": "snapshot-access:other", "granularity": 65536});
    guest.execute("block-dirty-bitmap-add", &bitmap);
    let address = json!({"type": "unix", "data": {"path": "other.nbd"}});
    guest.execute("nbd-server-start", &json!({"addr": address}));
    let node = json!({"driver": "raw", "node-name": "other", "read-only": true, "file": "d0"});
    guest.execute("blockdev-add", &node);
    let export = json!({"type": "nbd", "id": "other-export", "node-name": "other", "name": "x"});
    guest.execute("block-export-add", &export);
    let folder = guest.folder().join("fleecing");
    fs::write(folder.join("vm-100-fleece-0.raw"), "another's").unwrap();
    fs::create_dir(folder.join("other-run-a")).unwrap();
    fs::create_dir(folder.join("snapkeep")).unwrap();
    // Something that looks like ours and has what none of ours has.
    fs::create_dir(folder.join("snapkeep-run-odd")).unwrap();
    fs::write(folder.join("snapkeep-run-odd/lock"), "").unwrap();
    fs::write(folder.join("snapkeep-run-odd/letter"), "somebody's").unwrap();
}

fn serves(guest: &Guest) -> bool {
    let mut magic = [0; 8];
    let mut stream = UnixStream::connect(guest.folder().join("other.nbd")).unwrap();
    stream.read_exact(&mut magic).unwrap();
    magic == *b"NBDMAGIC"
}

#[test]
fn what_another_product_has_is_untouched() {
    let Some(mut guest) = Guest::start("what_another_product_has_is_untouched") else {
        return;
    };
    others(&mut guest);
    let before = guest.everything();
    let files = {
        let mut files = guest.fleecing();
        files.sort();
        files
    };
    let (code, found) = doctor(guest.folder(), HEAL);
    // The folder that looks like ours could not be looked through.
    assert_eq!((code, found.len()), (Some(9), 2), "{found:?}");
    assert_eq!(found[0]["state"], "foreign");
    assert_eq!(found[0]["owner"]["product"], "unknown");
    assert!(found[0]["what"].as_str().unwrap().contains("other-export"));
    assert_eq!(found[1]["state"], "could not look");
    assert!(found[1]["what"].as_str().unwrap().contains("letter"));
    assert_eq!(guest.everything(), before);
    assert!(serves(&guest));

    // Also beside what a killed backup of ours left, in their NBD server.
    guest.killed(&["--nbd-server", "other.nbd"]);
    let (code, found) = doctor(guest.folder(), HEAL);
    assert_eq!(code, Some(9), "{found:?}");
    assert_eq!(found[0]["finding"], "qemu");
    assert_eq!(found[0]["healed"], true);
    assert_eq!(guest.ours(), [""; 0]);
    // The bitmap of the backup that was killed stays, and is not theirs.
    let of_ours: Vec<_> = guest.bitmaps();
    for name in of_ours.iter().filter(|name| name.starts_with("snapkeep-")) {
        let bitmap = json!({"node": "d0", "name": name});
        guest.execute("block-dirty-bitmap-remove", &bitmap);
    }
    assert_eq!(guest.everything(), before);
    assert!(serves(&guest));
    let mut now = guest.fleecing();
    now.sort();
    assert_eq!(now, files);
    let letter = guest.folder().join("fleecing/snapkeep-run-odd/letter");
    assert_eq!(fs::read(letter).unwrap(), b"somebody's");
    let theirs = guest.folder().join("fleecing/vm-100-fleece-0.raw");
    assert_eq!(fs::read(theirs).unwrap(), b"another's");
}
