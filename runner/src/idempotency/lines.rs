//! Those who use the same key now, one behind the other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alga_model::InstallId;
use alga_registry::IdempotencyKey;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Whose key it is, and the key.
pub(super) type LineId = (InstallId, IdempotencyKey);

/// For each key that somebody uses now, those who do.
#[derive(Default)]
pub(super) struct Lines(Mutex<HashMap<LineId, Line>>);

/// Whoever is in front has the guard.
type Line = Arc<AsyncMutex<()>>;

/// A place in a line. Left when it is dropped.
pub(super) struct Place {
    lines: Arc<Lines>,
    id: LineId,
    line: Line,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Lines {
    /// The last place in a line, which is the front one where nobody else is there.
    pub(super) fn stand(self: &Arc<Self>, id: LineId) -> Place {
        let line = Arc::clone(self.lock().entry(id.clone()).or_default());
        let guard = Arc::clone(&line).try_lock_owned().ok();
        Place {
            lines: Arc::clone(self),
            id,
            line,
            guard,
        }
    }

    /// How many lines there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LineId, Line>> {
        // Poisoning would need a panic below, which moves plain values only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) const fn is_front(&self) -> bool {
        self.guard.is_some()
    }

    /// Waits until everybody before has left.
    pub(super) async fn come_to_front(&mut self) {
        if self.guard.is_none() {
            self.guard = Some(Arc::clone(&self.line).lock_owned().await);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        drop(self.guard.take());
        drop(std::mem::take(&mut self.line));
        // What is left is the map's own; whoever comes or leaves needs the lock that is held here.
        let others = lines.get(&self.id).map_or(0, Arc::strong_count);
        if others == 1 {
            lines.remove(&self.id);
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}
