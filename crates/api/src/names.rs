//! Names, parsed once and valid ever after.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// A guest ID is at most this many bytes.
const GUEST_ID_MAX: usize = 64;
/// A storage ID is at most this many bytes.
const STORAGE_ID_MAX: usize = 100;
/// A device name is at most this many bytes; NBD allows export names of 4096.
const DEVICE_NAME_MAX: usize = 255;
/// An archive name is at most this many bytes: Proxmox VE allows 255 for the whole volume ID.
const ARCHIVE_NAME_MAX: usize = 200;
/// A bitmap name is at most this many bytes (`BDRV_BITMAP_MAX_NAME_SIZE` of QEMU).
const BITMAP_NAME_MAX: usize = 1023;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let check: fn(&str) -> std::result::Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(why) => Err(Error::new(
                        ErrorKind::Invalid,
                        format!(concat!($what, " {:?} cannot be used: {}"), text, why),
                    )),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn length(text: &str, max: usize) -> std::result::Result<(), &'static str> {
    match text.len() {
        0 => Err("it is empty"),
        n if n > max => Err("it is too long"),
        _ => Ok(()),
    }
}

fn plain(text: &str) -> std::result::Result<(), &'static str> {
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("it must begin with a letter or a digit");
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return Err("only letters, digits, '.', '_' and '-' are allowed");
    }
    Ok(())
}

name! {
    /// A guest: the number (VMID) that Proxmox VE gives it, or its name on a plain host. Letters,
    /// digits, `.`, `_` and `-`, beginning with a letter or digit, at most 64 bytes.
    GuestId, "guest ID", |text| {
        length(text, GUEST_ID_MAX)?;
        plain(text)
    }
}

name! {
    /// A configured place for backups, as its host calls it. Letters, digits, `.`, `_` and `-`,
    /// beginning with a letter or digit, at most 100 bytes.
    StorageId, "storage ID", |text| {
        length(text, STORAGE_ID_MAX)?;
        plain(text)
    }
}

name! {
    /// Where a volume is attached, such as `drive-scsi0`; also the name of its NBD export.
    /// At most 255 bytes, no `/`, no control characters.
    DeviceName, "device name", |text| {
        length(text, DEVICE_NAME_MAX)?;
        if text.chars().any(|c| c.is_control() || c == '/') || text == "." || text == ".." {
            return Err("control characters and '/' are not allowed");
        }
        Ok(())
    }
}

name! {
    /// The name of an archive on its storage: letters, digits and `.+=_-/:`, at most 200 bytes,
    /// as `backup_init` may return it. No part between slashes is empty, `.` or `..`.
    ArchiveName, "archive name", |text| {
        length(text, ARCHIVE_NAME_MAX)?;
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+=_-/:".contains(&b)) {
            return Err("only letters, digits and .+=_-/: are allowed");
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("a part between slashes is empty, '.' or '..'");
        }
        Ok(())
    }
}

name! {
    /// The name of a QEMU dirty bitmap, at most 1023 bytes.
    BitmapName, "bitmap name", |text| {
        length(text, BITMAP_NAME_MAX)?;
        if text.chars().any(char::is_control) {
            return Err("control characters are not allowed");
        }
        Ok(())
    }
}

/// What kind of guest: `qemu` or `lxc`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

impl GuestKind {
    /// The word that Proxmox VE uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_way_out_of_their_folder_are_refused() {
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "..",
            "a b",
            "a\nb",
            &"x".repeat(201),
        ] {
            assert!(bad.parse::<ArchiveName>().is_err(), "{bad:?}");
        }
        for bad in ["", "..", ".x", "a/b", "-x", "a b", &"1".repeat(65)] {
            assert!(bad.parse::<GuestId>().is_err(), "{bad:?}");
        }
        for bad in ["", "..", ".x", "a/b", "a:b", &"s".repeat(101)] {
            assert!(bad.parse::<StorageId>().is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", "a\0", "a\nb", &"d".repeat(256)] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_the_field_uses_are_accepted() {
        assert!("100".parse::<GuestId>().is_ok());
        assert!("web-1.example".parse::<GuestId>().is_ok());
        assert!("pbs-2.example_org".parse::<StorageId>().is_ok());
        assert!("drive-scsi0".parse::<DeviceName>().is_ok());
        assert!("odd name; with 'quotes' é".parse::<DeviceName>().is_ok());
        assert!(
            "main/vm/100/2026-11-22T20:29:00Z-00ff"
                .parse::<ArchiveName>()
                .is_ok()
        );
        assert!("snapshot-access:store".parse::<BitmapName>().is_ok());
    }
}
