//! What a run has asked of an endpoint, and how much it may.

use std::sync::{Mutex, MutexGuard, PoisonError};

use snapkeep_repo::{Error, ErrorKind, Result};

/// What a request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Put,
    Get,
    Head,
    List,
    Delete,
    /// To whoever hands out credentials: neither counted nor bounded.
    Credentials,
}

/// Requests that were sent, also those that were tried again, and bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Objects written.
    pub puts: u64,
    /// Objects read, or ranges of them.
    pub gets: u64,
    /// Questions about an object.
    pub heads: u64,
    /// Pages of lists.
    pub lists: u64,
    /// Objects removed.
    pub deletes: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

impl Usage {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }
}

/// How much a run may use; what is reached stops it before the next request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Budget {
    /// The most requests.
    pub requests: Option<u64>,
    /// The most bytes, both ways together.
    pub bytes: Option<u64>,
}

/// Counts for everybody who uses the storages of a run.
#[derive(Debug, Default)]
pub struct Account {
    budget: Budget,
    usage: Mutex<Usage>,
}

impl Account {
    /// With nothing used yet of what may be used.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            usage: Mutex::default(),
        }
    }

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        *self.locked()
    }

    fn locked(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that is about to be sent with a body of so many bytes, or refuses it.
    pub(crate) fn begin(&self, request: Request, body: u64) -> Result<()> {
        let mut usage = self.locked();
        let spent = |what: &str, limit: u64| {
            let what = format!(
                "the budget of {limit} {what} for one run is used up; raise it, or run again later: \
                 what was stored is kept"
            );
            Err(Error::new(ErrorKind::Denied, what))
        };
        if request == Request::Credentials {
            return Ok(());
        }
        if let Some(limit) = self.budget.requests
            && usage.requests() >= limit
        {
            return spent("requests", limit);
        }
        if let Some(limit) = self.budget.bytes
            && (usage.sent + usage.received).saturating_add(body) > limit
        {
            return spent("bytes", limit);
        }
        match request {
            Request::Put => usage.puts += 1,
            Request::Get => usage.gets += 1,
            Request::Head => usage.heads += 1,
            Request::List => usage.lists += 1,
            Request::Delete => usage.deletes += 1,
            Request::Credentials => {}
        }
        usage.sent += body;
        Ok(())
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.locked().received += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_stops_before_the_next_request() {
        let account = Account::new(Budget {
            requests: Some(2),
            bytes: None,
        });
        account.begin(Request::Put, 5).unwrap();
        account.begin(Request::List, 0).unwrap();
        let error = account.begin(Request::Get, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("2 requests"), "{error}");
        assert_eq!(account.usage().requests(), 2);
    }

    #[test]
    fn a_budget_of_bytes_counts_both_ways() {
        let account = Account::new(Budget {
            requests: None,
            bytes: Some(10),
        });
        account.begin(Request::Put, 6).unwrap();
        account.received(4);
        account.begin(Request::Head, 0).unwrap();
        assert!(account.begin(Request::Put, 1).is_err());
    }
}
