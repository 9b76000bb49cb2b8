//! What configurations say, and which are refused.

use tempfile::TempDir;

use super::*;

fn read_text(text: &str) -> Result<LxcConfig> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, text).unwrap();
    LxcConfig::read(&path)
}

#[test]
fn a_container_of_lxc_is_understood() {
    let text = "# made by lxc-create\nlxc.include = /dev/null.d\n"
        .replace("lxc.include = /dev/null.d\n", "")
        + "lxc.net.0.type = veth\nlxc.rootfs.path = dir:/srv/web/rootfs\n\
           lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\nlxc.uts.name = web\n\
           lxc.mount.entry = /srv/my\\040data mnt/data none rw,bind,create=dir 0 0\n\
           lxc.mount.entry = proc proc proc nodev 0 0\n";
    let config = read_text(&text).unwrap();
    assert_eq!(config.raw, text.as_bytes());
    assert_eq!(config.rootfs, Path::new("/srv/web/rootfs"));
    assert!(!config.ephemeral && !config.start_auto);
    assert_eq!(config.idmap.as_ref().unwrap().users()[0].host, 100_000);
    assert_eq!(config.mounts.len(), 2);
    let foreign: Vec<_> = config.foreign_mounts().collect();
    assert_eq!(foreign.len(), 1);
    assert_eq!(foreign[0].source, Path::new("/srv/my data"));
    assert!(foreign[0].bind);
}

#[test]
fn a_later_line_wins_and_an_empty_one_takes_back() {
    let config = read_text(
        "lxc.rootfs.path = /a\nlxc.rootfs.path = btrfs:/b\nlxc.idmap = u 0 1 1\nlxc.idmap =\n\
         lxc.ephemeral = 1\nlxc.start.auto = 0\nlxc.start.auto = 1\nlxc.mount.entry = /a b none bind\nlxc.mount.entry =\n",
    )
    .unwrap();
    assert_eq!(config.rootfs, Path::new("/b"));
    assert!(config.start_auto && config.ephemeral);
    assert!(config.idmap.is_none() && config.mounts.is_empty());
}

#[test]
fn what_cannot_be_used_is_refused_with_its_line() {
    const ROOT: &str = "lxc.rootfs.path = /a\n";
    for (text, words) in [
        ("lxc.uts.name = a\n", "no lxc.rootfs.path"),
        (
            "lxc.rootfs.path = /a\nlxc.rootfs.path =\n",
            "no lxc.rootfs.path",
        ),
        (
            "\nlxc.rootfs.path = overlay:/a:/b\n",
            "line 2: lxc.rootfs.path: overlay:/a:/b cannot",
        ),
        ("lxc.rootfs.path = zfs:tank/a\n", "only a running container"),
        ("lxc.rootfs.path = dir:a\n", "no absolute path"),
        ("lxc.rootfs.path = a\n", "no absolute path"),
        ("lxc.rootfs = /a\n", "lxc-update-config"),
        (&format!("{ROOT}lxc.idmap = u 0 1\n"), "line 2: lxc.idmap"),
        (
            &format!("{ROOT}lxc.idmap = u 0 1 1\n"),
            "groups cannot be used",
        ),
        (&format!("{ROOT}lxc.idmap = b 1 1 1\n"), "root (0)"),
        (
            &format!("{ROOT}lxc.idmap = b 0 1 5\nlxc.idmap = b 4 9 5\n"),
            "twice",
        ),
        (
            &format!("{ROOT}lxc.ephemeral = yes\n"),
            "line 2: lxc.ephemeral",
        ),
        (
            &format!("{ROOT}lxc.mount.entry = a b\n"),
            "line 2: lxc.mount.entry",
        ),
        (&format!("{ROOT}lxc.mount.fstab = /no/such\n"), "/no/such"),
        (
            &format!("{ROOT}lxc.include = /no/such\n"),
            "line 2: lxc.include of /no/such",
        ),
        (&format!("{ROOT}lxc.x y = 1\n"), "line 2"),
    ] {
        let error = read_text(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(error.chain().contains(words), "{text}: {}", error.chain());
    }
}

#[test]
fn included_files_count_and_are_bounded() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let here = folder.path().display();
    file("d/b.conf", "lxc.rootfs.path = /b\n".into());
    file("d/a.conf", "lxc.rootfs.path = /a\n".into());
    file("d/other", "lxc.rootfs.path = /c\n".into());
    let fstab = file("fstab", "# x\n\n/srv/a srv none rbind\n".into());
    let text = format!(
        "lxc.include = {here}/d\nlxc.mount.fstab = {}\n",
        fstab.display()
    );
    let config = LxcConfig::read(&file("config", text.clone())).unwrap();
    assert_eq!(config.rootfs, Path::new("/b"));
    assert_eq!(config.raw, text.as_bytes());
    assert!(config.mounts[0].bind);
    let round = file("round", format!("lxc.include = {here}/round\n"));
    let error = LxcConfig::read(&round).unwrap_err();
    assert!(
        error.chain().contains("include each other"),
        "{}",
        error.chain()
    );
    file("bad", "\n\nlxc.idmap = x\n".into());
    let bad = file("to-bad", format!("lxc.include = {here}/bad\n"));
    let error = LxcConfig::read(&bad).unwrap_err();
    assert!(error.chain().contains("/bad, line 3"), "{}", error.chain());
    let long = file("long", "#".repeat(1 << 20) + "#");
    assert!(
        LxcConfig::read(&long)
            .unwrap_err()
            .chain()
            .contains("more than")
    );
}
