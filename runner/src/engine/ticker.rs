//! The clock of the epochs.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a guest may compute before others get their turn.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// Advances the engine's epoch until it is dropped. One for the process: a second would make every
/// deadline come early.
#[derive(Debug)]
pub(super) struct Ticker {
    _stop: mpsc::Sender<()>,
}

impl Ticker {
    pub(super) fn start(engine: &wasmtime::Engine) -> Self {
        let (stop, stopped) = mpsc::channel();
        let engine = engine.weak();
        // A thread, not a task: guests that compute may keep every worker of the runtime busy.
        thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let Some(engine) = engine.upgrade() else {
                    break;
                };
                engine.increment_epoch();
            }
        });
        Self { _stop: stop }
    }
}
