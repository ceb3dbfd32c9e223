//! Notifications that other sessions send.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Acquire as _, Connection as _, PgConnection};

use crate::database::Database;
use crate::error::DriverError;

/// How long the server may take to answer, or a notification to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// After how long a silent session is asked whether it is there: one whose machine is gone looks the same.
const SILENCE: Duration = Duration::from_secs(30);
/// How the notifications begin by which listeners try whether they hear; nobody else is meant.
const TRIAL: &str = "trial ";
/// What the sessions are called in `pg_stat_activity`.
const NAME: &str = "alga-runner listener";

/// A session that hears what is sent to a channel.
pub struct Listener {
    session: PgListener,
}

/// Why nothing is heard, or nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The database can't be reached, or a statement failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The session ended.
    #[error("the session that listens has ended")]
    Ended,
    /// The server doesn't answer.
    #[error("the session that listens had no answer in {} ms", .0.as_millis())]
    Silent(Duration),
    /// What is sent doesn't arrive.
    #[error(
        "notifications do not arrive; the direct URL must lead to the same database without a pooler in transaction mode"
    )]
    Unheard,
}

impl From<sqlx::Error> for ListenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl Listener {
    /// Listens in a session of `direct`, and makes sure that what is sent through `database` arrives there.
    pub(crate) async fn open(
        database: &Database,
        direct: &PgConnectOptions,
        channel: &'static str,
    ) -> Result<Self, ListenError> {
        let (mut listener, token) = in_time(Self::connect(direct, channel)).await?;
        let trial = [TRIAL, &token].concat();
        // On the heap: what waits for a connection is large.
        in_time(Box::pin(notify(database, channel, &trial))).await?;
        let heard = tokio::time::timeout(PATIENCE, listener.hear(&trial)).await;
        heard.map_err(|_| ListenError::Unheard)??;
        Ok(listener)
    }

    /// The next notification that is sent by somebody who has something to say. May be given up and called again.
    ///
    /// # Errors
    /// Where nothing more is heard. What was sent since the last notification may be lost.
    pub async fn next(&mut self) -> Result<String, ListenError> {
        loop {
            match tokio::time::timeout(SILENCE, self.receive()).await {
                Ok(heard) => {
                    let heard = heard?;
                    if !heard.starts_with(TRIAL) {
                        return Ok(heard);
                    }
                }
                Err(_) => in_time(self.ping()).await?,
            }
        }
    }

    /// A session that listens, and a text that nobody else has.
    async fn connect(
        direct: &PgConnectOptions,
        channel: &str,
    ) -> Result<(Self, String), ListenError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(direct.clone().application_name(NAME));
        let mut session = PgListener::connect_with(&pool).await?;
        session.ignore_pool_close_event(true);
        // What is missed meanwhile, only the caller can make up for.
        session.eager_reconnect(false);
        session.listen(channel).await?;
        let token = sqlx::query_scalar("SELECT gen_random_uuid()::text");
        let token = token.fetch_one(&mut session).await?;
        Ok((Self { session }, token))
    }

    async fn hear(&mut self, expected: &str) -> Result<(), ListenError> {
        while self.receive().await? != expected {}
        Ok(())
    }

    async fn receive(&mut self) -> Result<String, ListenError> {
        let heard = self.session.try_recv().await?;
        Ok(heard.ok_or(ListenError::Ended)?.payload().to_owned())
    }

    async fn ping(&mut self) -> Result<(), ListenError> {
        self.session.acquire().await?.ping().await?;
        Ok(())
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// Sends what is heard once the transaction is committed.
async fn notify(database: &Database, channel: &str, text: &str) -> Result<(), ListenError> {
    let statements = database.statements();
    let notifying = database.write(async |connection: &mut PgConnection| {
        let notify = statements.of("SELECT pg_notify($1, $2)");
        let notified = notify.bind(channel).bind(text).execute(connection).await;
        notified.map_err(DriverError::from)
    });
    notifying.await?;
    Ok(())
}

async fn in_time<T>(work: impl Future<Output = Result<T, ListenError>>) -> Result<T, ListenError> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or(Err(ListenError::Silent(PATIENCE)))
}
