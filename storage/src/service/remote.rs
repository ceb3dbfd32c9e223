//! The storage service in another process, asked over HTTP.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use alga_model::{ErrorChain, Secret};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::trust::{InvalidAuthorities, http_client_builder};
use super::{CheckedList, Put, Scope, StorageClient};
use crate::contract::{
    DeleteRequest, GetManyRequest, GetRequest, Key, Namespace, OperationId, Page, Record, Usage,
    Written,
};
use crate::error::{BulkError, Error, ErrorCode, FailedItem};
use crate::wire::{
    self, DeletedBody, ManyBody, PageBody, RecordBody, UsageBody, WrittenAllBody, WrittenBody,
};

/// The header that says who asks.
const AUTH: HeaderName = HeaderName::from_static("x-runner-auth");
/// The header that says for whom.
const ACTOR: HeaderName = HeaderName::from_static("x-alga-actor");
/// The header that joins what both processes log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that says which API is spoken.
const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-alga-storage-version"),
    HeaderValue::from_static("1"),
);
/// How long after a failure of the way there a request is sent again; twice as long after the next one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often a request is sent again.
const REPEATS: u32 = 2;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(60);

/// Asks a storage service that another process serves.
///
/// Every write is known by an id, so that it may be sent again where its answer was lost: it is done once.
pub struct RemoteService {
    http: Client,
    url: Url,
    token: HeaderValue,
    /// As many requests as may be under way.
    places: Semaphore,
    timeout: Duration,
}

/// Where a storage service is and how it is asked.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// What the paths of the API are added to.
    pub url: Url,
    /// Says who asks.
    pub token: Secret<String>,
    /// Certificates, as PEM, that vouch for the service where it is at https; the system's otherwise.
    pub authorities: Option<Vec<u8>>,
    /// Requests under way at once; with HTTP/1.1 as many connections. Others wait.
    pub max_in_flight: NonZeroU32,
    /// How long an operation may take, with all that is repeated, before it is [`Error::Unavailable`].
    pub timeout: Duration,
    /// Speak HTTP/2 without TLS too: the service is known to. Over TLS it is agreed upon.
    pub http2_without_tls: bool,
}

