//! Where the walk is, and whether the next thing may come there.

use std::collections::VecDeque;

use snapkeep_api::Result;
use snapkeep_api::tree::limits::DEPTH_MAX;
use snapkeep_api::tree::{EntryKind, Found, FoundKind, Judgement, KnownTree, Name, Told, TreePath};

use super::broken;
use crate::stream::{Fault, Sent};

/// The folders that were entered and not left.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Of the folder that was entered last.
    path: TreePath,
    /// Folders that were entered and not left, the root among them.
    depth: usize,
    /// The root was left.
    over: bool,
    /// The last name that was told in this folder. That of each folder above is in the path.
    last: Option<Name>,
    /// What was asked about and not told yet.
    asked: VecDeque<Asked>,
}

#[derive(Debug)]
struct Asked {
    name: Name,
    directory: bool,
    judgement: Judgement,
}

impl Order {
    /// The folder that the walk is in.
    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    /// Has a question answered.
    pub(super) fn ask(
        &mut self,
        all: Vec<(Name, Found)>,
        known: &mut dyn KnownTree,
    ) -> Result<Vec<Judgement>> {
        self.inside().map_err(broken)?;
        // What was asked about before and not told is gone.
        let mut last = self.asked.pop_back().map(|asked| asked.name);
        self.asked.clear();
        let mut judged = Vec::with_capacity(all.len());
        for (name, found) in all {
            if last
                .as_ref()
                .or(self.last.as_ref())
                .is_some_and(|last| *last >= name)
            {
                return Err(broken(Fault("it asks in the wrong order")));
            }
            last = Some(name.clone());
            let judgement = known.judge(&name, &found)?;
            judged.push(judgement);
            self.asked.push_back(Asked {
                name,
                directory: found.kind == FoundKind::Directory,
                judgement,
            });
        }
        Ok(judged)
    }

    pub(super) fn enter(&mut self, sent: Sent) -> Result<Told, Fault> {
        let told = if self.depth == 0 && !self.over {
            root(sent)?
        } else {
            self.tell(sent, true)?
        };
        if !self.asked.is_empty() {
            return Err(Fault("it asked about more than it told before a folder"));
        }
        // The root is above all others, so that an entry may have one folder more.
        if self.depth > DEPTH_MAX {
            return Err(Fault("the tree is too deep"));
        }
        if let Some(name) = &told.name {
            self.path.push(name);
        }
        self.depth += 1;
        self.last = None;
        Ok(told)
    }

    pub(super) fn entry(&mut self, sent: Sent) -> Result<Told, Fault> {
        if self.depth > DEPTH_MAX {
            return Err(Fault("the tree is too deep"));
        }
        self.tell(sent, false)
    }

    pub(super) fn leave(&mut self) -> Result<(), Fault> {
        self.inside()?;
        self.asked.clear();
        self.depth -= 1;
        self.over = self.depth == 0;
        self.last = match self.path.names().next_back().map(Name::new) {
            None => None,
            Some(name) => Some(name.map_err(|_| Fault("the path has an impossible name"))?),
        };
        self.path.pop();
        Ok(())
    }

    /// Fails if no folder is entered.
    pub(super) fn inside(&self) -> Result<(), Fault> {
        if self.depth == 0 {
            return Err(Fault("it tells something outside of the root"));
        }
        Ok(())
    }

    /// Fails if the root was not left.
    pub(super) fn all_told(&self) -> Result<(), Fault> {
        if !self.over {
            return Err(Fault("it ends within the tree"));
        }
        Ok(())
    }

    fn tell(&mut self, sent: Sent, directory: bool) -> Result<Told, Fault> {
        self.inside()?;
        let Sent {
            name: Some(name),
            entry,
            witness,
            ..
        } = sent
        else {
            return Err(Fault("it tells an entry without a name"));
        };
        if self.last.as_ref().is_some_and(|last| *last >= name) {
            return Err(Fault("it tells entries in the wrong order"));
        }
        let judged = self.judged(&name, directory)?;
        let is_right = match &entry {
            None => judged == Judgement::Known,
            Some(entry) => judged != Judgement::Known && entry.kind.is_directory() == directory,
        };
        if !is_right {
            return Err(Fault("it tells an entry as something else than it has to"));
        }
        self.last = Some(name.clone());
        Ok(Told {
            name: Some(name),
            judged,
            entry,
            witness,
        })
    }

    /// What was answered about an entry. What comes before it was asked about and is gone.
    fn judged(&mut self, name: &Name, directory: bool) -> Result<Judgement, Fault> {
        while self.asked.front().is_some_and(|asked| asked.name <= *name) {
            let Some(asked) = self.asked.pop_front() else {
                break;
            };
            if asked.name == *name {
                if asked.judgement == Judgement::Known && asked.directory != directory {
                    return Err(Fault("what is known is told as something else"));
                }
                return Ok(asked.judgement);
            }
        }
        Ok(Judgement::Read)
    }
}

fn root(sent: Sent) -> Result<Told, Fault> {
    let is_directory = |kind: &EntryKind| kind.is_directory();
    let is_right =
        sent.name.is_none() && sent.entry.as_ref().is_some_and(|e| is_directory(&e.kind));
    if !is_right {
        return Err(Fault("the root is no folder, or has a name"));
    }
    Ok(Told {
        name: None,
        judged: Judgement::Read,
        entry: sent.entry,
        witness: sent.witness,
    })
}
