//! The server against qemu-img, qemu-io, nbdinfo, nbdcopy and nbdkit as a client.

use std::fs;
use std::path::PathBuf;

use snapkeep_nbd::{Address, Client, ClientOptions, ServerOptions};

use crate::memory::{MIB, Served, serve, serve_with};
use crate::tools::{self, Nbdkit};

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
fn qemu_img_and_qemu_io_write_the_export() {
    if !tools::are_here(
        "qemu_img_and_qemu_io_write_the_export",
        &["qemu-img", "qemu-io"],
    ) {
        return;
    }
    let served = serve();
    let (uri, source) = (served.uri("disk"), served.path("source"));
    let mut bytes = vec![0; 8 * MIB];
    bytes[5 * MIB..6 * MIB + 77].fill(42);
    fs::write(&source, &bytes).unwrap();
    tools::run(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri],
    );
    assert!(served.disk.bytes() == bytes);
    let commands = [
        "write -P 7 1M 3M",
        "write -z 2M 64k",
        "write -zu 3M 64k",
        "discard 1M 4k",
        "write -f -P 8 0 512",
        "flush",
    ];
    let arguments: Vec<_> = ["-f", "raw"]
        .into_iter()
        .chain(commands.iter().flat_map(|command| ["-c", command]))
        .chain([uri.as_str()])
        .collect();
    tools::run("qemu-io", &arguments);
    bytes[MIB..4 * MIB].fill(7);
    bytes[2 * MIB..2 * MIB + 65536].fill(0);
    bytes[3 * MIB..3 * MIB + 65536].fill(0);
    bytes[MIB..MIB + 4096].fill(0);
    bytes[..512].fill(8);
    assert!(served.disk.bytes() == bytes);
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
        // Where there is no file(1), it would print stray bytes for the content.
        let all = tools::run("nbdinfo", &["--no-content", &uri]);
        for line in [
            "base:allocation",
            "is_read_only: true",
            "can_multi_conn: true",
            "block_size_minimum: 1",
            "block_size_preferred: 4096",
            "block_size_maximum: 33554432",
        ] {
            assert!(all.contains(line), "{line:?} is not in {all}");
        }
        // The best that the nbdinfo knows: Debian 13's has extended headers, Debian 12's has not.
        let packets = ["using structured packets", "using extended packets"];
        assert!(packets.iter().any(|using| all.contains(using)), "{all}");
        let map = tools::run("nbdinfo", &["--map", &uri]);
        assert_eq!(map.lines().count(), 2, "{map}");
        let list = tools::run("nbdinfo", &["--list", &served.uri("")]);
        for name in ["disk", "locked", "broken"] {
            assert!(list.contains(&format!("export=\"{name}\"")), "{list}");
        }
    }
}

#[test]
fn nbdkit_passes_the_export_on() {
    if !tools::are_here("nbdkit_passes_the_export_on", &["nbdkit"]) {
        return;
    }
    let served = serve();
    let socket = PathBuf::from(served.path("proxy"));
    let uri = format!("uri={}", served.uri("disk"));
    let _proxy = Nbdkit::start(&["nbd", &uri], &socket);
    let options = ClientOptions::default();
    let client = Client::connect(&Address::Unix(socket), &options).unwrap();
    client.write_at(4321, &vec![1; MIB]).unwrap();
    client.flush().unwrap();
    let mut read = vec![0; 8 * MIB];
    client.read_at(0, &mut read).unwrap();
    assert!(read == served.disk.bytes() && read[4321..4321 + MIB].iter().all(|byte| *byte == 1));
}