/// Options that no client can be made of.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRemote {
    /// The token is no text for a header.
    #[error("the token of the storage service holds characters that no header can")]
    Token,
    /// The certificates are none.
    #[error(transparent)]
    Authorities(#[from] InvalidAuthorities),
    /// The client can't be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

impl RemoteService {
    /// A client of the service that `options` describe. It connects when it is first used.
    pub fn new(options: &RemoteOptions) -> Result<Self, InvalidRemote> {
        let token = HeaderValue::from_str(options.token.expose());
        let mut token = token.map_err(|_| InvalidRemote::Token)?;
        token.set_sensitive(true);
        let most = usize::try_from(options.max_in_flight.get()).unwrap_or(usize::MAX);
        let builder = http_client_builder(&options.url, options.authorities.as_deref())?
            // They would get to see the token.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Soon enough that there is time to try again.
            .connect_timeout(options.timeout / 4)
            .tcp_user_timeout(options.timeout / 2)
            .http2_keep_alive_timeout(options.timeout / 2)
            .http2_keep_alive_interval(IDLE / 2)
            .http2_keep_alive_while_idle(true)
            .pool_max_idle_per_host(most)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true);
        let builder = if options.http2_without_tls && options.url.scheme() == "http" {
            builder.http2_prior_knowledge()
        } else {
            builder
        };
        Ok(Self {
            http: builder.build().map_err(InvalidRemote::Client)?,
            url: options.url.clone(),
            token,
            places: Semaphore::new(most.min(Semaphore::MAX_PERMITS)),
            timeout: options.timeout,
        })
    }

    /// Asks, and reads what is answered.
    async fn ask<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        asking: Asking,
    ) -> Result<T, BulkError> {
        let deadline = Instant::now() + self.timeout;
        let waiting = timeout_at(deadline, self.places.acquire()).await;
        let place = waiting.map_err(|_| unavailable(Lost::NoPlace))?;
        let _place = place.map_err(|closed| Error::Unavailable(closed.into()))?;
        let _in_flight = InFlight::begin();
        let answered = timeout_at(deadline, self.answered(scope, &asking, deadline)).await;
        answered.unwrap_or_else(|_| Err(unavailable(Lost::NoAnswer).into()))
    }

    /// Sends a request until it is answered: what was lost on the way may be repeated, as reading twice is
    /// nothing and a write is known by its id.
    async fn answered<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        asking: &Asking,
        deadline: Instant,
    ) -> Result<T, BulkError> {
        let mut pause = FIRST_PAUSE;
        let mut repeats = 0;
        loop {
            let lost = match self.ask_once(scope, asking).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Refused(refused)) if repeats > 0 && asking.writes => {
                    // What the gate refuses now may have been done before.
                    match refused.error {
                        Error::RateLimited { retry_after } => {
                            tokio::time::sleep(retry_after).await;
                            continue;
                        }
                        Error::CapabilityDenied | Error::NamespaceDenied(_) => {
                            return Err(unavailable(Lost::NoAnswer).into());
                        }
                        _ => return Err(refused),
                    }
                }
                Err(Failed::Refused(refused)) => return Err(refused),
                Err(Failed::Lost(lost)) => lost,
            };
            let out_of_time = Instant::now() + pause >= deadline;
            if !lost.may_pass() || repeats == REPEATS || out_of_time {
                return Err(unavailable(lost).into());
            }
            metrics::counter!("alga_storage_remote_retries_total").increment(1);
            tracing::debug!(error = %ErrorChain(&lost), "asking the storage service again");
            tokio::time::sleep(pause).await;
            pause *= 2;
            repeats += 1;
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        asking: &Asking,
    ) -> Result<T, Failed> {
        let path = format!(
            "{}/api/internal/ext-storage/install/{}",
            self.url.as_str().trim_end_matches('/'),
            scope.install
        );
        let request = self
            .http
            .post(path)
            .headers(self.headers(scope))
            .body(asking.body.clone())
            .send();
        let response = request.await.map_err(Lost::transport)?;
        let status = response.status();
        let body = read(response, most_of_answer(scope)).await?;
        if status.is_success() {
            return wire::parse(&body).map_err(|_| Lost::NoService(status.as_u16()).into());
        }
        let told = wire::told((status.as_u16(), &body), asking.namespace.as_ref());
        match told {
            // Whatever else answers so to a path that it doesn't know must not look like an empty store.
            Some(told) if asking.may_find_nothing || !is_nothing(&told) => {
                Err(Failed::Refused(told))
            }
            _ if matches!(status.as_u16(), 401 | 403) => {
                Err(Lost::NotLetIn(status.as_u16()).into())
            }
            // Somebody in between answers, or something else than a storage service is there.
            _ => Err(Lost::NoService(status.as_u16()).into()),
        }
    }

    fn headers(&self, scope: &Scope) -> HeaderMap {
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let mut headers = HeaderMap::from_iter([
            (AUTH, self.token.clone()),
            VERSION,
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        headers.extend(text(&scope.actor.to_string()).map(|actor| (ACTOR, actor)));
        headers.extend(text(&scope.request_id).map(|id| (REQUEST_ID, id)));
        headers
    }
}

/// A request.
struct Asking {
    body: Bytes,
    namespace: Option<Namespace>,
    writes: bool,
    may_find_nothing: bool,
}

impl Asking {
    fn reading(body: Vec<u8>, namespace: Option<&Namespace>) -> Self {
        Self {
            body: body.into(),
            namespace: namespace.cloned(),
            writes: false,
            may_find_nothing: false,
        }
    }

    fn writing(body: Vec<u8>, namespace: &Namespace) -> Self {
        Self {
            writes: true,
            ..Self::reading(body, Some(namespace))
        }
    }
}

/// A request that is counted as long as this lives.
struct InFlight(metrics::Gauge);

impl InFlight {
    fn begin() -> Self {
        let gauge = metrics::gauge!("alga_storage_remote_in_flight");
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Why there is no answer of the kind that was hoped for.
enum Failed {
    /// The service says so.
    Refused(BulkError),
    /// It may not even know.
    Lost(Lost),
}

impl From<Lost> for Failed {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Why a request, or its answer, did not get through.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the storage service can't be reached")]
    Transport(#[source] reqwest::Error),
    #[error("what answers with status {0} is no storage service")]
    NoService(u16),
    #[error(
        "the storage service does not let this process in (status {0}); is it a service token?"
    )]
    NotLetIn(u16),
    #[error("the answer of the storage service is too large")]
    TooLarge,
    #[error("too many requests to the storage service were under way for too long")]
    NoPlace,
    #[error("the storage service did not answer in time")]
    NoAnswer,
}

impl Lost {
    fn transport(error: reqwest::Error) -> Self {
        // Its own text would say the URL again.
        Self::Transport(error.without_url())
    }

    /// Whether asking again may help.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::NoService(502..=504))
    }
}

fn unavailable(lost: Lost) -> Error {
    Error::Unavailable(lost.into())
}

const fn is_nothing(told: &BulkError) -> bool {
    matches!(told.error, Error::NotFound)
}

/// More than any answer may have that keeps the limits of the install.
fn most_of_answer(scope: &Scope) -> usize {
    const BESIDE: u64 = 4 << 10;
    let limits = scope.request_limits();
    let record = limits.value_bytes + limits.metadata_bytes + BESIDE;
    let records = record.saturating_mul(limits.keys as u64);
    let page = limits.page_bytes + record + u64::from(limits.page_items.0) * BESIDE;
    usize::try_from(records.max(page)).unwrap_or(usize::MAX)
}

async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Lost> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Lost::transport)? {
        if body.len() + chunk.len() > most {
            return Err(Lost::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[async_trait]
impl StorageClient for RemoteService {
    async fn get(&self, scope: &Scope, request: GetRequest) -> Result<Record, Error> {
        let asking = Asking {
            may_find_nothing: true,
            ..Asking::reading(wire::get_body(&request), Some(&request.namespace))
        };
        let found: RecordBody = alone(self.ask(scope, asking).await)?;
        ensure_of(&request.namespace, found.namespace.as_deref())?;
        let record = found.into_record()?;
        ensure_same([&request.key], [&record.key])?;
        Ok(record)
    }

    async fn get_many(
        &self,
        scope: &Scope,
        request: GetManyRequest,
    ) -> Result<Vec<Option<Record>>, Error> {
        let body = wire::get_many_body(&request)?;
        let asking = Asking::reading(body, Some(&request.namespace));
        let many: ManyBody = alone(self.ask(scope, asking).await)?;
        let found = many.into_records()?;
        ensure_same(&request.keys, found.iter().map(|(key, _)| key))?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        let body = wire::put_body(&put, operation_id(scope))?;
        let asking = Asking::writing(body, &put.namespace);
        let (namespace, written) = if let [item] = put.items.as_slice() {
            let written: Result<WrittenBody, _> = self.ask(scope, asking).await;
            let written = written.map_err(|failed| BulkError {
                // Of one record it is not said which.
                item: is_of_an_item(failed.error.code()).then(|| FailedItem {
                    index: 0,
                    key: item.key.to_string(),
                }),
                ..failed
            })?;
            (written.namespace.clone(), vec![written])
        } else {
            let all: WrittenAllBody = self.ask(scope, asking).await?;
            (Some(all.namespace), all.items)
        };
        ensure_of(&put.namespace, namespace.as_deref())?;
        let written = written.into_iter().map(WrittenBody::into_written);
        let written = written.collect::<Result<Vec<_>, _>>()?;
        let keys = put.items.iter().map(|item| &item.key);
        ensure_same(keys, written.iter().map(|one| &one.key))?;
        Ok(written)
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        let body = wire::delete_body(&request, operation_id(scope));
        let asking = Asking::writing(body, &request.namespace);
        let deleted: DeletedBody = alone(self.ask(scope, asking).await)?;
        Ok(deleted.deleted)
    }

    async fn list(&self, scope: &Scope, list: CheckedList) -> Result<Page, Error> {
        let asking = Asking::reading(wire::list_body(&list), Some(&list.request.namespace));
        let page: PageBody = alone(self.ask(scope, asking).await)?;
        page.into_page()
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        let asking = Asking::reading(wire::usage_body(), None);
        let usage: UsageBody = alone(self.ask(scope, asking).await)?;
        usage.into_usage()
    }
}

fn operation_id(scope: &Scope) -> OperationId {
    scope.operation_id.unwrap_or_else(OperationId::generate)
}

/// What came of a request that is of one thing.
fn alone<T>(answered: Result<T, BulkError>) -> Result<T, Error> {
    answered.map_err(|failed| failed.error)
}

const fn is_of_an_item(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RevisionMismatch | ErrorCode::QuotaExceeded | ErrorCode::ValidationFailed
    )
}

/// Fails where an answer is of other keys than were asked for.
fn ensure_same<'k>(
    asked: impl IntoIterator<Item = &'k Key>,
    answered: impl IntoIterator<Item = &'k Key>,
) -> Result<(), Error> {
    if asked.into_iter().eq(answered) {
        return Ok(());
    }
    Err(Error::Internal(
        "the storage service answered of other records".into(),
    ))
}

/// Fails where an answer says that it is of another namespace.
fn ensure_of(asked: &Namespace, answered: Option<&str>) -> Result<(), Error> {
    if answered.is_none_or(|answered| answered == asked.as_str()) {
        return Ok(());
    }
    Err(Error::Internal(
        "the storage service answered of another namespace".into(),
    ))
}

/// Without the token.
impl fmt::Debug for RemoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteService")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}
