//! Sizes in bytes as people write and read them.

use std::num::NonZeroU64;

const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/// A number of bytes, or of KiB, MiB, GiB or TiB (also K, M, G, T).
pub(crate) fn parse_size(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1_u64 << 40,
        unit => return Err(format!("{unit:?} is none of KiB, MiB, GiB, TiB")),
    };
    (digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(factor))
        .and_then(NonZeroU64::new)
        .ok_or_else(|| format!("{text:?} is not a size, such as 50MiB"))
}

/// With one decimal in the largest unit that fits.
pub(crate) fn human(bytes: u64) -> String {
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} bytes");
    }
    let tenths = u128::from(bytes) * 10 / (1_u128 << (10 * unit));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        let size = |text| parse_size(text).map(NonZeroU64::get).ok();
        assert_eq!(size("50MiB"), Some(50 << 20));
        assert_eq!(size("1T"), Some(1 << 40));
        assert_eq!(size("17"), Some(17));
        for bad in ["", "0", "-1", "1.5M", "1 MiB", "1MB", "MiB", "99999999T"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_unit_that_fits() {
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1023), "1023 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(5 << 40), "5.0 TiB");
        assert_eq!(human(u64::MAX), "16777215.9 TiB");
    }
}
