//! What `prune` accepts.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args as Arguments;
use snapkeep_repo::limits;

use crate::units::{parse_share, parse_size};

/// `prune`
#[derive(Arguments, Debug)]
pub(crate) struct Prune {
    /// Only tell what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long what is condemned waits before it is deleted, such as 36h or 2d; at least 1h. A backup
    /// that takes longer than this may fail.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    pub(crate) grace: Duration,
    /// Copy no more than this out of packs of which only a part is needed [default: no limit].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_repack: Option<NonZeroU64>,
    /// So much of what stays may be needed by nothing.
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = parse_share)]
    pub(crate) max_unused: u16,
    /// Go on although more than half of all packs are to go, or something is missing.
    #[arg(long)]
    pub(crate) confirm: bool,
    /// For tests: allows any grace period, and waits for no list to be up to date.
    #[arg(long, hide = true)]
    pub(crate) any_grace: bool,
}

impl Prune {
    /// How long lists are waited for.
    pub(crate) fn settle_seconds(&self) -> u64 {
        if self.any_grace {
            0
        } else {
            limits::SETTLE_SECONDS
        }
    }

    /// The grace period in seconds; an error if it is too short.
    pub(crate) fn grace_seconds(&self) -> Result<u64, String> {
        let seconds = self.grace.as_secs();
        if seconds < limits::GRACE_SECONDS_MIN && !self.any_grace {
            let least = limits::GRACE_SECONDS_MIN / 3600;
            return Err(format!(
                "a grace period of {seconds} seconds is too short: it must be at least {least} hour, \
                 and longer than any backup takes"
            ));
        }
        Ok(seconds)
    }
}

/// A whole number of seconds, minutes, hours or days.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    (digits.parse::<u64>().ok())
        .filter(|_| factor > 0)
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is not a time, such as 24h or 2d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs()).ok();
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("2d"), Some(172_800));
        assert_eq!(seconds("0s"), Some(0));
        for bad in [
            "",
            "24",
            "h",
            "-1h",
            "1.5h",
            "1w",
            "99999999999999999999d",
            "300000000000000000d",
        ] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }
}
