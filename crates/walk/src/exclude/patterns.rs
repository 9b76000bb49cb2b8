//! All patterns that are in force where the walk is.

use std::sync::Arc;

use snapkeep_api::{Error, ErrorKind, Result};

use super::FILE_NAME;
use super::fault::shown;
use super::file;
use super::pattern::{Pattern, State};
use crate::limits;

/// What the patterns say about an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// No pattern matches: it is taken.
    Unmatched,
    /// A pattern with `!` takes it.
    Included,
    /// It is left out, and all that is in it: it must not be entered.
    Excluded,
}

/// The patterns that are in force in one folder of a tree; at first that is the root.
#[derive(Debug)]
pub struct Patterns {
    /// The administrator's, then those of the files from the root to here: later ones win.
    rules: Vec<Pattern>,
    /// How many are the administrator's.
    given: usize,
    folder: Folder,
    above: Vec<Folder>,
    /// From the root to here, each name with a slash before it.
    path: Vec<u8>,
    warnings: Vec<String>,
    /// Warnings so far, with those that were not kept.
    warned: usize,
}

/// What is in force in a folder, and how much of the lists of [`Patterns`] that is.
#[derive(Clone, Debug)]
struct Folder {
    /// The rules that can match in this folder or below it, in order.
    live: Arc<[Live]>,
    rules: usize,
    /// Bytes of those rules that come from files.
    file_bytes: usize,
    path_bytes: usize,
}

/// A rule, by its place in the list, and how far the path has come in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Live {
    rule: usize,
    state: State,
}

impl Patterns {
    /// The administrator's patterns, in order. A pattern that cannot be used is an error of kind
    /// [`ErrorKind::Invalid`]; for one that can match nothing there is a warning.
    pub fn new<P: AsRef<[u8]>>(given: &[P]) -> Result<Self> {
        if given.len() > limits::PATTERNS_MAX {
            let message = format!(
                "{} exclude patterns are more than {}",
                given.len(),
                limits::PATTERNS_MAX
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let mut patterns = Self {
            rules: Vec::new(),
            given: given.len(),
            folder: Folder {
                live: Arc::new([]),
                rules: 0,
                file_bytes: 0,
                path_bytes: 0,
            },
            above: Vec::new(),
            path: Vec::new(),
            warnings: Vec::new(),
            warned: 0,
        };
        let mut rules = Vec::new();
        for text in given {
            let text = text.as_ref();
            let rule = Pattern::parse(text).map_err(|fault| {
                let message = format!("exclude pattern `{}`: {fault}", shown(text));
                Error::new(ErrorKind::Invalid, message)
            })?;
            if let Some(why) = rule.pointless() {
                patterns.warn(|_| format!("exclude pattern `{}`: {why}", shown(text)));
            }
            rules.push(rule);
        }
        patterns.add(rules);
        Ok(patterns)
    }

    /// Goes into a folder of the folder where the walk is.
    pub fn enter(&mut self, name: &[u8]) {
        let live = self.folder.live.iter().filter_map(|&Live { rule, state }| {
            let state = self.rules[rule].enter(state, name);
            (!state.is_dead()).then_some(Live { rule, state })
        });
        let live: Vec<_> = live.collect();
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        let mut folder = self.folder.clone();
        folder.path_bytes = self.path.len();
        // Mostly nothing changes any more a few folders down; then no memory is needed.
        if *live != *folder.live {
            folder.live = live.into();
        }
        self.above.push(std::mem::replace(&mut self.folder, folder));
    }

    /// Goes back to the folder above; from the root there is no way.
    pub fn leave(&mut self) {
        if let Some(folder) = self.above.pop() {
            self.rules.truncate(folder.rules);
            self.path.truncate(folder.path_bytes);
            self.folder = folder;
        }
    }

    /// Takes in the content of the `.pxarexclude` of the folder where the walk is, before any
    /// question about that folder's entries. Nothing in it is an error: what cannot be used is
    /// ignored, with a warning. It may be cut after [`FILE_READ_BYTES`](super::FILE_READ_BYTES).
    pub fn add_file(&mut self, content: &[u8]) {
        if content.len() > limits::FILE_BYTES_MAX {
            let most = limits::FILE_BYTES_MAX;
            self.warn(|file| format!("{file} is ignored: it has more than {most} bytes"));
            return;
        }
        let mut rules = Vec::new();
        let mut bytes = self.folder.file_bytes;
        for file::Line { number, text } in file::lines(content) {
            let why = match Pattern::parse(text) {
                Ok(rule) => {
                    let why = rule.pointless().map(str::to_owned);
                    bytes += text.len();
                    rules.push(rule);
                    why
                }
                Err(fault) => Some(fault.to_string()),
            };
            if let Some(why) = why {
                self.warn(|file| {
                    let text = shown(text);
                    format!("{file}, line {number}: `{text}` is ignored: {why}")
                });
            }
        }
        // A part of them could leave out what a later `!` would take.
        let in_force = self.rules.len() - self.given + rules.len();
        if in_force > limits::FILE_PATTERNS_MAX || bytes > limits::FILE_PATTERN_BYTES_MAX {
            self.warn(|file| {
                format!(
                    "{file} is ignored: with the files above it, it has {in_force} patterns of \
                     {bytes} bytes together, more than {} of {} bytes",
                    limits::FILE_PATTERNS_MAX,
                    limits::FILE_PATTERN_BYTES_MAX
                )
            });
            return;
        }
        self.folder.file_bytes = bytes;
        self.add(rules);
    }

    /// What the patterns say about an entry of the folder where the walk is. A symbolic link to a
    /// folder is no directory.
    pub fn decide(&self, name: &[u8], is_directory: bool) -> Decision {
        for &Live { rule, state } in self.folder.live.iter().rev() {
            let rule = &self.rules[rule];
            if rule.matches(state, name, is_directory) {
                return if rule.includes {
                    Decision::Included
                } else {
                    Decision::Excluded
                };
            }
        }
        Decision::Unmatched
    }

    /// The warnings since the last call, each with its file and line.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Warnings so far; those above a hundred are only counted.
    pub fn warnings(&self) -> usize {
        self.warned
    }

    /// Adds rules of the folder where the walk is.
    fn add(&mut self, rules: Vec<Pattern>) {
        if rules.is_empty() {
            return;
        }
        let first = self.rules.len();
        let new = (first..).zip(&rules).map(|(rule, pattern)| Live {
            rule,
            state: pattern.start(),
        });
        let live = self.folder.live.iter().copied().chain(new);
        self.folder.live = live.collect();
        self.rules.extend(rules);
        self.folder.rules = self.rules.len();
    }

    /// Keeps a warning, which is given the file of the folder where the walk is.
    fn warn(&mut self, message: impl FnOnce(&str) -> String) {
        self.warned += 1;
        if self.warned < limits::WARNINGS_MAX {
            let file = format!("{}/{FILE_NAME}", shown(&self.path));
            self.warnings.push(message(&file));
        } else if self.warned == limits::WARNINGS_MAX {
            let last = "more lines of .pxarexclude files are ignored, and no longer named";
            self.warnings.push(last.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
