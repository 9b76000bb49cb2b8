//! One pass over the files of a container. When all is read, the container goes on at once, before the
//! provider commits.

use std::time::Instant;

use snapkeep_api::tree::{Content, KnownTree, Step, TreeSource};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use super::limits::Timeouts;
use super::lxc::{Lxc, State};
use super::session::Session;

/// The source of one pass.
pub(super) struct Pass<'a, 's> {
    source: Option<Box<dyn TreeSource>>,
    session: &'a mut Session<'s>,
    still: Option<(&'a Lxc, State)>,
    times: &'a Timeouts,
    log: &'a dyn TaskLog,
    over: Option<Instant>,
}

impl<'a, 's> Pass<'a, 's> {
    /// `still` is the container that is kept still, and how.
    pub(super) fn new(
        source: Box<dyn TreeSource>,
        still: Option<(&'a Lxc, State)>,
        session: &'a mut Session<'s>,
        times: &'a Timeouts,
        log: &'a dyn TaskLog,
    ) -> Self {
        Self {
            source: Some(source),
            session,
            still,
            times,
            log,
            over: None,
        }
    }

    /// Ends it, if it has not ended; when it did.
    pub(super) fn over(mut self) -> Instant {
        self.end();
        self.over.unwrap_or_else(Instant::now)
    }

    fn end(&mut self) {
        if let Some(source) = self.source.take() {
            // It may hold the snapshot.
            drop(source);
            self.tell_if_it_went_on();
            // What fails is in the log, and is tried again at the end.
            self.session.take_back().ok();
            self.over = Some(Instant::now());
        }
    }

    fn tell_if_it_went_on(&self) {
        let Some((lxc, still)) = &self.still else {
            return;
        };
        let state = lxc.state(self.session.lock().stdin(), self.times);
        let is = match state {
            Ok(state) if state == *still => return,
            Ok(state) => format!("LXC calls it {state:?}"),
            Err(e) => e.chain(),
        };
        let line = format!(
            "the container did not stand still until its files were read: {is}; they may not fit together"
        );
        self.log.log(Level::Warn, &line);
    }
}

impl TreeSource for Pass<'_, '_> {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        let Some(source) = &mut self.source else {
            return Ok(None);
        };
        let next = source.next(known);
        // After an error it stays: whoever asks again must not take it for a tree that ended well.
        if matches!(next, Ok(None)) {
            self.end();
        }
        next
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        match &mut self.source {
            Some(source) => source.read(buffer),
            None => Err(Error::new(
                ErrorKind::Protocol,
                "the provider reads on after the tree's end",
            )),
        }
    }
}
