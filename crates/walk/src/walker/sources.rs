//! What of the tree is to be read.

use snapkeep_api::tree::TreePath;

/// The sources, and which were met.
#[derive(Debug)]
pub(super) struct Sources(Vec<(TreePath, bool)>);

/// What of a folder is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// All of its file system.
    Whole,
    /// Only the way to the sources in it.
    Way,
}

impl Sources {
    pub(super) fn new(all: Vec<TreePath>) -> Self {
        Self(all.into_iter().map(|path| (path, false)).collect())
    }

    /// What is to be read of a folder that is another file system than the one above it, or in which
    /// only a way to sources is; `None` is nothing but the folder itself.
    pub(super) fn part(&mut self, path: &[u8]) -> Option<Part> {
        if self.met(path) {
            return Some(Part::Whole);
        }
        self.names_below(path).next().is_some().then_some(Part::Way)
    }

    /// The paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.0.iter().map(|(path, _)| path)
    }

    /// Notes that the walk is there; whether it is a source.
    pub(super) fn met(&mut self, path: &[u8]) -> bool {
        let mut found = false;
        for (_, met) in self
            .0
            .iter_mut()
            .filter(|(source, _)| source.as_bytes() == path)
        {
            *met = true;
            found = true;
        }
        found
    }

    /// Notes that what is there, and in it, is left out on purpose.
    pub(super) fn excluded(&mut self, path: &[u8]) {
        for (source, met) in &mut self.0 {
            *met |= source.as_bytes() == path || below(source, path).is_some();
        }
    }

    /// The names in a folder that lead to sources.
    pub(super) fn names_below<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(|(source, _)| below(source, path))
    }

    /// The sources that are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &TreePath> {
        self.0.iter().filter(|(_, met)| !met).map(|(path, _)| path)
    }
}

/// The name that leads from a folder to what is below it.
fn below<'a>(source: &'a TreePath, folder: &[u8]) -> Option<&'a [u8]> {
    let source = source.as_bytes();
    let rest = if folder.is_empty() {
        source
    } else {
        source.strip_prefix(folder)?.strip_prefix(b"/")?
    };
    rest.split(|byte| *byte == b'/')
        .next()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::typed(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_way_leads_to_each_source_and_ends_there() {
        let mut sources = Sources::new(vec![path("./mnt/a/b"), path("mnt/ab")]);
        assert_eq!(sources.part(b""), Some(Part::Way));
        assert_eq!(sources.part(b"mnt/a"), Some(Part::Way));
        assert_eq!(sources.part(b"mnt/a/b"), Some(Part::Whole));
        assert_eq!(sources.part(b"mnt/abc"), None);
        let names: Vec<_> = sources.names_below(b"mnt").map(<[u8]>::to_vec).collect();
        assert_eq!(names, [b"a".to_vec(), b"ab".to_vec()]);
        assert_eq!(sources.missing().collect::<Vec<_>>(), [&path("mnt/ab")]);
        sources.excluded(b"mnt");
        assert_eq!(sources.missing().count(), 0);
    }
}
