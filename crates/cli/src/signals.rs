//! SIGINT and SIGTERM: the first asks for the end, the second ends at once.

use std::sync::mpsc::{Receiver, channel};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use snapkeep_api::Cancel;

use crate::report::remark;

/// The wish to end, and a way to wait for it.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) cancel: Cancel,
    asked: Receiver<()>,
}

impl Stop {
    /// From here on signals do not kill the program, but cancel what it does. Questions on the
    /// terminal are asked before, so that they can be interrupted. Quiet says nothing of it.
    pub(crate) fn watch(quiet: bool) -> Result<Self> {
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
        let cancel = Cancel::new();
        let (sender, asked) = channel();
        let wish = cancel.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    if wish.is_cancelled() {
                        if let Err(error) = emulate_default_handler(signal) {
                            remark(&format!("cannot end at once: {error}"));
                        }
                        continue;
                    }
                    wish.cancel();
                    if !quiet {
                        remark("a signal asks for the end: cleaning up (once more ends at once)");
                    }
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            })
            .context("cannot watch for signals")?;
        Ok(Self { cancel, asked })
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) -> Result<()> {
        self.asked.recv().context("nothing watches for signals")
    }
}
