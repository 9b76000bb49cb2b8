//! What is told of one thing that was found.

use std::fmt;

use snapkeep_api::{Cancel, Error, Result, TaskLog};

/// Whose it is, if it is ours.
pub const PRODUCT: &str = "snapkeep";
/// Whose it is, if nothing tells.
const UNKNOWN: &str = "unknown";

/// How it is with something that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// A killed job of ours left it.
    Stale,
    /// A job that lives uses it: it is let alone.
    InUse,
    /// It is another product's: it is let alone.
    Foreign,
    /// It is so young that a job elsewhere may use it: it is let alone until it is older.
    Recent,
    /// It should be there, and is not.
    Gone,
    /// It could not be looked at, so that nothing is known.
    Unseen,
    /// It was looked at, and is told for whoever wants to know.
    Fine,
}

impl State {
    /// Its word, the same in text and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::InUse => "in use",
            Self::Foreign => "foreign",
            Self::Recent => "recent",
            Self::Gone => "gone",
            Self::Unseen => "could not look",
            Self::Fine => "fine",
        }
    }
}

/// Whose something is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The product, or "unknown".
    pub product: String,
    /// What tells the job from others.
    pub job: Option<String>,
    /// Its process, if that lives.
    pub process: Option<u32>,
}

impl Owner {
    /// A job of ours.
    pub fn ours(job: impl Into<String>) -> Self {
        Self {
            product: PRODUCT.to_owned(),
            job: Some(job.into()),
            process: None,
        }
    }

    /// Another product.
    pub fn other(product: impl Into<String>) -> Self {
        Self {
            product: product.into(),
            job: None,
            process: None,
        }
    }

    /// Nothing tells.
    pub fn unknown() -> Self {
        Self::other(UNKNOWN)
    }

    /// The same, with the process of the job.
    #[must_use]
    pub fn with_process(mut self, process: Option<u32>) -> Self {
        self.process = process;
        self
    }
}

/// Heals something; says what it did.
pub type Remedy = Box<dyn FnOnce(&dyn TaskLog, &Cancel) -> Result<String>>;

/// Something that a killed job left, or that looks like it.
pub struct Finding {
    /// What kind of thing it is, in one word.
    pub kind: &'static str,
    /// What was found.
    pub what: String,
    /// Where it is: a path.
    pub place: String,
    /// Whose it is.
    pub owner: Owner,
    /// How it is with it.
    pub state: State,
    /// What it costs to leave it.
    pub cost: String,
    /// What healing does, or what somebody may do by hand.
    pub healing: String,
    remedy: Option<Remedy>,
}

impl Finding {
    /// Something that a killed job of ours left, and how it is healed.
    pub fn stale(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            kind,
            what: what.into(),
            place: escaped(&place.to_string()),
            owner,
            state: State::Stale,
            cost: String::new(),
            healing: String::new(),
            remedy: None,
        }
    }

    /// Something that a job that lives uses.
    pub fn in_use(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            state: State::InUse,
            cost: "nothing: it is taken back when the job ends".to_owned(),
            healing: "none: a job that lives uses it".to_owned(),
            ..Self::stale(kind, what, place, owner)
        }
    }

    /// Something that a killed job of ours may have left, or one that lives elsewhere may use.
    pub fn recent(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            state: State::Recent,
            ..Self::stale(kind, what, place, owner)
        }
    }

    /// Something of another product.
    pub fn foreign(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            state: State::Foreign,
            healing: "none: it is not ours".to_owned(),
            ..Self::stale(kind, what, place, owner)
        }
    }

    /// Something that should be there, and is not.
    pub fn gone(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            state: State::Gone,
            ..Self::stale(kind, what, place, owner)
        }
    }

    /// Something that is as it may be.
    pub fn fine(
        kind: &'static str,
        what: impl Into<String>,
        place: impl fmt::Display,
        owner: Owner,
    ) -> Self {
        Self {
            state: State::Fine,
            cost: "nothing".to_owned(),
            healing: "none: it is as it may be".to_owned(),
            ..Self::stale(kind, what, place, owner)
        }
    }

    /// Something that could not be looked at.
    pub fn unseen(kind: &'static str, place: impl fmt::Display, why: &Error) -> Self {
        Self {
            state: State::Unseen,
            cost: "unknown".to_owned(),
            healing: "none: mend what is in the way, and look again".to_owned(),
            ..Self::stale(kind, why.chain(), place, Owner::unknown())
        }
    }

    /// The same, with what it costs to leave it.
    #[must_use]
    pub fn costs(mut self, cost: impl Into<String>) -> Self {
        self.cost = cost.into();
        self
    }

    /// The same, with what healing does, or somebody may do by hand.
    #[must_use]
    pub fn heals_by(mut self, healing: impl Into<String>) -> Self {
        self.healing = healing.into();
        self
    }

    /// The same, with a way to heal it.
    #[must_use]
    pub fn with_remedy(
        mut self,
        remedy: impl FnOnce(&dyn TaskLog, &Cancel) -> Result<String> + 'static,
    ) -> Self {
        self.remedy = Some(Box::new(remedy));
        self
    }

    /// Heals it; `None` if it is not to be healed, or cannot be.
    pub fn heal(&mut self, log: &dyn TaskLog, cancel: &Cancel) -> Option<Result<String>> {
        let remedy = self.remedy.take()?;
        (self.state == State::Stale).then(|| remedy(log, cancel))
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f.debug_struct("Finding"))
            .field("kind", &self.kind)
            .field("what", &self.what)
            .field("place", &self.place)
            .field("owner", &self.owner)
            .field("state", &self.state)
            .field("heals", &self.remedy.is_some())
            .finish_non_exhaustive()
    }
}

/// A path for a message: on one line.
fn escaped(text: &str) -> String {
    let escaped = text.chars().map(|c| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    });
    escaped.collect()
}
