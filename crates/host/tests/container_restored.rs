//! A restored container runs beside the one that was backed up, and nothing of the archived
//! configuration runs on the machine.

mod container;

use std::fs;

use container::{Lab, can_run, fill, run, wait_until};
use snapkeep_host::container::{LxcConfig, RestorePolicy, new_container, restored_config};

#[test]
fn a_container_that_is_not_finished_is_removed_with_its_immutable_files() {
    let name = "a_container_that_is_not_finished_is_removed_with_its_immutable_files";
    if !can_run(name, &["chattr"]) {
        return;
    }
    let lxcpath = tempfile::TempDir::new().unwrap();
    for discarded in [true, false] {
        let new = new_container(lxcpath.path(), "copy", None).unwrap();
        let folder = new.rootfs().join("folder");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("file");
        fs::write(&file, "").unwrap();
        run("chattr", &["+i", file.to_str().unwrap()]);
        run("chattr", &["+a", folder.to_str().unwrap()]);
        assert!(fs::remove_file(&file).is_err());
        if discarded {
            new.discard().unwrap();
        } else {
            drop(new);
        }
        assert!(!lxcpath.path().join("copy").exists());
    }
}

#[test]
fn a_restored_container_runs_as_another_one() {
    if !can_run("a_restored_container_runs_as_another_one", &[]) {
        return;
    }
    let lab = Lab::new();
    let mark = lab.folder().join("mark");
    let hostile = format!(
        "lxc.hook.pre-start = /usr/bin/touch {0}\nlxc.log.file = {0}\nlxc.ephemeral = 1\n\
         lxc.mount.entry = tmpfs tmp/in tmpfs rw,create=dir 0 0\nlxc.environment = 'A=b c'\n",
        mark.display()
    );
    lab.configure(&hostile);
    let archived = fs::read(lab.lxc().config()).unwrap();
    // The hostile one is not started, and then is as it was.
    lab.configure("");
    lab.start();
    let config = LxcConfig::read(&lab.lxc().config()).unwrap();
    let new = new_container(&lab.lxc().path, "copy", config.idmap.as_ref()).unwrap();
    let policy = RestorePolicy {
        name: "copy".into(),
        rootfs: new.rootfs(),
        idmap: None,
        allow_privileged: false,
        allow_unsafe: false,
    };
    let restored = restored_config(&archived, &policy).unwrap();
    assert_eq!(restored.dropped.len(), 3, "{:?}", restored.dropped);
    fill(&new.rootfs());
    let rootfs = new.rootfs();
    new.finish(&restored.text).unwrap();
    let copy = lab.other("copy");
    copy.start();
    wait_until("the copy counts", || rootfs.join("tmp/count").exists());
    let process = copy.process();
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
    assert!(mounts.contains("/tmp/in tmpfs"), "{mounts}");
    let environment = fs::read_to_string(format!("/proc/{process}/environ")).unwrap();
    assert!(environment.contains("A=b c"), "{environment}");
    assert_eq!(lab.state(), "RUNNING");
    assert!(!mark.exists());
    copy.run("lxc-stop", &["-k"]);
    assert!(lab.lxc().path.join("copy").exists());
}
