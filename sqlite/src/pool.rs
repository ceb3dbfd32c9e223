//! Connections, and the threads that use them.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{Instrument as _, Span};

use crate::error::DriverError;

/// Opens another connection.
pub(crate) type Connect = Box<dyn Fn() -> rusqlite::Result<Connection> + Send + Sync>;

/// Some connections, each for one piece of work at a time. They are given out in the order in which
/// they were asked for.
pub(crate) struct Pool {
    connect: Connect,
    free: Mutex<Vec<Connection>>,
    size: u32,
    permits: Arc<Semaphore>,
    patience: Duration,
}

impl Pool {
    /// At most `size` connections, opened when they are needed, for each of which somebody waits as
    /// long as `patience`.
    pub(crate) fn new(size: u32, patience: Duration, connect: Connect) -> Self {
        Self {
            connect,
            free: Mutex::default(),
            size,
            permits: Arc::new(Semaphore::new(
                usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS),
            )),
            patience,
        }
    }

    /// Does `work` on a thread that may block.
    ///
    /// Goes on to its end once it has begun, also where nobody waits for it any more.
    pub(crate) async fn run<T, E>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(DriverError::Closed.into()),
            Err(TryAcquireError::NoPermits) => return self.wait_and_run(work).await,
        };
        self.run_with(permit, work).await
    }

    /// Waits for a connection in a task of its own. The caller may be part of something that is not
    /// polled for a while, and a connection that was given to it would be of use to nobody.
    async fn wait_and_run<T, E>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        let pool = Arc::clone(self);
        let waits_and_runs = async move {
            let permit = timeout(pool.patience, Arc::clone(&pool.permits).acquire_owned())
                .await
                .map_err(|_| DriverError::NoConnection(pool.patience))?
                .map_err(|_| DriverError::Closed)?;
            pool.run_with(permit, work).await
        };
        // A set, as that ends its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(waits_and_runs.in_current_span());
        let done = task.join_next().await;
        done.and_then(Result::ok)
            .unwrap_or_else(|| Err(DriverError::Closed.into()))
    }

    async fn run_with<T, E>(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DriverError> + Send + 'static,
    {
        let pool = Arc::clone(self);
        let span = Span::current();
        let done = spawn_blocking(move || {
            let _in_span = span.entered();
            let mut lease = pool.lease(permit)?;
            work(&mut lease)
        });
        match done.await {
            Ok(done) => done,
            Err(failed) if failed.is_panic() => Err(DriverError::Panicked.into()),
            Err(_) => Err(DriverError::Closed.into()),
        }
    }

    /// Waits for what is going on and closes the connections.
    pub(crate) async fn close(&self) {
        // Fails where it is closed already.
        if let Ok(_all) = self.permits.acquire_many(self.size).await {
            self.permits.close();
        }
        let connections = std::mem::take(&mut *self.free());
        // The last connection to a database moves its log to it.
        let closing = spawn_blocking(move || drop(connections));
        let _stopped = closing.await.is_err();
    }

    fn lease(self: Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Lease, DriverError> {
        let free = self.free().pop();
        let connection = match free {
            Some(connection) => connection,
            None => (self.connect)()?,
        };
        Ok(Lease {
            connection: Some(connection),
            pool: self,
            _permit: permit,
        })
    }

    fn free(&self) -> impl DerefMut<Target = Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A connection in use. Goes back when it is dropped, also by a panic, and then lets the next one
/// have it.
struct Lease {
    /// There until it is dropped.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = self.connection.take();
        // A transaction that is left open is undone. Where that fails, nobody has a use for the
        // connection and it is closed.
        let reusable = connection
            .filter(|left| left.is_autocommit() || left.execute_batch("ROLLBACK").is_ok());
        self.pool.free().extend(reusable);
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("there until it is dropped")
    }
}
