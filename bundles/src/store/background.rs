//! What goes on when nobody waits for it.

use std::sync::Arc;

use tokio::sync::watch;

/// The tasks of a store that nobody may wait for. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Background(Arc<watch::Sender<usize>>);

/// A task that goes on as long as this lives.
#[derive(Debug)]
pub(super) struct Busy(Background);

impl Background {
    /// Counts a task.
    pub(super) fn busy(&self) -> Busy {
        self.0.send_modify(|tasks| *tasks += 1);
        Busy(self.clone())
    }

    /// Waits until no task is left.
    pub(super) async fn settle(&self) {
        let mut tasks = self.0.subscribe();
        // The sender lives as long as this.
        let _ = tasks.wait_for(|tasks| *tasks == 0).await;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.send_modify(|tasks| *tasks -= 1);
    }
}
