//! What a backup of a virtual machine left in its QEMU and beside it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::guest::Guest;
use crate::support::{are_here, has_rights, program};
use crate::{command, doctor, one};

const LOOK: &[&str] = &["--qmp", "doctor.qmp"];
const HEAL: &[&str] = &["--qmp", "doctor.qmp", "--heal"];

#[test]
fn what_a_killed_backup_left_in_qemu_is_healed_and_the_next_backup_is_incremental() {
    let test = "what_a_killed_backup_left_in_qemu_is_healed_and_the_next_backup_is_incremental";
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    let full = guest.backed_up(&[]);
    let bitmaps = guest.bitmaps();
    assert_eq!(bitmaps.len(), 1);
    guest.write("5M", 9);
    guest.killed(&["--full"]);
    let left = guest.everything();

    let (code, found) = doctor(guest.folder(), LOOK);
    let finding = one(&found);
    assert_eq!(code, Some(9), "{finding}");
    assert_eq!(finding["finding"], "qemu");
    assert_eq!(finding["state"], "stale");
    assert_eq!(finding["where"], "doctor.qmp");
    assert_eq!(finding["owner"]["product"], "snapkeep");
    assert_eq!(finding["healed"], serde_json::Value::Null);
    let what = finding["what"].as_str().unwrap();
    assert!(what.contains("1 exports, its NBD server"), "{what}");
    // Looking has changed nothing.
    assert_eq!(guest.everything(), left);
    assert_eq!(guest.fleecing().len(), 1);

    let (code, found) = doctor(guest.folder(), HEAL);
    let finding = one(&found);
    assert_eq!(
        (code, &finding["healed"]),
        (Some(0), &true.into()),
        "{finding}"
    );
    assert_eq!(guest.ours(), [""; 0]);
    assert_eq!(guest.fleecing(), [""; 0]);
    assert!(guest.bitmaps().contains(&bitmaps[0]), "{bitmaps:?}");
    assert_eq!(doctor(guest.folder(), LOOK), (Some(0), vec![]));

    let next = guest.backed_up(&[]);
    assert_eq!(next["disks"][0]["incremental"], true);
    assert!(guest.is_now(&next) && !guest.is_now(&full));
}

#[test]
fn what_a_backup_that_runs_has_made_is_told_and_let_alone() {
    let test = "what_a_backup_that_runs_has_made_is_told_and_let_alone";
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    let (running, pid) = guest.reading(&[]);
    // It lives, and it cannot end before the doctor has looked.
    running.signal(Signal::STOP);
    let made = guest.everything();
    // Its own monitor, which it holds, and another one.
    for qmp in ["backup.qmp", "doctor.qmp"] {
        // Without its folder only QEMU tells of it.
        for fleecing in ["fleecing", "state"] {
            fs::create_dir_all(guest.folder().join("state")).unwrap();
            if (qmp, fleecing) == ("backup.qmp", "state") {
                continue;
            }
            let heal = ["--qmp", qmp, "--heal", "--fleecing", fleecing];
            let (code, found) = doctor(guest.folder(), &heal);
            let finding = one(&found);
            assert_eq!(code, Some(0), "{finding}");
            assert_eq!(finding["state"], "in use", "{finding}");
            assert_eq!(finding["owner"]["process"], pid.as_raw_nonzero().get());
            assert_eq!(guest.everything(), made, "{qmp}");
        }
    }
    assert_eq!(guest.fleecing().len(), 1);
    running.signal(Signal::CONT);
    assert_eq!(running.ended(), Some(0));
    assert_eq!(guest.ours(), [""; 0]);
    let done = crate::support::json(guest.folder(), &["list"]);
    assert!(guest.is_now(&done["archives"][0]));
}

