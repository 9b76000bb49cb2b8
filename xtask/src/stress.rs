//! `cargo xtask stress [--minutes N] [--s3]`: many real processes in one repository, two of which
//! prune and some of which are killed now and then; a minute unless told otherwise.
//!
//! It is the test `stress` of `snapkeep-repo`, in a folder, or with `--s3` the one of `snapkeep`, in a
//! bucket: of moto, or where `SNAPKEEP_STRESS_S3` says. Both take seconds among the other tests.

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Minutes, and whether in a bucket.
fn parse(args: &[String]) -> Result<(u64, bool)> {
    let (mut minutes, mut bucket) = (1, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), bucket) {
            ("--s3", false) => bucket = true,
            ("--minutes", _) => {
                let number = args.next().context("--minutes takes a number")?;
                minutes = (number.parse())
                    .with_context(|| format!("{number:?} is no number of minutes"))?;
            }
            _ => bail!("the arguments are --minutes N and --s3"),
        }
    }
    Ok((minutes, bucket))
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let (minutes, bucket) = parse(args)?;
    let package = if bucket { "snapkeep" } else { "snapkeep-repo" };
    shell::run(
        shell::cargo()
            .args(["test", "--locked", "--package", package, "--test", "stress"])
            .args(["--", "--nocapture"])
            .env("SNAPKEEP_STRESS_SECONDS", (minutes * 60).to_string())
            // One that is skipped for want of moto must not look like one that passed.
            .env("CI", "true"),
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn minutes_and_a_bucket_may_be_asked_for() {
        let parse = |text: &str| {
            let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            parse(&args).ok()
        };
        assert_eq!(parse(""), Some((1, false)));
        assert_eq!(parse("--s3 --minutes 5"), Some((5, true)));
        assert_eq!(parse("--minutes"), None);
        assert_eq!(parse("--minutes five"), None);
        assert_eq!(parse("--hours 1"), None);
    }
}
