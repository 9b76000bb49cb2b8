//! Where a file has data and where it has holes.

use snapkeep_api::{Error, ErrorKind, Region, Result};

use crate::limits::{HOLES_FROM, RUNS_COUNTED};

/// Answers where the next run of data is.
pub(crate) type NextData<'a> = &'a dyn Fn(u64) -> Result<Option<Region>>;

/// What of a file is data or a hole is told in blocks of so many bytes, as file systems do: tools
/// take a sector that begins in a hole for zeroes.
const BLOCK: u64 = 4096;

/// The next run of data as it begins and ends, not empty and inside of the file.
fn run(size: u64, from: u64, next_data: NextData<'_>) -> Result<Option<(u64, u64)>> {
    if from >= size {
        return Ok(None);
    }
    let block = from - from % BLOCK;
    let Some(region) = next_data(block)? else {
        return Ok(None);
    };
    if region.end() <= block {
        let what = "a run of its data ends before where it was asked for";
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    let begin = region.offset() - region.offset() % BLOCK;
    let end = region.end().min(size).next_multiple_of(BLOCK).min(size);
    Ok((region.offset() < size).then(|| (begin.max(from), end)))
}

/// The first byte of data at or after `from`; `None` if there is none.
pub(crate) fn data_at(size: u64, from: u64, next_data: NextData<'_>) -> Result<Option<u64>> {
    Ok(run(size, from, next_data)?.map(|(begin, _)| begin))
}

/// The first byte of a hole at or after `from`; the end counts as one.
pub(crate) fn hole_at(size: u64, from: u64, next_data: NextData<'_>) -> Result<u64> {
    let mut at = from;
    // Each turn is at least a byte further.
    while let Some((begin, end)) = run(size, at, next_data)? {
        if begin > at {
            return Ok(at);
        }
        at = end;
    }
    Ok(at)
}

/// How many bytes of data there are; more than there are if the file has very many holes.
pub(crate) fn data_bytes(size: u64, next_data: NextData<'_>) -> Result<u64> {
    if size < HOLES_FROM {
        return Ok(size);
    }
    let (mut at, mut bytes) = (0, 0);
    for _ in 0..RUNS_COUNTED {
        match run(size, at, next_data)? {
            None => return Ok(bytes),
            Some((begin, end)) => {
                bytes += end - begin;
                at = end;
            }
        }
    }
    Ok(bytes + (size - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    /// Data from 64 KiB to 128 KiB, in two runs, and the last byte of the file.
    fn next(from: u64) -> Result<Option<Region>> {
        let runs = [(65_536, 32_768), (98_304, 30_000), (SIZE - 1, 1)];
        let found = runs.iter().find(|(at, length)| at + length > from);
        found
            .map(|(at, length)| Region::new(*at, *length))
            .transpose()
    }

    #[test]
    fn runs_that_touch_are_one() {
        assert_eq!(data_at(SIZE, 0, &next).unwrap(), Some(65_536));
        assert_eq!(data_at(SIZE, 70_000, &next).unwrap(), Some(70_000));
        assert_eq!(data_at(SIZE, 131_072, &next).unwrap(), Some(SIZE - 4096));
        assert_eq!(data_at(SIZE, SIZE, &next).unwrap(), None);
        assert_eq!(hole_at(SIZE, 0, &next).unwrap(), 0);
        assert_eq!(hole_at(SIZE, 65_536, &next).unwrap(), 131_072);
        assert_eq!(hole_at(SIZE, SIZE - 1, &next).unwrap(), SIZE);
        assert_eq!(data_bytes(SIZE, &next).unwrap(), 65_536 + 4096);
    }

    #[test]
    fn a_block_with_a_byte_of_data_is_data() {
        assert_eq!(hole_at(SIZE, 98_304, &next).unwrap(), 131_072);
        // Both know it, though the data ends at 128,304.
        assert_eq!(data_at(SIZE, 130_000, &next).unwrap(), Some(130_000));
        assert_eq!(hole_at(SIZE, 130_000, &next).unwrap(), 131_072);
        let odd = SIZE - 5;
        assert_eq!(data_at(odd, 131_072, &next).unwrap(), None);
        let last = |_: u64| Region::new(odd - 1, 1).map(Some);
        assert_eq!(data_at(odd, 0, &last).unwrap(), Some(SIZE - 4096));
        assert_eq!(hole_at(odd, odd - 1, &last).unwrap(), odd);
    }

    #[test]
    fn runs_that_lead_nowhere_are_refused_and_those_past_the_end_cut() {
        let back = |_: u64| Region::new(0, 1).map(Some);
        assert_eq!(
            hole_at(SIZE, 5000, &back).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let long = |_: u64| Region::new(0, SIZE * 2).map(Some);
        assert_eq!(hole_at(SIZE, 5, &long).unwrap(), SIZE);
        assert_eq!(data_bytes(SIZE, &long).unwrap(), SIZE);
    }

    #[test]
    fn very_many_holes_are_not_all_counted_and_never_too_many() {
        let size = 1 << 30;
        let every_other = |from: u64| {
            let at = from.next_multiple_of(8192);
            if at >= size {
                return Ok(None);
            }
            Region::new(at, 1).map(Some)
        };
        let bytes = data_bytes(size, &every_other).unwrap();
        assert!(bytes > size / 2 && bytes < size, "{bytes}");
    }
}
