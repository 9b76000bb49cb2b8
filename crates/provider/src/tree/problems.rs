//! What people must know of a container's backup: counted always, told up to a limit.

use snapkeep_api::tree::{ProblemKind, TreePath};
use snapkeep_api::{Level, TaskLog};

use crate::limits::{PATH_TOLD_MAX, PROBLEMS_TOLD_MAX, REASON_TOLD_MAX};

/// The problems of one backup.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) left_out: u64,
    pub(crate) vanished: u64,
    pub(crate) warnings: u64,
    /// Files that the file system told to be unchanged, and were not.
    pub(crate) lies: u64,
    /// Whether they are counted only.
    quiet: bool,
}

impl Problems {
    /// Problems that are not told.
    pub(crate) fn untold() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// Counts a problem, and tells it.
    pub(crate) fn add(&mut self, log: &dyn TaskLog, kind: ProblemKind, path: &TreePath, why: &str) {
        let (count, level, what) = match kind {
            ProblemKind::LeftOut => (&mut self.left_out, Level::Warn, "is left out"),
            ProblemKind::Vanished => (&mut self.vanished, Level::Info, "vanished"),
            ProblemKind::Warning => (&mut self.warnings, Level::Warn, "is kept, but"),
        };
        *count += 1;
        if !self.quiet {
            tell(log, *count, level, path, what, why);
        }
    }

    /// Counts a file that was told to be unchanged, and was not.
    pub(crate) fn add_lie(&mut self, log: &dyn TaskLog, path: &TreePath, offset: u64) {
        self.lies += 1;
        let why = format!(
            "its size, times and inode are as they were, its content at or after offset {offset} is not: \
             the rest of the files are all read, and what was not read may be older than it looks; \
             detect changes by data on this file system"
        );
        tell(log, self.lies, Level::Warn, path, "changed unnoticed", &why);
    }

    /// What the last line of a backup tells.
    pub(crate) fn line(&self) -> String {
        let counts = [
            (self.left_out, "left out"),
            (self.vanished, "vanished"),
            (self.warnings, "with warnings"),
            (self.lies, "changed unnoticed"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        counts.fold(String::new(), |line, (count, what)| {
            format!("{line}, {count} {what}")
        })
    }
}

/// Tells the problem of this number of its kind.
fn tell(log: &dyn TaskLog, number: u64, level: Level, path: &TreePath, what: &str, why: &str) {
    if number <= PROBLEMS_TOLD_MAX {
        let (path, why) = (shown_path(path), cut(&shown(why), REASON_TOLD_MAX));
        log.log(level, &format!("{path} {what}: {why}"));
    } else if number == PROBLEMS_TOLD_MAX + 1 {
        let line = format!(
            "{PROBLEMS_TOLD_MAX} entries were told of which this is so: {what}; the others are only counted"
        );
        log.log(level, &line);
    }
}

/// A path on one line, its middle left out if it is very long.
pub(crate) fn shown_path(path: &TreePath) -> String {
    cut(&path.to_string(), PATH_TOLD_MAX)
}

/// Text on one line.
fn shown(text: &str) -> String {
    let escaped = text.chars().map(|char| {
        if char.is_control() {
            char.escape_default().to_string()
        } else {
            char.to_string()
        }
    });
    escaped.collect()
}

fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let boundaries = || text.char_indices().map(|(at, _)| at);
    let head = boundaries().take_while(|at| *at <= max / 2).last();
    let tail = boundaries().find(|at| *at >= text.len() - max / 2);
    let (head, tail) = (head.unwrap_or(0), tail.unwrap_or(text.len()));
    format!("{}…{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl TaskLog for Lines {
        fn log(&self, _level: Level, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[test]
    fn a_flood_of_problems_is_counted_and_not_told() {
        let (log, mut problems) = (Lines::default(), Problems::default());
        let path = TreePath::new(&b"a\nb"[..]).unwrap();
        for _ in 0..5000 {
            problems.add(&log, ProblemKind::Vanished, &path, "gone\n");
        }
        problems.add(&log, ProblemKind::LeftOut, &path, &"x".repeat(1 << 20));
        assert_eq!((problems.vanished, problems.left_out), (5000, 1));
        let lines = log.0.lock().unwrap();
        assert_eq!(lines.len() as u64, PROBLEMS_TOLD_MAX + 2);
        assert_eq!(lines[0], "/a\\nb vanished: gone\\n");
        assert!(lines.iter().all(|line| line.len() < 8192));
        assert_eq!(problems.line(), ", 1 left out, 5000 vanished");
    }
}
