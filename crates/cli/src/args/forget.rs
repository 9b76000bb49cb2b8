//! `forget`: archives by name, or what a retention policy keeps.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args as Arguments, ValueEnum};
use serde::{Deserialize, Deserializer};
use snapkeep_api::GuestKind;
use snapkeep_provider::retention::{Age, Period, Policy, Rules};

/// `forget`
#[derive(Arguments, Debug)]
#[command(group = ArgGroup::new("guests").multiple(true).conflicts_with("archives"))]
#[command(group = ArgGroup::new("policy").multiple(true).conflicts_with("archives"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Forget {
    /// The archives' whole names.
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archives: Vec<String>,
    /// Take back that they were forgotten.
    #[arg(long, requires = "archives")]
    pub(crate) undo: bool,
    /// Forget archives whose own records are damaged, which keep prune from working: nothing of
    /// them can be restored.
    #[arg(long, requires = "archives")]
    pub(crate) damaged: bool,
    /// The same of those that are protected, or may be.
    #[arg(long, requires = "damaged", conflicts_with = "undo")]
    pub(crate) unprotect: bool,
    #[command(flatten)]
    pub(crate) keep: Keep,
    /// Forget all archives of the guests that --guest names, but those that are protected.
    #[arg(long, group = "policy", conflicts_with = "rules")]
    pub(crate) keep_none: bool,
    /// Keep what the configuration says of each guest, or of all; guests of which it says nothing
    /// keep everything.
    #[arg(long, group = "policy", conflicts_with_all = ["rules", "keep_none"])]
    pub(crate) configured: bool,
    /// Of this guest's archives; may be given more than once.
    #[arg(long, value_name = "GUEST", group = "guests")]
    pub(crate) guest: Vec<String>,
    /// Of the archives of every guest in the namespace, each by itself.
    #[arg(long, group = "guests", conflicts_with = "guest")]
    pub(crate) all_guests: bool,
    /// Only virtual machines, or only containers.
    #[arg(long, value_name = "KIND", group = "guests")]
    pub(crate) kind: Option<Kind>,
    /// Where days, weeks and so on begin, such as Europe/Berlin [default: this machine's].
    #[arg(long, value_name = "ZONE", conflicts_with = "archives")]
    pub(crate) time_zone: Option<String>,
    /// Only tell what would be kept and forgotten.
    #[arg(long, conflicts_with = "archives")]
    pub(crate) dry_run: bool,
}

/// A kind of guest.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Virtual machines.
    Vm,
    /// Containers.
    Ct,
}

impl From<Kind> for GuestKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Vm => Self::Qemu,
            Kind::Ct => Self::Lxc,
        }
    }
}

/// What is to be kept, as flags and as a table of the configuration.
#[derive(Arguments, Clone, Debug, Default, Deserialize)]
#[command(group = ArgGroup::new("rules").multiple(true).conflicts_with("archives"))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(
    clippy::struct_field_names,
    reason = "they are the names of flags and keys"
)]
pub(crate) struct Keep {
    /// Keep the newest N archives.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest archive of each of N hours that have one.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_hourly: Option<u32>,
    /// Of each of N days, apart from those of which one is kept already.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_daily: Option<u32>,
    /// Of each of N further weeks, which begin on Monday.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_weekly: Option<u32>,
    /// Of each of N further months.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_monthly: Option<u32>,
    /// Of each of N further years.
    #[arg(long, value_name = "N", group = "rules")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep also all that is no older than this before the newest archive, such as 1y5m7d2h.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within: Option<Age>,
    /// The same, but only the newest archive of each hour.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within_hourly: Option<Age>,
    /// Of each day.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within_daily: Option<Age>,
    /// Of each week.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within_weekly: Option<Age>,
    /// Of each month.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within_monthly: Option<Age>,
    /// Of each year.
    #[arg(long, value_name = "DURATION", group = "rules")]
    #[serde(deserialize_with = "age")]
    pub(crate) keep_within_yearly: Option<Age>,
    /// Count archives that lack some files like whole ones: of guests of which no backup is ever
    /// whole.
    #[arg(long, requires = "rules")]
    pub(crate) count_partial: bool,
    /// Only in the configuration: keep everything.
    #[arg(skip)]
    keep_all: bool,
}

impl Keep {
    /// The policy that they make; why they make none.
    pub(crate) fn policy(&self) -> Result<Policy, &'static str> {
        let counts = [
            (Period::Archive, self.keep_last),
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ];
        let within = [
            (Period::Archive, self.keep_within),
            (Period::Hour, self.keep_within_hourly),
            (Period::Day, self.keep_within_daily),
            (Period::Week, self.keep_within_weekly),
            (Period::Month, self.keep_within_monthly),
            (Period::Year, self.keep_within_yearly),
        ];
        let rules = Rules {
            counts: given(counts),
            within: given(within),
            count_partial: self.count_partial,
        };
        match (rules.keep_nothing(), self.keep_all) {
            (true, true) => Ok(Policy::All),
            (false, false) => Ok(Policy::Rules(rules)),
            (false, true) => Err("says keep-all and keeps less"),
            (true, false) => Err("would keep no archive"),
        }
    }
}

fn given<T, const N: usize>(rules: [(Period, Option<T>); N]) -> BTreeMap<Period, T> {
    let given = rules.into_iter();
    given
        .filter_map(|(period, value)| Some((period, value?)))
        .collect()
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Age>, D::Error> {
    let text = String::deserialize(deserializer)?;
    (text.parse().map(Some)).map_err(|e: snapkeep_api::Error| serde::de::Error::custom(e))
}
