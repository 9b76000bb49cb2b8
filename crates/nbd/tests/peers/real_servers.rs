//! The client against the servers of QEMU and nbdkit.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Client, ClientOptions, Errno, ErrorKind, Extent, list_exports,
};
use tempfile::TempDir;

use crate::tools::{self, Daemon, Monitor, Nbdkit};

const MIB: usize = 1 << 20;
/// Granularity of the dirty bitmap.
const CLUSTER: u64 = 65536;

/// Five MiB and a sector: data, a hole, data.
fn image() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    let mut bytes = vec![0; 5 * MIB + 512];
    for (index, byte) in bytes.iter_mut().enumerate() {
        if !(2 * MIB..4 * MIB).contains(&index) {
            *byte = u8::try_from(index * 7 % 241).unwrap() | 1;
        }
    }
    let file = fs::File::create(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&bytes[..2 * MIB], 0).unwrap();
    file.write_all_at(&bytes[4 * MIB..], 4 << 20).unwrap();
    (folder, path, bytes)
}

struct Place {
    folder: TempDir,
    socket: PathBuf,
    pid_file: String,
}

fn place() -> Place {
    let folder = TempDir::new().unwrap();
    Place {
        socket: folder.path().join("s"),
        pid_file: folder.path().join("pid").to_str().unwrap().to_owned(),
        folder,
    }
}

impl Place {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn qemu_nbd(&self, arguments: &[&str]) -> Daemon {
        let socket = self.socket.to_str().unwrap();
        let own = [
            "--fork",
            "-t",
            "--pid-file",
            &self.pid_file,
            "-k",
            socket,
            "-x",
            "disk",
        ];
        Daemon::start("qemu-nbd", &[&own, arguments].concat(), &self.pid_file)
    }

    fn nbdkit(&self, arguments: &[&str]) -> Nbdkit {
        Nbdkit::start(arguments, &self.socket)
    }

    fn connect(&self, export: &str, contexts: &[&str]) -> Client {
        let options = ClientOptions {
            export: export.to_owned(),
            contexts: contexts.iter().map(|&name| name.to_owned()).collect(),
            ..ClientOptions::default()
        };
        Client::connect(&Address::Unix(self.socket.clone()), &options).unwrap()
    }
}

fn read(client: &Client) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(client.size()).unwrap()];
    client.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Offset, length and whether it is zero.
fn map(client: &Client) -> Vec<(u64, u64, bool)> {
    client
        .extents(BASE_ALLOCATION, 0, client.size())
        .map(|extent| extent.unwrap())
        .map(|extent| (extent.offset, extent.length, extent.is_zero()))
        .collect()
}

#[test]
fn qemu_nbd_is_read_over_several_connections() {
    if !tools::are_here("qemu_nbd_is_read_over_several_connections", &["qemu-nbd"]) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    // Four for the client and one for the list: one more would be left waiting.
    let _daemon = place.qemu_nbd(&["-r", "-f", "raw", "-e", "5", image.to_str().unwrap()]);
    let client = place.connect("disk", &[BASE_ALLOCATION]);
    assert_eq!(client.connections(), 4);
    assert!(client.is_read_only());
    assert!(read(&client) == bytes);
    let (size, mib) = (client.size(), 1 << 20);
    assert_eq!(
        map(&client),
        [
            (0, 2 * mib, false),
            (2 * mib, 2 * mib, true),
            (4 * mib, size - 4 * mib, false)
        ]
    );
    let address = Address::Unix(place.socket.clone());
    let names = list_exports(&address, ClientOptions::default().timeout).unwrap();
    assert_eq!(names, ["disk"]);
}

#[test]
fn a_qemu_nbd_that_gives_one_connection_is_read_over_one() {
    if !tools::are_here(
        "a_qemu_nbd_that_gives_one_connection_is_read_over_one",
        &["qemu-nbd"],
    ) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    let _daemon = place.qemu_nbd(&["-r", "-f", "raw", image.to_str().unwrap()]);
    let client = place.connect("disk", &[]);
    assert_eq!(client.connections(), 1);
    assert!(read(&client) == bytes);
}

#[test]
fn qemu_nbd_is_read_over_tcp() {
    if !tools::are_here("qemu_nbd_is_read_over_tcp", &["qemu-nbd"]) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let port = free.port().to_string();
    let image = image.to_str().unwrap();
    let arguments = [
        "--fork",
        "-t",
        "--pid-file",
        &place.pid_file,
        "-b",
        "127.0.0.1",
        "-p",
        &port,
        "-r",
        "-f",
        "raw",
        image,
    ];
    let _daemon = Daemon::start("qemu-nbd", &arguments, &place.pid_file);
    let client = Client::connect(&Address::Tcp(free), &ClientOptions::default()).unwrap();
    assert!(read(&client) == bytes);
}

