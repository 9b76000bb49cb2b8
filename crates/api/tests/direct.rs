//! A file handle opened as Proxmox VE opens it: past the page cache, with `O_DIRECT`.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use snapkeep_api::{BitmapMode, Region, SnapshotAccess, Volume};

#[test]
fn a_file_opened_past_the_page_cache_is_read_and_discarded() {
    // Not in the temporary folder: a file system in memory may know no such files.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(folder).expect("a folder");
    for size in [512, 1000, 528 << 10, (1 << 20) + 1536] {
        let content: Vec<u8> = (0u8..=250).cycle().take(size).collect();
        let path = folder.path().join(size.to_string());
        fs::write(&path, &content).expect("a file");
        let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag");
        let mut options = File::options();
        options.read(true).write(true).custom_flags(direct);
        let file = options.open(&path).expect("a file");
        let whole = Region::new(0, size as u64).expect("a region");
        let volume = Volume {
            size: size as u64,
            bitmap: BitmapMode::New,
            access: SnapshotAccess::FileHandle {
                file,
                dirty: Box::new([Ok(whole)].into_iter()),
            },
        };
        let device = "drive-scsi0".parse().expect("a device name");
        let (source, regions) = volume.open(&device).expect("a source");
        assert_eq!(regions.count(), 1);
        // An odd place in memory, and the last bytes by themselves.
        let mut memory = vec![0xee; size + 1];
        source.read_at(0, &mut memory[1..]).expect("bytes");
        assert!(memory[1..] == content, "{size} bytes");
        let last = size / 4096 * 4096;
        let mut rest = vec![0xee; size - last];
        source.read_at(last as u64, &mut rest).expect("bytes");
        assert!(rest == content[last..], "the end of {size} bytes");
        source.discard(whole).expect("a hole");
        assert_eq!(fs::read(&path).expect("a file"), vec![0; size]);
    }
}
