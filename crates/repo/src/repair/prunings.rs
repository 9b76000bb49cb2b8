//! Generations and markers of prunings that cannot be read any more. They only ever say what may go,
//! so another takes the place of each as soon as nobody who read it can be at work.

use super::apply::Repaired;
use crate::format::envelope::Kind;
use crate::format::prune::{Generation, PruneFile, Survivor, Survivors};
use crate::prune::folder::Folder;
use crate::prune::time;
use crate::repository::Repository;
use crate::storage::FileName;
use crate::verify::Damage;
use crate::{Error, ErrorKind, Result, limits};

/// Replaces these, or says why that must wait.
pub(super) fn mend(repository: &Repository, damaged: &[Damage], done: &mut Repaired) -> Result<()> {
    if damaged.is_empty() {
        return Ok(());
    }
    let now = time(repository)?;
    for damage in damaged {
        let (folder, times) = Folder::list_dated(&*repository.storage)?;
        let file: FileName = damage.object.parse()?;
        // Whether that one has been there for so long.
        let settled = |file: &FileName, seconds: u64| {
            let then = times.get(file).copied().unwrap_or(now);
            i128::from(now) - i128::from(then) > i128::from(seconds)
        };
        let why = match PruneFile::parse(&file) {
            Some(PruneFile::Generation(number)) => {
                let mut sweeps = folder.markers.iter().filter(|(_, other)| *other > number);
                let at_work = |marker: &FileName| !settled(marker, 2 * limits::SWEEP_SECONDS_MAX);
                if sweeps.any(|(marker, _)| at_work(marker)) {
                    "a pruning that has read it may be deleting what it condemns; try again two \
                     days after that began"
                } else {
                    let none = Generation::default().encode();
                    let empty = PruneFile::Generation(number);
                    repository.put_prune_file(Kind::Generation, empty, &none)?;
                    repository.storage.remove(&file)?;
                    done.prunings += 1;
                    continue;
                }
            }
            Some(PruneFile::Marker(number)) => {
                if settled(&file, limits::GRACE_SECONDS) {
                    replace_marker(repository, &file, number)?;
                    done.prunings += 1;
                    continue;
                }
                "backups that began before it may still have to prove what they made; try again \
                 when it is a day old"
            }
            Some(PruneFile::Probe) | None => continue,
        };
        done.left.push(Damage {
            object: damage.object.clone(),
            error: Error::new(ErrorKind::Invalid, why),
        });
    }
    Ok(())
}

/// Puts one that names all archives that are listed, but those of which others tell that nobody was
/// told of them. So what the damaged one left out counts as made from here on: it was not told
/// apart from what is damaged, and nothing is dropped unseen.
fn replace_marker(repository: &Repository, file: &FileName, number: u32) -> Result<()> {
    let names = repository.all_snapshots_of(None)?;
    let late = repository.late(&names)?;
    let stay = names.iter().filter(|name| !late.contains(*name));
    let survivors = Survivors::new(stay.map(Survivor::of));
    repository.put_survivors(number, &survivors)?;
    repository.storage.remove(file)
}