#[test]
fn qemu_nbd_keeps_what_is_written_zeroed_and_trimmed() {
    if !tools::are_here(
        "qemu_nbd_keeps_what_is_written_zeroed_and_trimmed",
        &["qemu-nbd", "qemu-img"],
    ) {
        return;
    }
    let ((_folder, image, mut bytes), place) = (image(), place());
    let qcow2 = place.path("qcow2");
    tools::run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            image.to_str().unwrap(),
            &qcow2,
        ],
    );
    let daemon = place.qemu_nbd(&["-f", "qcow2", "--discard=unmap", &qcow2]);
    let client = place.connect("disk", &[]);
    client.write_at(100, &vec![3; 3 * MIB]).unwrap();
    bytes[100..100 + 3 * MIB].fill(3);
    client.write_zeroes(1 << 20, 65536).unwrap();
    bytes[MIB..MIB + 65536].fill(0);
    client.trim(4 << 20, 65536).unwrap();
    bytes[4 * MIB..4 * MIB + 65536].fill(0);
    client.flush().unwrap();
    assert!(read(&client) == bytes);
    drop((client, daemon));
}

#[test]
fn nbdkit_is_read_with_and_without_structured_replies() {
    if !tools::are_here(
        "nbdkit_is_read_with_and_without_structured_replies",
        &["nbdkit"],
    ) {
        return;
    }
    let (_folder, image, bytes) = image();
    let image = image.to_str().unwrap();
    for (arguments, structured) in [(&[][..], true), (&["--no-sr"], false)] {
        let place = place();
        let _server = place.nbdkit(&[arguments, &["-r", "file", image]].concat());
        let client = place.connect("", &[BASE_ALLOCATION]);
        assert_eq!(client.has_context(BASE_ALLOCATION), structured);
        assert!(read(&client) == bytes);
        if structured {
            assert_eq!(map(&client).len(), 3);
        }
    }
}

#[test]
fn a_bad_sector_of_nbdkit_fails_only_the_reads_that_meet_it() {
    if !tools::are_here(
        "a_bad_sector_of_nbdkit_fails_only_the_reads_that_meet_it",
        &["nbdkit"],
    ) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    let mapfile = place.path("map");
    // Good up to 1 MiB, bad for 4 KiB, good to the end.
    fs::write(
        &mapfile,
        "0x00000000 +\n0x00000000 0x00100000 +\n0x00100000 0x00001000 -\n0x00101000 0x00400000 +\n",
    )
    .unwrap();
    let map_argument = format!("ddrescue-mapfile={mapfile}");
    let _server = place.nbdkit(&[
        "--filter=ddrescue",
        "file",
        image.to_str().unwrap(),
        &map_argument,
    ]);
    let client = place.connect("", &[]);
    let error = client.read_at(0, &mut vec![0; 4 * MIB]).unwrap_err();
    assert_eq!(
        (error.kind(), error.errno()),
        (ErrorKind::Refused, Some(Errno::Io)),
        "{error}"
    );
    let mut after = vec![0; 2 * MIB];
    client.read_at(0x10_1000, &mut after).unwrap();
    assert!(after == bytes[0x10_1000..0x10_1000 + 2 * MIB]);
}

