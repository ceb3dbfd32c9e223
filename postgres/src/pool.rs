//! Connections that are used again.
//!
//! Not sqlx's own pool, which asks the server whether a connection is still there whenever one comes back,
//! in a task of its own: a second round trip for each statement.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{
    self, Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::error::DriverError;
use crate::options::Options;

/// A connection that was idle for longer may have been cut without its knowledge, and is asked first
/// whether it is there.
const TRUSTED: Duration = Duration::from_secs(5);
/// Older ones are replaced, so that connections come to spread over servers that were added.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Connections that are used again.
#[derive(Debug)]
pub(crate) struct Pool {
    connections: managed::Pool<Connections>,
    patience: Duration,
}

/// A connection of a pool. It goes back to it when it is [finished](Self::finish) with. One that is given up half-way
/// is closed: nobody knows what is still on its way to it.
#[derive(Debug)]
pub(crate) struct Lent(Option<Object<Connections>>);

struct Connections {
    database: PgConnectOptions,
    /// How long one that may be lost has to answer.
    doubt: Duration,
    /// When one was last found to be lost.
    lost: Mutex<Option<Instant>>,
}

/// Without the options, which show a password.
impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects when it is first used.
    pub(crate) fn new(database: PgConnectOptions, options: &Options) -> Self {
        let most = usize::try_from(options.max_connections.get()).unwrap_or(usize::MAX);
        let patience = options.acquire_timeout;
        let connections = Connections {
            database,
            // Leaves time to connect anew.
            doubt: patience / 2,
            lost: Mutex::default(),
        };
        // Without its own timeouts: one around everything is enough, and each costs every statement a timer.
        // Who asks again at once gets the connection that they gave back: what it holds is still in the processor's
        // cache, here and in the server. Those at the other end become old, and are asked before they are used.
        let connections = managed::Pool::builder(connections)
            .max_size(most)
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("without timeouts it needs no runtime");
        Self {
            connections,
            patience,
        }
    }

    pub(crate) async fn get(&self) -> Result<Lent, DriverError> {
        // Around all of it: connections that turn out to be cut are tried one after the other.
        let connection = tokio::time::timeout(self.patience, self.connections.get()).await;
        let connection = connection.map_err(|_| DriverError::NoConnection(self.patience))?;
        let connection = connection.map_err(|error| match error {
            PoolError::Backend(source) => DriverError::from(source),
            PoolError::Closed => DriverError::Closed,
            _ => DriverError::NoConnection(self.patience),
        })?;
        Ok(Lent(Some(connection)))
    }

    /// Tells that a connection turned out to be lost. What took it most likely took those that are idle
    /// as well: none of them is used again.
    pub(crate) fn note_loss(&self) {
        self.connections.manager().note_loss();
    }

    /// Gives no connection away any more, and waits for those that are lent, but not for longer than
    /// `patience`.
    pub(crate) async fn close(&self, patience: Duration) {
        const LOOK: Duration = Duration::from_millis(5);
        self.connections.close();
        let all_back = async {
            while self.connections.status().size > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(patience, all_back).await.is_err() {
            tracing::warn!("closed a database while it was in use");
        }
    }
}

impl Connections {
    fn note_loss(&self) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn lost_since(&self, used: Instant) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.is_some_and(|lost| lost >= used)
    }
}

impl Manager for Connections {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.database.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut PgConnection,
        metrics: &Metrics,
    ) -> RecycleResult<sqlx::Error> {
        // Read once, as every statement comes by here.
        let now = Instant::now();
        let used = metrics.recycled.unwrap_or(metrics.created);
        if now.saturating_duration_since(metrics.created) > LIFE {
            return Err(RecycleError::message("it is old"));
        }
        if self.lost_since(used) {
            return Err(RecycleError::message("others like it were lost"));
        }
        if now.saturating_duration_since(used) > TRUSTED {
            let answered = tokio::time::timeout(self.doubt, connection.ping()).await;
            if !matches!(answered, Ok(Ok(()))) {
                self.note_loss();
                return Err(RecycleError::message("it is lost"));
            }
        }
        Ok(())
    }
}

impl Lent {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.0
            .as_mut()
            .expect("it is there until it is finished with")
    }

    /// Whether it has been used before, so that it may have been lost without its knowledge.
    pub(crate) fn is_used(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|it| Object::metrics(it).recycle_count > 0)
    }

    /// Nothing is on its way to it any more.
    pub(crate) fn finish(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}
