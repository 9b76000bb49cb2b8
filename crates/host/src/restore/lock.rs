//! Whether a QEMU uses a file or a block device. QEMU locks some of the first bytes of each image
//! that it has open; who only opens the device exclusively does not notice it.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use snapkeep_api::{Error, ErrorKind, Result};

use super::target::failed;

/// Where QEMU's locks lie: the bytes from 100 on say what it does with the image, those from 200
/// on what it bears others to do (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE` in its
/// block/file-posix.c).
const FIRST: libc::off_t = 100;
const LENGTH: libc::off_t = 200;

#[expect(
    clippy::cast_possible_truncation,
    reason = "constants from 0 to 2, which C stores in a short"
)]
const SHORTS: [libc::c_short; 3] = [
    libc::F_WRLCK as libc::c_short,
    libc::F_UNLCK as libc::c_short,
    libc::SEEK_SET as libc::c_short,
];

/// `Invalid` if a QEMU, or one of its tools, has it open.
pub(super) fn refuse_in_use(file: &File, path: &Path) -> Result<()> {
    if is_in_use(file).map_err(|e| failed("cannot learn who uses", path, e))? {
        let what = format!(
            "cannot restore to {}: it is in use by a running QEMU, or one of its tools; stop that first",
            path.display()
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

/// Whether a QEMU, or one of its tools, has it open and uses it. Takes no lock.
pub(crate) fn is_in_use(file: &File) -> io::Result<bool> {
    let [write, none, from_start] = SHORTS;
    let mut lock = libc::flock {
        l_type: write,
        l_whence: from_start,
        l_start: FIRST,
        l_len: LENGTH,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => Ok(lock.l_type != none),
        // No locks here: then QEMU, too, has none.
        Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
