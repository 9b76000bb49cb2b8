//! Pax records: `LENGTH KEY=VALUE\n`, the length being that of the whole record.

use snapkeep_api::tree::Timestamp;

/// Appends a record.
pub(super) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, `=` and the end of the line.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// The key of an extended attribute's record. As GNU tar does, what would end the key is escaped.
pub(super) fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            _ => key.push(*byte),
        }
    }
    key
}

/// A time in decimals.
pub(super) fn time(time: Timestamp) -> String {
    let Timestamp { seconds, nanos } = time;
    // Before 1970 the nanoseconds count towards it.
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (false, _) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let nanos = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", nanos.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_length_counts_itself() {
        for length in [
            0, 1, 80, 89, 90, 91, 92, 980, 985, 987, 988, 990, 9977, 9978,
        ] {
            let mut records = Vec::new();
            push(&mut records, b"path", &vec![b'x'; length]);
            let text = String::from_utf8(records.clone()).unwrap();
            let (told, _) = text.split_once(' ').unwrap();
            assert_eq!(told.parse(), Ok(records.len()), "{length}");
        }
    }

    #[test]
    fn times_are_decimals() {
        let text = |seconds, nanos| time(Timestamp { seconds, nanos });
        assert_eq!(text(1, 0), "1");
        assert_eq!(text(1, 500_000_000), "1.5");
        assert_eq!(text(-1, 500_000_000), "-0.5");
        assert_eq!(text(-2, 1), "-1.999999999");
        assert_eq!(text(-2, 0), "-2");
        assert_eq!(text(i64::MIN, 0), "-9223372036854775808");
    }

    #[test]
    fn an_equals_sign_in_an_attributes_name_does_not_end_the_key() {
        assert_eq!(xattr_key(b"user.a=%"), b"SCHILY.xattr.user.a%3D%25");
    }
}
