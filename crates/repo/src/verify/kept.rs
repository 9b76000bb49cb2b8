//! What a verification found, kept as an attribute of each archive that it judged.

use super::Depth;
use crate::format::attributes::{
    AttributeChange, Verification, VerificationMode, VerificationState,
};
use crate::format::snapshot::SnapshotName;
use crate::repository::Repository;
use crate::{Result, limits};

impl Depth {
    fn mode(self) -> VerificationMode {
        match self {
            Self::Everything => VerificationMode::Everything,
            Self::Sample { .. } => VerificationMode::Sample,
            Self::Metadata => VerificationMode::Metadata,
        }
    }
}

/// Keeps with an archive what was found of it. `time` is in seconds since the epoch, `program` a
/// name and version.
///
/// Whoever looked less closely does not hide what was known: the time at which all of it was last
/// found good stays, and so does damage that such a look cannot have disproved.
pub fn keep_verification(
    repository: &Repository,
    name: &SnapshotName,
    found: &Result<()>,
    depth: Depth,
    time: i64,
    program: &str,
) -> Result<()> {
    let problem = found.as_ref().err().map(|error| {
        let mut chain = error.chain();
        let mut end = chain.len().min(limits::CALLER_ERROR_MAX);
        while !chain.is_char_boundary(end) {
            end -= 1;
        }
        chain.truncate(end);
        chain
    });
    let kept = (|| {
        let before = repository.attributes(name)?.verification;
        let change = AttributeChange {
            verification: Some(Verification {
                state: match problem {
                    None => VerificationState::Good,
                    Some(_) => VerificationState::Damaged,
                },
                time,
                program: program.to_owned(),
                problem,
                mode: depth.mode(),
                everything: before.as_ref().and_then(Verification::good_by_everything),
            }),
            ..AttributeChange::default()
        };
        if found.is_ok() && before.is_some_and(|before| !disproves(depth, &before)) {
            return Ok(());
        }
        repository.change_attributes(name, &change)
    })();
    match kept {
        // Its own record may be what is damaged: nothing can be said of it there.
        Err(_) if found.is_err() => Ok(()),
        kept => kept,
    }
}

/// Whether what this depth found good may stand in the place of what was found before.
fn disproves(depth: Depth, before: &Verification) -> bool {
    before.state == VerificationState::Good
        || match depth {
            Depth::Everything => true,
            // Another sample may not have hit what this one did.
            Depth::Sample { .. } | Depth::Metadata => before.mode == VerificationMode::Metadata,
        }
}

/// Whether an archive was judged at least this closely since a time, in seconds since the epoch,
/// and found to be good.
pub fn is_verified_since(before: Option<&Verification>, depth: Depth, since: i64) -> bool {
    let Some(before) = before else {
        return false;
    };
    let close_enough = match (depth.mode(), before.mode) {
        (VerificationMode::Metadata, _) | (_, VerificationMode::Everything) => true,
        (VerificationMode::Sample, mode) => mode == VerificationMode::Sample,
        (VerificationMode::Everything, _) => false,
    };
    let by_everything = before.good_by_everything();
    before.state == VerificationState::Good
        && (close_enough && before.time >= since || by_everything.is_some_and(|time| time >= since))
}
