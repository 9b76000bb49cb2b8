//! Sizes in bytes as people write and read them.

use std::fmt;
use std::num::NonZeroU64;

use serde::Deserializer;
use serde::de::{Error, Visitor};

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

/// A size in the configuration: a text that [`parse_size`] reads, or a number of bytes. None is 0.
pub(crate) fn size_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;
    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size: a number of bytes, or a text such as \"50MiB\"")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(|_| E::custom(format!("{number} is not a size")))
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            if text == "0" {
                return Ok(0);
            }
            parse_size(text).map(NonZeroU64::get).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Size)
}

/// The same of a limit, which is not 0.
pub(crate) fn size<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NonZeroU64>, D::Error> {
    let size = NonZeroU64::new(size_or_zero(deserializer)?);
    let none = || D::Error::custom("0 is no limit: leave it out for none");
    size.map(Some).ok_or_else(none)
}

/// A share in percent, 0 to 100 with at most one decimal, as parts of 1000.
pub(crate) fn parse_share(text: &str) -> Result<u16, String> {
    let bad = || format!("{text:?} is not a share in percent, such as 2.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() != 1 {
        return Err(bad());
    }
    let share = format!("{whole}{part}").parse().ok();
    share.filter(|share| *share <= 1000).ok_or_else(bad)
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

/// So many of what this word names in the singular.
pub(crate) fn counted(number: u64, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        number => format!("{number} {word}s"),
    }
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
    fn shares_are_percent_with_one_decimal() {
        for (text, share) in [("0", 0), ("1", 10), ("2.5", 25), ("0.1", 1), ("100", 1000)] {
            assert_eq!(parse_share(text), Ok(share), "{text}");
        }
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "100.01",
            "101",
            "-1",
            "1.234",
            "1e1",
            "99999999999",
        ] {
            assert!(parse_share(bad).is_err(), "{bad:?}");
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
