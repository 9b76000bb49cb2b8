//! Text for made-up files: stretches of what this machine's own text files hold.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::bench::files::{Files, SYSTEM};
use crate::bench::random::Random;

/// Text to choose from, in bytes.
const ENOUGH: usize = 8 << 20;
/// Of one file at most.
const OF_A_FILE: usize = 32 << 10;
/// Larger files are not looked at.
const LARGEST: u64 = 1 << 20;
/// The longest stretch that is taken at once, in words.
const STRETCH: u64 = 40;

/// The texts one after another, and where each word starts.
#[derive(Debug)]
pub(super) struct Words {
    text: String,
    starts: Vec<usize>,
}

impl Words {
    /// Takes the text of files anywhere in the system; the numbers decide which.
    pub(super) fn gather(random: &mut Random) -> Result<Self> {
        let mut files = Files::below(Path::new(SYSTEM), random)?;
        let mut text = String::new();
        while text.len() < ENOUGH
            && let Some(path) = files.next_path()
        {
            // Some of each folder's: the files of one folder are alike.
            if random.below(8) > 0 || path.metadata()?.len() > LARGEST {
                continue;
            }
            let bytes = std::fs::read(&path)?;
            let bytes = &bytes[..bytes.len().min(OF_A_FILE)];
            if let Ok(found) = std::str::from_utf8(bytes)
                && !found.contains('\0')
            {
                text.push_str(found);
                text.push('\n');
            }
        }
        let words = Self::of(text);
        ensure!(!words.starts.is_empty(), "{SYSTEM} has no text files");
        Ok(words)
    }

    pub(super) fn of(text: String) -> Self {
        let mut starts = Vec::new();
        let mut in_word = false;
        for (place, byte) in text.bytes().enumerate() {
            let is_blank = byte.is_ascii_whitespace();
            if !is_blank && !in_word {
                starts.push(place);
            }
            in_word = !is_blank;
        }
        Self { text, starts }
    }

    /// So many bytes of text.
    pub(super) fn write(&self, length: usize, random: &mut Random) -> Vec<u8> {
        let mut written = Vec::with_capacity(length);
        while written.len() < length {
            let first = random.index(self.starts.len());
            let count = 1 + random.below(STRETCH);
            let behind = first.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
            let end = self.starts.get(behind).copied();
            let end = end.unwrap_or(self.text.len());
            let stretch = &self.text.as_bytes()[self.starts[first]..end];
            let room = length - written.len();
            written.extend_from_slice(&stretch[..stretch.len().min(room)]);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Words};

    #[test]
    fn a_text_is_made_of_the_words_and_as_long_as_was_asked() {
        let words = Words::of(" one two\nthree ".to_owned());
        assert_eq!(words.starts, [1, 5, 9]);
        let written = words.write(500, &mut Random(1));
        assert_eq!(written.len(), 500);
        assert_eq!(written, words.write(500, &mut Random(1)));
        let written = String::from_utf8(written).unwrap();
        let whole = written.rsplit_once(char::is_whitespace).unwrap().0;
        let known = ["one", "two", "three"];
        assert!(
            whole.split_whitespace().all(|word| known.contains(&word)),
            "{written}"
        );
        assert!(words.write(0, &mut Random(1)).is_empty());
    }
}