#[test]
fn the_block_sizes_of_nbdkit_are_obeyed() {
    if !tools::are_here("the_block_sizes_of_nbdkit_are_obeyed", &["nbdkit"]) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    let _server = place.nbdkit(&[
        "--filter=blocksize-policy",
        "file",
        image.to_str().unwrap(),
        "blocksize-minimum=512",
        "blocksize-preferred=4096",
        "blocksize-maximum=64K",
        "blocksize-error-policy=error",
    ]);
    let client = place.connect("", &[BASE_ALLOCATION]);
    assert_eq!(client.block_sizes().maximum, 65536);
    assert!(read(&client) == bytes);
    assert_eq!(
        client.read_at(1, &mut [0; 512]).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

/// QEMU's snapshot access in the storage daemon, as a backup meets it: `guest` is the disk that the
/// guest writes, `snap` its past, of which only what is dirty in `run` may be read.
#[test]
fn snapshot_access_of_qemu_is_read_by_its_bitmap_and_trimmed() {
    let tools = ["qemu-storage-daemon"];
    if !tools::are_here(
        "snapshot_access_of_qemu_is_read_by_its_bitmap_and_trimmed",
        &tools,
    ) {
        return;
    }
    let ((_folder, image, bytes), place) = (image(), place());
    let fleece = place.path("fleece");
    fs::File::create(&fleece)
        .unwrap()
        .set_len(bytes.len() as u64)
        .unwrap();
    let monitor = place.path("monitor");
    let file = |name: &str, path: &str| {
        format!(
            "driver=raw,node-name={name},discard=unmap,file.driver=file,file.discard=unmap,file.filename={path}"
        )
    };
    let _daemon = Daemon::start(
        tools[0],
        &[
            "--daemonize",
            "--pidfile",
            &place.pid_file,
            "--chardev",
            &format!("socket,id=m,path={monitor},server=on,wait=off"),
            "--monitor",
            "chardev=m",
            "--blockdev",
            &file("d", image.to_str().unwrap()),
            "--blockdev",
            &file("fl", &fleece),
            "--blockdev",
            "driver=raw,node-name=top,file=d,discard=unmap",
            "--nbd-server",
            &format!(
                "addr.type=unix,addr.path={},max-connections=16",
                place.socket.display()
            ),
            "--export",
            "type=nbd,id=guest,node-name=top,name=guest,writable=on",
        ],
        &place.pid_file,
    );
    let mut qemu = Monitor::connect(monitor.as_ref());
    qemu.run(
        "block-dirty-bitmap-add",
        r#"{"node":"d","name":"run","granularity":65536}"#,
    );
    let guest = place.connect("guest", &[]);
    let mut past = bytes;
    for (offset, length) in [(10, 1), (CLUSTER * 3, 200_000), (CLUSTER * 40, 512)] {
        let start = usize::try_from(offset).unwrap();
        past[start..start + length].fill(77);
        guest.write_at(offset, &vec![77; length]).unwrap();
    }
    guest.flush().unwrap();
    qemu.run("block-dirty-bitmap-disable", r#"{"node":"d","name":"run"}"#);
    qemu.run("blockdev-add", r#"{"driver":"copy-before-write","node-name":"cbw","file":"d","target":"fl","on-cbw-error":"break-snapshot","discard":"unmap","bitmap":{"node":"d","name":"run"}}"#);
    qemu.run(
        "blockdev-reopen",
        r#"{"options":[{"driver":"raw","node-name":"top","file":"cbw","discard":"unmap"}]}"#,
    );
    qemu.run(
        "blockdev-add",
        r#"{"driver":"snapshot-access","node-name":"snap","file":"cbw","discard":"unmap"}"#,
    );
    qemu.run("block-export-add", r#"{"type":"nbd","id":"snap","node-name":"snap","name":"snap","writable":true,"bitmaps":[{"node":"d","name":"run"}]}"#);

    let client = place.connect("snap", &["qemu:dirty-bitmap:run"]);
    assert_eq!(client.connections(), 4);
    let dirty: Vec<Extent> = client
        .extents("qemu:dirty-bitmap:run", 0, client.size())
        .map(|extent| extent.unwrap())
        .filter(Extent::is_dirty)
        .collect();
    let clusters: Vec<_> = dirty
        .iter()
        .map(|e| (e.offset / CLUSTER, e.length / CLUSTER))
        .collect();
    assert_eq!(clusters, [(0, 1), (3, 4), (40, 1)]);
    // What the guest writes now does not change its past.
    guest.write_at(0, &vec![99; MIB]).unwrap();
    guest.write_at(CLUSTER * 40, &[99; 512]).unwrap();
    for extent in &dirty {
        let mut read = vec![0; usize::try_from(extent.length).unwrap()];
        client.read_at(extent.offset, &mut read).unwrap();
        let start = usize::try_from(extent.offset).unwrap();
        assert!(read == past[start..start + read.len()]);
    }
    // Outside the bitmap, and across its border, nothing can be read; the connection stays.
    for (offset, length) in [(CLUSTER, 512), (CLUSTER * 2, 2 * CLUSTER)] {
        let error = client
            .read_at(offset, &mut vec![0; usize::try_from(length).unwrap()])
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.errno()),
            (ErrorKind::Refused, Some(Errno::Invalid)),
            "{error}"
        );
    }
    // What is trimmed is let go of, and cannot be read any more.
    for extent in &dirty {
        client.trim(extent.offset, extent.length).unwrap();
        assert!(client.read_at(extent.offset, &mut [0; 512]).is_err());
    }
    assert_eq!(
        fs::metadata(&fleece).unwrap().blocks(),
        0,
        "the fleecing image is empty again"
    );
    // An extent of the other context is an error there, which is why it must not be asked for.
    let other = place.connect("snap", &[BASE_ALLOCATION]);
    let error = other
        .block_status(BASE_ALLOCATION, CLUSTER, CLUSTER)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}
