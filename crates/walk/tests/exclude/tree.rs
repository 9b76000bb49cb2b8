//! A tree as a list of paths, and what the patterns take of it.

use snapkeep_walk::exclude::{Decision, FILE_NAME, Patterns};

/// Paths below the root in order, folders before what is in them, a folder with a slash at its end;
/// and with it the content of a `.pxarexclude`.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    entries: Vec<(String, Vec<u8>)>,
}

impl Tree {
    /// A tree of these paths; the folders that they lie in need not be named.
    pub(crate) fn new<P: AsRef<str>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut tree = Self::default();
        for path in paths {
            tree.add(path.as_ref(), b"");
        }
        tree
    }

    pub(crate) fn add(&mut self, path: &str, content: &[u8]) {
        for (slash, _) in path.match_indices('/') {
            self.insert(&path[..=slash], b"");
        }
        self.insert(path, content);
    }

    fn insert(&mut self, path: &str, content: &[u8]) {
        match self
            .entries
            .binary_search_by(|(known, _)| known.as_str().cmp(path))
        {
            Ok(at) if !path.ends_with('/') => self.entries[at].1 = content.to_vec(),
            Ok(_) => (),
            Err(at) => self.entries.insert(at, (path.to_owned(), content.to_vec())),
        }
    }

    /// Folders before what is in them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.entries.iter();
        entries.map(|(path, content)| (path.as_str(), content.as_slice()))
    }

    /// The paths that a backup with these patterns takes, in order. Excluded folders are not read.
    pub(crate) fn taken<P: AsRef<[u8]>>(&self, given: &[P]) -> Vec<String> {
        let mut patterns = Patterns::new(given).unwrap();
        let mut taken = Vec::new();
        self.visit("", &mut patterns, &mut taken);
        assert_eq!(patterns.take_warnings(), [""; 0]);
        taken.sort();
        taken
    }

    fn visit(&self, folder: &str, patterns: &mut Patterns, taken: &mut Vec<String>) {
        let inside = self.entries().filter_map(|(path, content)| {
            let name = path.strip_prefix(folder)?;
            let is_direct = !name.is_empty() && !bare(name).contains('/');
            is_direct.then_some((path, name, content))
        });
        let inside: Vec<_> = inside.collect();
        for (_, name, content) in &inside {
            if *name == FILE_NAME {
                patterns.add_file(content);
            }
        }
        for (path, name, _) in inside {
            let is_directory = name.ends_with('/');
            let bare = bare(name).as_bytes();
            if patterns.decide(bare, is_directory) == Decision::Excluded {
                continue;
            }
            taken.push(path.to_owned());
            if is_directory {
                patterns.enter(bare);
                self.visit(path, patterns, taken);
                patterns.leave();
            }
        }
    }
}

fn bare(name: &str) -> &str {
    name.strip_suffix('/').unwrap_or(name)
}
