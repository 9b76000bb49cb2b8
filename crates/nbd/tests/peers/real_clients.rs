//! The server against qemu-img, nbdinfo and nbdcopy.

use std::fs;

use snapkeep_nbd::ServerOptions;

use crate::memory::{Served, serve, serve_with};
use crate::tools;

/// On a Unix socket and on TCP.
fn both() -> [Served; 2] {
    [false, true].map(|tcp| serve_with(ServerOptions::default(), tcp))
}

#[test]
fn qemu_img_converts_the_export() {
    if !tools::are_here("qemu_img_converts_the_export", &["qemu-img"]) {
        return;
    }
    for served in both() {
        let (uri, out) = (served.uri("locked"), served.path("out"));
        for flags in [&[][..], &["-W", "-m", "16"]] {
            let arguments = [&["convert", "-f", "raw", "-O", "raw"], flags, &[&uri, &out]].concat();
            tools::run("qemu-img", &arguments);
            assert!(fs::read(&out).unwrap() == served.locked.bytes());
        }
        tools::run(
            "qemu-img",
            &["compare", "-f", "raw", "-F", "raw", &uri, &out],
        );
    }
}

#[test]
fn qemu_img_maps_the_hole() {
    if !tools::are_here("qemu_img_maps_the_hole", &["qemu-img"]) {
        return;
    }
    let served = serve();
    let map = tools::run(
        "qemu-img",
        &["map", "-f", "raw", "--output=json", &served.uri("locked")],
    );
    assert_eq!(map.matches("\"start\"").count(), 2, "{map}");
    assert!(
        map.contains("\"start\": 4194304, \"length\": 4194304"),
        "{map}"
    );
}

#[test]
fn nbdcopy_copies_the_export_out_and_back() {
    if !tools::are_here("nbdcopy_copies_the_export_out_and_back", &["nbdcopy"]) {
        return;
    }
    for served in both() {
        let (from, to, file) = (
            served.uri("locked"),
            served.uri("disk"),
            served.path("file"),
        );
        tools::run("nbdcopy", &[&from, &file]);
        assert!(fs::read(&file).unwrap() == served.locked.bytes());
        served.disk.bytes.lock().unwrap().fill(3);
        tools::run("nbdcopy", &["--flush", "--connections=4", &file, &to]);
        assert!(served.disk.bytes() == served.locked.bytes());
        served.disk.bytes.lock().unwrap().fill(3);
        tools::run("nbdcopy", &[&from, &to]);
        assert!(served.disk.bytes() == served.locked.bytes());
    }
}

#[test]
fn nbdinfo_sees_what_there_is() {
    if !tools::are_here("nbdinfo_sees_what_there_is", &["nbdinfo"]) {
        return;
    }
    for served in both() {
        let uri = served.uri("locked");
        assert_eq!(tools::run("nbdinfo", &["--size", &uri]).trim(), "8388608");
        let all = tools::run("nbdinfo", &[&uri]);
        for line in [
            "base:allocation",
            "is_read_only: true",
            "can_multi_conn: true",
            "block_size_minimum: 1",
            "block_size_preferred: 4096",
            "block_size_maximum: 33554432",
            "structured",
        ] {
            assert!(all.contains(line), "{line:?} is not in {all}");
        }
        let map = tools::run("nbdinfo", &["--map", &uri]);
        assert_eq!(map.lines().count(), 2, "{map}");
        let list = tools::run("nbdinfo", &["--list", &served.uri("")]);
        for name in ["disk", "locked", "broken"] {
            assert!(list.contains(&format!("export=\"{name}\"")), "{list}");
        }
    }
}
