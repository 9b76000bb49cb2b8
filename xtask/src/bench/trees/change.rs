//! A day in a tree: one file in a hundred is changed, removed or new.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::words::Words;
use crate::bench::files::entries;
use crate::bench::random::Random;

/// One file in so many.
const SHARE: usize = 100;
/// The longest change of a file, in bytes.
const LONGEST: u64 = 4096;
/// The largest new file, in bytes.
const LARGEST: u64 = 16 << 10;

/// How many files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) changed: usize,
    pub(super) removed: usize,
    pub(super) added: usize,
}

/// Half of the changes write text somewhere into a file, a quarter remove one, a quarter make a
/// new one beside it.
pub(super) fn change(tree: &Path, words: &Words, random: &mut Random) -> Result<Changes> {
    let found = entries(tree)?.into_iter();
    // A file with several names would count as several.
    let one_name = found.filter(|(_, entry)| entry.is_file() && entry.nlink() == 1);
    let mut files: Vec<_> = one_name.collect();
    let mut done = Changes::default();
    for number in 0..files.len().div_ceil(SHARE) {
        let (path, entry) = files.swap_remove(random.index(files.len()));
        let cannot = || format!("could not change {}", path.display());
        match number % 4 {
            0 | 2 => {
                let offset = random.below(entry.len() + 1);
                let length = usize::try_from(1 + random.below(LONGEST))?;
                let file = File::options().write(true).open(&path);
                let text = words.write(length, random);
                (file.and_then(|file| file.write_all_at(&text, offset))).with_context(cannot)?;
                done.changed += 1;
            }
            1 => {
                std::fs::remove_file(&path).with_context(cannot)?;
                done.removed += 1;
            }
            _ => {
                let beside = path.with_file_name(format!("new-{:016x}", random.next()));
                let length = usize::try_from(random.below(LARGEST + 1))?;
                std::fs::write(beside, words.write(length, random)).with_context(cannot)?;
                done.added += 1;
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{Changes, Random, Words, change};
    use crate::bench::files::entries;
    use crate::shell::Scratch;

    #[test]
    fn one_file_in_a_hundred_differs_afterwards() {
        let scratch = Scratch::new("change").unwrap();
        let folder = scratch.path().join("tree");
        std::fs::create_dir(&folder).unwrap();
        for number in 0..801 {
            std::fs::write(folder.join(number.to_string()), "a").unwrap();
        }
        let words = Words::of("some words".to_owned());
        let changes = change(&folder, &words, &mut Random(3)).unwrap();
        let expected = Changes {
            changed: 5,
            removed: 2,
            added: 2,
        };
        assert_eq!(changes, expected);
        let left = entries(&folder).unwrap();
        assert_eq!(left.len(), 801);
        let as_before = left
            .iter()
            .filter(|(path, _)| std::fs::read(path).unwrap() == b"a");
        assert_eq!(as_before.count(), 801 - 5 - 2);
    }
}
