//! What time it is for the storage, by the date that each of its replies has: what is locked until
//! a time is locked by that clock.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http::HeaderMap;
use http::header::DATE;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The last date that came, and when.
#[derive(Debug, Default)]
pub(crate) struct StorageClock(Mutex<Option<(i64, Instant)>>);

impl StorageClock {
    /// Takes the date of a reply, if it has one that can be read.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| rfc2822::parse(date).ok());
        if let Some(date) = date {
            let seconds = date.timestamp().as_second();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((seconds, Instant::now()));
        }
    }

    /// Seconds since 1970; `None` if no reply had a date.
    pub(crate) fn now(&self) -> Option<i64> {
        let (seconds, then) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = i64::try_from(then.elapsed().as_secs()).unwrap_or(i64::MAX);
        seconds.checked_add(passed)
    }
}

/// A time as S3 writes it.
pub(crate) fn written(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A time as S3 writes it, in seconds since 1970.
pub(crate) fn read(text: &str) -> Option<i64> {
    let time: Timestamp = text.trim().parse().ok()?;
    Some(time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_as_s3_does() {
        assert_eq!(written(1_796_054_400), "2026-11-30T16:00:00Z");
        assert_eq!(read("2026-11-30T16:00:00Z"), Some(1_796_054_400));
        assert_eq!(read("2026-11-30T16:00:00.000Z"), Some(1_796_054_400));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn the_time_is_that_of_the_last_reply_that_had_one() {
        let clock = StorageClock::default();
        let mut headers = HeaderMap::new();
        clock.note(&headers);
        assert_eq!(clock.now(), None);
        headers.insert(DATE, "Mon, 30 Nov 2026 16:00:00 GMT".parse().unwrap());
        clock.note(&headers);
        headers.insert(DATE, "whenever".parse().unwrap());
        clock.note(&headers);
        let now = clock.now().unwrap();
        assert!((1_796_054_400..1_796_054_700).contains(&now), "{now}");
    }
}