#[test]
fn the_folder_of_a_backup_that_died_with_its_qemu_is_removed() {
    let test = "the_folder_of_a_backup_that_died_with_its_qemu_is_removed";
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    guest.killed(&[]);
    // As long as QEMU lives, its monitor is the way to heal it.
    let (code, found) = doctor(guest.folder(), &["--qmp", "absent.qmp", "--heal"]);
    assert_eq!((code, found.len()), (Some(9), 2), "{found:?}");
    assert_eq!(found[0]["state"], "could not look");
    assert_eq!(found[1]["finding"], "fleecing");
    assert_eq!(found[1]["healed"], serde_json::Value::Null);
    assert!(found[1]["healing"].as_str().unwrap().contains("--qmp"));
    assert_eq!(guest.fleecing().len(), 1);
    guest.kill();
    // A guest of the configuration need not run.
    fs::write(
        guest.folder().join("c.toml"),
        "[guests.web]\nqmp = 'doctor.qmp'\n",
    )
    .unwrap();
    let (code, found) = doctor(guest.folder(), &["--config", "c.toml"]);
    assert_eq!((code, &one(&found)["state"]), (Some(9), &"stale".into()));
    assert_eq!(guest.fleecing().len(), 1);
    let (code, found) = doctor(guest.folder(), &["--config", "c.toml", "--heal"]);
    assert_eq!((code, &one(&found)["healed"]), (Some(0), &true.into()));
    assert_eq!(guest.fleecing(), [""; 0]);
}

#[test]
fn a_qemu_that_stands_still_is_told_and_waited_for_no_longer_than_the_limit() {
    let test = "a_qemu_that_stands_still_is_told_and_waited_for_no_longer_than_the_limit";
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    guest.killed(&[]);
    guest.signal(Signal::STOP);
    let (code, found) = doctor(guest.folder(), HEAL);
    guest.signal(Signal::CONT);
    let silent = &found[0];
    assert_eq!(code, Some(9), "{found:?}");
    assert_eq!(silent["state"], "could not look");
    assert!(
        silent["what"]
            .as_str()
            .unwrap()
            .contains("did not greet within 5 seconds")
    );
    assert!(
        found.iter().all(|finding| finding["healed"].is_null()),
        "{found:?}"
    );
    // Once it goes on, it is healed.
    let (code, found) = doctor(guest.folder(), HEAL);
    assert_eq!((code, &one(&found)["healed"]), (Some(0), &true.into()));
    assert_eq!(guest.ours(), [""; 0]);
}

/// The same program where the fleecing folder is another one, as in a container or with a /tmp of its own.
fn elsewhere(plain: &Command) -> Command {
    let hide = "mount -t tmpfs snapkeep-test fleecing && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", hide, "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.current_dir(plain.get_current_dir().unwrap());
    command
}

#[test]
fn a_backup_that_runs_is_let_alone_by_who_cannot_see_its_folder() {
    let test = "a_backup_that_runs_is_let_alone_by_who_cannot_see_its_folder";
    if !has_rights(test) || !are_here(test, &["unshare", "mount"]) {
        return;
    }
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    let (running, _) = guest.reading(&[]);
    running.signal(Signal::STOP);
    let made = guest.everything();
    let healed = elsewhere(&command(guest.folder(), HEAL)).output().unwrap();
    let told = String::from_utf8(healed.stdout).unwrap();
    assert_eq!(guest.everything(), made, "{told}");
    assert_eq!(healed.status.code(), Some(9), "{told}");
    assert!(told.starts_with("could not look: cannot tell whether the backup"));
    let backup = ["backup", "vm", "--guest", "web", "--qmp", "doctor.qmp"];
    let next = program(
        guest.folder(),
        &[&backup[..], &["--fleecing", "fleecing"]].concat(),
    );
    let next = elsewhere(&next).output().unwrap();
    let said = String::from_utf8(next.stderr).unwrap();
    assert_eq!(guest.everything(), made, "{said}");
    assert_eq!(next.status.code(), Some(1), "{said}");
    assert!(said.contains("QEMU sees that folder"), "{said}");
    running.signal(Signal::CONT);
    assert_eq!(running.ended(), Some(0));
    assert_eq!(guest.ours(), [""; 0]);
}

#[test]
fn a_folder_that_is_not_removed_is_told_and_not_called_healed() {
    let test = "a_folder_that_is_not_removed_is_told_and_not_called_healed";
    let Some(mut guest) = Guest::start(test) else {
        return;
    };
    guest.killed(&[]);
    let folder = guest.folder().join("fleecing").join(&guest.fleecing()[0]);
    fs::write(folder.join("letter"), "somebody's").unwrap();
    let (code, found) = doctor(guest.folder(), HEAL);
    assert_eq!((code, found.len()), (Some(9), 2), "{found:?}");
    assert_eq!(found[0]["healed"], false, "{found:?}");
    assert!(found[0]["healing"].as_str().unwrap().contains("letter"));
    assert_eq!(found[1]["finding"], "fleecing");
    assert_eq!(found[1]["state"], "stale");
    assert_eq!(guest.ours(), [""; 0]);
    assert!(folder.join("letter").exists());
}
