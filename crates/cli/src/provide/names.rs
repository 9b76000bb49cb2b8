//! Archives as Proxmox VE sees them: `vzdump-qemu-VMID-YYYY-MM-DDTHH_MM_SSZ-RANDOM`, or `vzdump-lxc-…`.
//! Its interface groups by the beginning. A time as vzdump writes it, it would show as one of the
//! reader's time zone; so it takes the time that the listing tells.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, fmt::strtime};
use snapkeep_api::{ArchiveName, Error, ErrorKind, GuestId, GuestKind, Result};
use snapkeep_provider::{Namespace, group};

/// How the time is written.
const TIME: &str = "%Y-%m-%dT%H_%M_%SZ";
/// Characters of that.
const TIME_LENGTH: usize = 20;
/// Hexadecimal digits at the end.
const RANDOM_LENGTH: usize = 16;
/// Digits of a VMID, which are at most this many and begin with none of zero.
const VMID_LENGTH: usize = 9;

/// An archive's name as Proxmox VE sees it.
pub(crate) fn shown(name: &ArchiveName) -> Result<String> {
    let foreign = || {
        let what = format!("archive {name} has no name that Proxmox VE would understand");
        Error::new(ErrorKind::Invalid, what)
    };
    let parts: Vec<&str> = name.as_str().split('/').collect();
    let [_namespace, kind, guest, last] = parts[..] else {
        return Err(foreign());
    };
    let kind = match kind {
        "vm" => GuestKind::Qemu,
        "ct" => GuestKind::Lxc,
        _ => return Err(foreign()),
    };
    let (time, random) = last.rsplit_once('-').ok_or_else(foreign)?;
    let time: Timestamp = time.parse().map_err(|_| foreign())?;
    let time = strtime::format(TIME, TimeZone::UTC.to_datetime(time)).map_err(|_| foreign())?;
    let shown = format!("vzdump-{kind}-{guest}-{time}-{random}");
    // It is shown only if it leads back.
    split(&shown).map(|_| shown.clone()).ok_or_else(foreign)
}

/// The archive that Proxmox VE sees under this name, in this namespace.
pub(crate) fn path(namespace: &Namespace, shown: &str) -> Result<ArchiveName> {
    let foreign = || {
        let what = format!(
            "{:?} is no archive of this storage: their names are such as \
             vzdump-qemu-100-2026-01-31T23_59_59Z-0123456789abcdef",
            shown.chars().take(200).collect::<String>()
        );
        Error::new(ErrorKind::Invalid, what)
    };
    let Parts {
        kind,
        vmid,
        time,
        random,
    } = split(shown).ok_or_else(foreign)?;
    let guest: GuestId = vmid.parse()?;
    format!("{}/{time}-{random}", group(namespace, kind, &guest)).parse()
}

/// A guest's kind and VMID by an archive's name as Proxmox VE sees it.
pub(crate) fn guest(shown: &str) -> Option<(GuestKind, u32)> {
    let parts = split(shown)?;
    Some((parts.kind, parts.vmid.parse().ok()?))
}

struct Parts<'a> {
    kind: GuestKind,
    vmid: &'a str,
    time: Timestamp,
    random: &'a str,
}

/// The parts of such a name, if it is written in the one way it can be.
fn split(shown: &str) -> Option<Parts<'_>> {
    let rest = shown.strip_prefix("vzdump-")?;
    let (kind, rest) = rest.split_once('-')?;
    let kind = match kind {
        "qemu" => GuestKind::Qemu,
        "lxc" => GuestKind::Lxc,
        _ => return None,
    };
    let (vmid, rest) = rest.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Proxmox VE's numbers begin at 100.
    if !digits(vmid) || vmid.starts_with('0') || !(3..=VMID_LENGTH).contains(&vmid.len()) {
        return None;
    }
    let (time, random) = (rest.get(..TIME_LENGTH)?, rest.get(TIME_LENGTH..)?);
    let random = random.strip_prefix('-')?;
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if random.len() != RANDOM_LENGTH || !random.bytes().all(hex) {
        return None;
    }
    let civil = DateTime::strptime(TIME, time).ok()?;
    let time_again = civil.strftime(TIME).to_string();
    let time_stamp = TimeZone::UTC.to_timestamp(civil).ok()?;
    (time_again == time).then_some(Parts {
        kind,
        vmid,
        time: time_stamp,
        random,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        "main".parse().unwrap()
    }

    #[test]
    fn a_name_leads_to_its_path_and_back() {
        for (path_text, shown_text) in [
            (
                "main/vm/100/2026-11-22T20:29:00Z-00ff00ff00ff00ff",
                "vzdump-qemu-100-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            ),
            (
                "main/ct/999999999/2026-01-01T00:00:00Z-0123456789abcdef",
                "vzdump-lxc-999999999-2026-01-01T00_00_00Z-0123456789abcdef",
            ),
        ] {
            let name: ArchiveName = path_text.parse().unwrap();
            assert_eq!(shown(&name).unwrap(), shown_text);
            assert_eq!(path(&namespace(), shown_text).unwrap(), name);
        }
    }

    #[test]
    fn what_is_no_such_name_is_refused() {
        let long = format!("vzdump-qemu-100-2026-11-22T20_29_00Z-{}", "0".repeat(300));
        for bad in [
            "",
            "nope",
            "vzdump-qemu-99-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            "../../etc/passwd",
            "vzdump-qemu-100-2026-11-22T20_29_00Z.vma.zst",
            "vzdump-qemu-100-2026-11-22T20_29_00Z-00ff00ff00ff00f",
            "vzdump-qemu-100-2026-11-22T20_29_00Z-00FF00FF00FF00FF",
            "vzdump-qemu-0100-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            "vzdump-qemu-1234567890-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            "vzdump-qemu-100-2026-13-22T20_29_00Z-00ff00ff00ff00ff",
            "vzdump-qemu-100-2026_1_022-20_29_00-00ff00ff00ff00ff",
            "vzdump-qemu-100-2026-11-22T20_29_00Z-00ff00ff00ff00ff\n",
            "vzdump-qemu-10/0-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            "vzdump-open-100-2026-11-22T20_29_00Z-00ff00ff00ff00ff",
            "vzdump-qemu-100-2026-11-22T20_29_0éZ-00ff00ff00ff00ff",
            &long,
        ] {
            let error = path(&namespace(), bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn an_archive_of_a_guest_without_a_number_is_not_shown() {
        for foreign in [
            "main/vm/web-1/2026-11-22T20:29:00Z-00ff00ff00ff00ff",
            "main/vm/100/then-00ff00ff00ff00ff",
            "main/other/100/2026-11-22T20:29:00Z-00ff00ff00ff00ff",
            "100",
        ] {
            assert!(shown(&foreign.parse().unwrap()).is_err(), "{foreign}");
        }
    }
}
