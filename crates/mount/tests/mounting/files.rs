//! Files of some size: holes, and every way of reading.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::thread;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use snapkeep_api::tree::Timestamp;
use snapkeep_mount::{FixedFolder, Node, VolumeFile};

use crate::memory::{Item, MemoryVolume, Runs, name, tree};
use crate::tools::{Mount, are_here, sh};

const SIZE: u64 = 40 << 20;

/// Data at odd places, different everywhere.
fn runs() -> Runs {
    let mut state = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    };
    Runs(vec![
        (0, noise(5000)),
        (1 << 20, noise(4 << 20)),
        (20 << 20, noise(1 << 20)),
        // Touches the one before.
        (21 << 20, noise(3 << 20)),
        (SIZE - 100, noise(100)),
    ])
}

/// A tree with a sparse file, and a sparse disk.
fn mount() -> Mount {
    let file = Item::sparse(SIZE, runs());
    let disk = VolumeFile::new(Box::new(MemoryVolume(SIZE, runs())), Timestamp::default());
    let entries = [
        (name("drive-scsi0.raw"), Node::Bytes(Arc::new(disk))),
        (name("tree"), tree(Item::folder([(name("sparse"), file)]))),
    ];
    let folder = FixedFolder::new(entries, Timestamp::default());
    Mount::new(Node::Folder(Arc::new(folder)))
}

const BOTH: [&str; 2] = ["drive-scsi0.raw", "tree/sparse"];

#[test]
fn holes_are_seen_and_kept() {
    if !are_here("holes_are_seen_and_kept", &[]) {
        return;
    }
    let mount = mount();
    std::fs::write(mount.own().join("plain"), runs().bytes(SIZE)).unwrap();
    for path in BOTH {
        let file = std::fs::File::open(mount.join(path)).unwrap();
        let blocks = file.metadata().unwrap().blocks();
        assert_eq!(blocks, (8192 + (8 << 20) + 4096) / 512);
        let at = |place| seek(&file, place);
        for (place, end) in [
            (SeekFrom::Data(0), Ok(0)),
            (SeekFrom::Hole(0), Ok(8192)),
            (SeekFrom::Data(5000), Ok(5000)),
            (SeekFrom::Data(8192), Ok(1 << 20)),
            (SeekFrom::Hole(20 << 20), Ok(24 << 20)),
            (SeekFrom::Data(24 << 20), Ok(SIZE - 4096)),
            (SeekFrom::Hole(SIZE - 1), Ok(SIZE)),
            (SeekFrom::Data(SIZE), Err(Errno::NXIO)),
            (SeekFrom::Hole(SIZE + 1), Err(Errno::NXIO)),
            (SeekFrom::End(-1), Ok(SIZE - 1)),
        ] {
            assert_eq!(at(place), end, "{place:?}");
        }
        let script = format!(
            "cp --sparse=auto mnt/{path} copy; cmp copy plain; stat -c %b copy; rm copy
             tar -c -S -f - -C mnt {path} | wc -c; du -k mnt/{path} | cut -f 1"
        );
        let said = sh(mount.own(), &script);
        let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
        let most = 10 << 20;
        assert!(numbers[0] * 512 < most && numbers[1] < most, "{said}");
        assert!((8 << 10..10 << 10).contains(&numbers[2]), "{said}");
    }
    assert_eq!(mount.problems(), [""; 0]);
}

#[test]
fn every_way_of_reading_gives_the_same_bytes() {
    if !are_here("every_way_of_reading_gives_the_same_bytes", &["python3"]) {
        return;
    }
    let mount = mount();
    let bytes = runs().bytes(SIZE);
    std::fs::write(mount.own().join("plain"), &bytes).unwrap();
    for path in BOTH {
        let script = format!(
            r#"
cmp mnt/{path} plain; cmp mnt/{path} plain
dd if=mnt/{path} bs=1M iflag=direct status=none | cmp - plain
dd if=mnt/{path} bs=3000 skip=7000 count=50 status=none | cmp - <(tail -c +21000001 plain | head -c 150000)
python3 - mnt/{path} <<'END'
import mmap, sys
with open(sys.argv[1], "rb") as file, open("plain", "rb") as plain:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert mapped[21_000_000:23_000_000] == plain.read()[21_000_000:23_000_000]
END
"#
        );
        sh(mount.own(), &script);
        let file = std::fs::File::open(mount.join(path)).unwrap();
        thread::scope(|scope| {
            for reader in 0..6 {
                let (file, bytes) = (&file, &bytes);
                scope.spawn(move || {
                    let mut buffer = vec![0; 100_000];
                    for turn in 0..100 {
                        let at = (turn * 7_919_177 + reader * 1_234_567) % (SIZE - 100_000);
                        file.read_exact_at(&mut buffer, at).unwrap();
                        let at = usize::try_from(at).unwrap();
                        assert_eq!(buffer, bytes[at..at + 100_000]);
                    }
                });
            }
        });
        let mut past = [0; 10];
        assert_eq!(file.read_at(&mut past, SIZE).unwrap(), 0);
        assert_eq!(file.read_at(&mut past, SIZE - 3).unwrap(), 3);
    }
}

#[test]
fn qemu_reads_a_disk() {
    if !are_here("qemu_reads_a_disk", &["qemu-img"]) {
        return;
    }
    let mount = mount();
    std::fs::write(mount.own().join("plain"), runs().bytes(SIZE)).unwrap();
    let script = "
qemu-img info -f raw mnt/drive-scsi0.raw
qemu-img convert -f raw -O qcow2 mnt/drive-scsi0.raw copy.qcow2
qemu-img compare -f qcow2 -F raw copy.qcow2 plain
qemu-img convert -T none -f raw -O raw mnt/drive-scsi0.raw copy.raw
cmp copy.raw plain
";
    let said = sh(mount.own(), script);
    assert!(said.contains("virtual size: 40 MiB"), "{said}");
    assert!(said.contains("Images are identical"), "{said}");
}
