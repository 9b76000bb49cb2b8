//! How large the parts of a file tree may be, in bytes unless said otherwise. Whoever takes an
//! entry from somebody else refuses what exceeds a limit before anything is allocated for it.

/// The longest name (`NAME_MAX` of Linux).
pub const NAME_MAX: usize = 255;
/// The most folders above an entry.
pub const DEPTH_MAX: usize = 8192;
/// The longest path: Linux sets no limit to how deep a tree may be, only to one call's path.
pub const PATH_MAX: usize = DEPTH_MAX * (NAME_MAX + 1);
/// The longest path that a hard link leads to; a walker tells what is deeper as a file of its own.
pub const LINK_PATH_MAX: usize = 1 << 20;
/// The longest target of a symbolic link (`PATH_MAX` of Linux, less the zero at its end).
pub const SYMLINK_MAX: usize = 4095;
/// The longest name of an extended attribute (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_MAX: usize = 255;
/// The longest value of an extended attribute (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_MAX: usize = 65_536;
/// The most extended attributes of an entry: Linux lists no more than 64 KiB of their names.
pub const XATTRS_MAX: usize = 4096;
/// All names and values of an entry's extended attributes together.
pub const XATTRS_BYTES_MAX: usize = 1 << 20;
/// The largest file: what a signed file offset can say.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
