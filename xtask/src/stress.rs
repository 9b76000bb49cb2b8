//! `cargo xtask stress [--minutes N]`: many real processes in one repository, some of which are
//! killed now and then; a minute unless told otherwise.
//!
//! It is the test `stress` of `snapkeep-repo`, which takes ten seconds among the others.

use anyhow::{Context as _, Result, bail};

use crate::shell;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let minutes: u64 = match args {
        [] => 1,
        [flag, minutes] if flag == "--minutes" => {
            (minutes.parse()).with_context(|| format!("{minutes:?} is no number of minutes"))?
        }
        _ => bail!("the argument is --minutes N"),
    };
    let test = ["test", "--locked", "--package", "snapkeep-repo", "--test"];
    shell::run(
        shell::cargo()
            .args(test)
            .args(["stress", "--", "--nocapture"])
            .env("SNAPKEEP_STRESS_SECONDS", (minutes * 60).to_string()),
    )
}
