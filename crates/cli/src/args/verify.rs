//! What `verify` accepts.

use std::num::NonZeroU64;

use clap::Args as Arguments;

use crate::units::{parse_share, parse_size};

/// `verify`
#[derive(Arguments, Debug)]
pub(crate) struct Verify {
    /// Only these archives: their names, or guests' for their newest archives [default: all, with all
    /// that lies in the repository].
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archives: Vec<String>,
    /// Only archives of this guest in the namespace; may be given more than once.
    #[arg(long = "guest", value_name = "GUEST")]
    pub(crate) guests: Vec<String>,
    /// Only archives that were not found good in this way, or a closer one, for so many days.
    #[arg(long, value_name = "DAYS")]
    pub(crate) older_than: Option<u32>,
    /// Read no data: only what names it, and whether it is there with its full length.
    #[arg(long, conflicts_with = "sample")]
    pub(crate) metadata: bool,
    /// Read only a random share of packs and chunks, another one each time, such as 2.5.
    #[arg(long, value_name = "PERCENT", value_parser = parse_sample)]
    pub(crate) sample: Option<u16>,
    /// The same share as the run that said this number.
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub(crate) seed: Option<u64>,
    /// Open nothing: prove each file by its checksum, as a host can that has the storage and no key.
    #[arg(long, conflicts_with_all = ["archives", "guests", "older_than", "metadata", "sample", "anew"])]
    pub(crate) without_key: bool,
    /// Begin anew, although a run that was interrupted had proven a part already.
    #[arg(long)]
    pub(crate) anew: bool,
    /// Bytes per second, such as 50MiB [default: no limit].
    #[arg(long, env = "SNAPKEEP_BANDWIDTH_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    pub(crate) bandwidth_limit: Option<NonZeroU64>,
}

fn parse_sample(text: &str) -> Result<u16, String> {
    match parse_share(text)? {
        0 => Err("a sample of nothing proves nothing".to_owned()),
        share => Ok(share),
    }
}
