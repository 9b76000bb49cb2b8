//! What a policy says.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{Span, ZonedDateTime};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::AGE_NUMBER_MAX;

/// What is to be kept of a guest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Policy {
    /// Every archive.
    All,
    /// None but those that are protected or cannot be read. Never meant by accident: the user has
    /// asked for this by name.
    Nothing,
    /// What these keep.
    Rules(Rules),
}

/// Rules; what one of them keeps is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    /// Of how many periods an archive is kept; 0 is none.
    pub counts: BTreeMap<Period, u32>,
    /// How old archives may be of which each period's newest is kept.
    pub within: BTreeMap<Period, Age>,
    /// Whether archives that lack some files count like whole ones: of a guest of which no
    /// backup is ever whole.
    pub count_partial: bool,
}

impl Rules {
    /// Whether they would keep nothing at all.
    pub fn keep_nothing(&self) -> bool {
        self.within.is_empty() && self.counts.values().all(|count| *count == 0)
    }
}

/// A stretch of time of which one archive is kept, in the time zone of the policy. A period has
/// the same mark in all of it; the hour that comes twice when the clock is set back is one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Period {
    /// None: each archive by itself, also of those that were begun in the same second.
    Archive,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week of ISO 8601, which begins on Monday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// What tells one period from another.
pub(super) type Mark = [i64; 4];

impl Period {
    /// The mark of the period in which an archive was begun that is the `at`-th in its list.
    pub(super) fn mark(self, time: &ZonedDateTime, at: usize) -> Mark {
        let (year, month) = (time.year().into(), time.month().into());
        let day = time.day().into();
        match self {
            Self::Archive => [at.try_into().unwrap_or(i64::MAX), 0, 0, 0],
            Self::Hour => [year, month, day, time.hour().into()],
            Self::Day => [year, month, day, 0],
            Self::Week => {
                let week = time.date().iso_week_date();
                [week.year().into(), week.week().into(), 0, 0]
            }
            Self::Month => [year, month, 0, 0],
            Self::Year => [year, 0, 0, 0],
        }
    }
}

/// A rule, by the name that the command line has for it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// One that counts periods.
    Count(Period),
    /// One that keeps what is young.
    Within(Period),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (period, within) = match self {
            Self::Count(period) => (period, false),
            Self::Within(period) => (period, true),
        };
        let name = match period {
            Period::Archive if within => return f.write_str("within"),
            Period::Archive => "last",
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        };
        write!(f, "{}{name}", if within { "within-" } else { "" })
    }
}

/// How old an archive may be, such as `1y5m7d2h`: years, months, days and hours, as the calendar
/// has them. Never nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Age {
    years: u16,
    months: u16,
    days: u16,
    hours: u16,
}

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let what = format!(
                "the duration {text:?} {why}: it is years, months, days and hours, in this order and \
                 as far as they are needed, such as 1y5m7d2h, 30d or 12h"
            );
            Error::new(ErrorKind::Invalid, what)
        };
        let mut numbers = [0; 4];
        let (mut rest, mut next) = (text, 0);
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let (number, behind) = rest.split_at(digits);
            let unit = behind.chars().next();
            let at = unit.and_then(|unit| "ymdh".find(unit));
            let at = (at.filter(|at| *at >= next)).ok_or_else(|| wrong("cannot be used"))?;
            let number: u16 = number.parse().map_err(|_bad| wrong("cannot be used"))?;
            if number > AGE_NUMBER_MAX {
                return Err(wrong("is too long"));
            }
            numbers[at] = number;
            (rest, next) = (&behind[1..], at + 1);
        }
        if numbers == [0; 4] {
            return Err(wrong("is none"));
        }
        let [years, months, days, hours] = numbers;
        Ok(Self {
            years,
            months,
            days,
            hours,
        })
    }
}

impl Age {
    /// The time so long before another; none if the calendar does not go back so far.
    pub(super) fn before(self, time: &ZonedDateTime) -> Option<ZonedDateTime> {
        let span = Span::new()
            .years(self.years)
            .months(self.months)
            .days(self.days)
            .hours(self.hours);
        time.checked_sub(span).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_years_months_days_and_hours() {
        let time: ZonedDateTime = "2024-03-31T12:00:00[UTC]".parse().expect("a time");
        for (text, before) in [
            ("2h", "2024-03-31T10:00:00[UTC]"),
            ("7d", "2024-03-24T12:00:00[UTC]"),
            ("1m", "2024-02-29T12:00:00[UTC]"),
            ("1y1m1d1h", "2023-02-27T11:00:00[UTC]"),
            ("0y30d", "2024-03-01T12:00:00[UTC]"),
        ] {
            let age: Age = text.parse().expect("a duration");
            let before: ZonedDateTime = before.parse().expect("a time");
            assert_eq!(age.before(&time), Some(before), "{text}");
        }
        let old: Age = "9999y".parse().expect("a duration");
        let ancient = "-005000-01-01T00:00:00[UTC]".parse().expect("a time");
        assert_eq!(old.before(&ancient), None);
    }

    #[test]
    fn what_is_no_duration_is_refused_by_its_text() {
        for text in [
            "", "0d", "7", "d", "7w", "7d1y", "7d7d", "-1d", "1d ", "10000h", "65536h", "1é",
            "1.5d",
        ] {
            let error = text.parse::<Age>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
