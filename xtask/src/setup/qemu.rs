//! Versions of QEMU, as its programs and its packages tell them.

#[path = "../../../crates/host/src/oldest.rs"]
mod oldest;

pub(super) use oldest::OLDEST_MAJOR;

/// What the host needs, in words.
pub(super) fn wanted() -> String {
    format!("QEMU {OLDEST_MAJOR}.0 or newer")
}

/// The version in what a program of QEMU answers to `--version`.
pub(super) fn version_told(answer: &str) -> Option<&str> {
    answer
        .lines()
        .next()?
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

/// The major version of a program, or of a package, whose version may have an epoch.
pub(super) fn major(version: &str) -> Option<u64> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{major, version_told};

    #[test]
    fn every_program_of_qemu_tells_its_version() {
        for answer in [
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022",
            "qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n",
            "qemu-nbd 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n",
            "qemu-storage-daemon version 7.2.22\n",
        ] {
            assert_eq!(version_told(answer), Some("7.2.22"), "{answer}");
        }
        assert_eq!(version_told("qemu-img\n9.0"), None);
    }

    #[test]
    fn the_major_version_stands_after_the_epoch() {
        assert_eq!(major("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(major("1:7.2+dfsg-7+deb12u18+b3"), Some(7));
        assert_eq!(major("9.0.0"), Some(9));
        assert_eq!(major("v9.0"), None);
    }
}
